//! features.md, features-linux.md: what `features` says is true. Each word that it lists is one that create takes.

use serde_json::{Value, json};

use crate::harness::{
    Bundle, Container, Ctx, Need, Result, check, check_eq, context::path, host::Host, tests,
};

tests! {
    every_property_is_one_of_the_specification [Need::Command("features")]
        known "crun": "seccomp and memoryPolicy have others";
    both_versions_are_taken [Need::Command("features")];
    every_hook_is_taken [Need::Command("features")];
    every_mount_option_is_taken [Need::Runtime("coracle")];
    every_namespace_is_made [Need::Command("features")];
    every_capability_is_taken [Need::Command("features")];
    every_seccomp_word_is_taken [Need::Runtime("coracle")];
    every_seccomp_flag_that_is_supported_loads [Need::Runtime("coracle")];
    every_memory_policy_is_taken [Need::Runtime("coracle")];
    what_is_built_is_on [Need::Runtime("coracle")];
    annotations_that_loosen_are_named [Need::Runtime("coracle")];
}

fn features(ctx: &Ctx) -> Result<Value> {
    Ok(serde_json::from_str(&ctx.call(&["features"])?.succeeded("features")?.stdout())?)
}

/// The words of a list, which must not be empty.
fn words(features: &Value, pointer: &str) -> Result<Vec<String>> {
    let list = features.pointer(pointer).and_then(Value::as_array).cloned().unwrap_or_default();
    check!(!list.is_empty(), "{pointer} lists nothing");
    Ok(list.iter().filter_map(Value::as_str).map(str::to_owned).collect())
}

/// The members of the object, by the schema of version 1.3.
const PROPERTIES: [(&str, &str); 13] = [
    (
        "",
        "annotations hooks linux mountOptions ociVersionMax ociVersionMin potentiallyUnsafeConfigAnnotations",
    ),
    (
        "/linux",
        "apparmor capabilities cgroup intelRdt memoryPolicy mountExtensions namespaces netDevices seccomp selinux",
    ),
    ("/linux/apparmor", "enabled"),
    ("/linux/cgroup", "rdma systemd systemdUser v1 v2"),
    ("/linux/intelRdt", "enabled monitoring schemata"),
    ("/linux/memoryPolicy", "flags modes"),
    ("/linux/mountExtensions", "idmap"),
    ("/linux/mountExtensions/idmap", "enabled"),
    ("/linux/netDevices", "enabled"),
    ("/linux/seccomp", "actions archs enabled knownFlags operators supportedFlags"),
    ("/linux/selinux", "enabled"),
    ("/annotations", ""),
    ("/hooks", ""),
];

fn every_property_is_one_of_the_specification(ctx: &Ctx) -> Result {
    let features = features(ctx)?;
    for (pointer, members) in PROPERTIES.iter().filter(|(_, members)| !members.is_empty()) {
        let object = features.pointer(pointer).and_then(Value::as_object).cloned().unwrap_or_default();
        let known: Vec<&str> = members.split(' ').collect();
        for name in object.keys() {
            check!(known.contains(&name.as_str()), "{pointer}/{name} is not in features.md");
        }
        if ctx.kind == "coracle" {
            check_eq!(object.len(), known.len(), "members of {pointer:?}: {:?}", object.keys());
        }
    }
    Ok(())
}

fn taken(ctx: &Ctx, bundle: &Bundle, what: &str) -> Result {
    ctx.create(bundle).map(drop).map_err(|e| format!("{what}: {e}").into())
}

fn both_versions_are_taken(ctx: &Ctx) -> Result {
    let features = features(ctx)?;
    for version in ["ociVersionMin", "ociVersionMax"] {
        let mut bundle = ctx.waiting()?;
        bundle.set("/ociVersion", features[version].clone());
        taken(ctx, &bundle, version)?;
    }
    Ok(())
}

fn every_hook_is_taken(ctx: &Ctx) -> Result {
    for kind in words(&features(ctx)?, "/hooks")? {
        let mut bundle = ctx.shell("true")?;
        // Inside the container, for those that run there, and outside: the path is the same in both.
        let script = json!({"path": "/bin/sh", "args": ["sh", "-c", "exit 7"]});
        bundle.set(&format!("/hooks/{kind}"), json!([script])).write()?;
        let mut container = Container::named(ctx, ctx.id(), &bundle.dir);
        let failed = container.create(&[]).and_then(|()| container.start()).is_err();
        // The exit of poststop alone changes nothing; that it was called, the hooks' own tests see.
        check!(failed || kind == "poststop", "a failing hook of the kind {kind} goes unnoticed");
    }
    Ok(())
}

fn every_mount_option_is_taken(ctx: &Ctx) -> Result {
    for option in words(&features(ctx)?, "/mountOptions")? {
        let mut bundle = ctx.waiting()?;
        let host = bundle.dir.join("host");
        std::fs::create_dir(&host)?;
        let bind = option.contains("bind") && !option.contains("unbindable")
            || ["copy-symlink", "src-nofollow", "dest-nofollow", "ridmap"].contains(&option.as_str());
        let mut mount =
            json!({"destination": "/mnt", "type": "tmpfs", "source": "tmpfs", "options": [option]});
        if bind {
            let kind = if option == "ridmap" { "rbind" } else { "bind" };
            mount["source"] = json!(host);
            mount["options"] = if option.ends_with("bind") && option != "norbind" {
                json!([option])
            } else {
                json!([kind, option])
            };
        }
        if option.ends_with("idmap") {
            let map = json!([{"containerID": 0, "hostID": 1000, "size": 10}]);
            (mount["uidMappings"], mount["gidMappings"]) = (map.clone(), map);
        }
        if option == "remount" {
            bundle.mount("tmpfs", "tmpfs", "/mnt", &[]);
        }
        bundle.push("/mounts", mount);
        bundle.write()?;
        let container = Container::named(ctx, ctx.id(), &bundle.dir);
        let output = ctx.call(&["create", "--bundle", path(&bundle.dir), &container.id])?;
        check_eq!(output.code, 0, "create with the option {option} ({})", output.stderr());
        check_eq!(output.stderr(), "", "words on stderr with the option {option}");
    }
    // What is not listed goes to the file system, which refuses it.
    let mut bundle = ctx.waiting()?;
    bundle.mount("tmpfs", "tmpfs", "/mnt", &["no-such-option"]);
    ctx.refused(&bundle, &["no-such-option"]).map(drop)
}

fn every_namespace_is_made(ctx: &Ctx) -> Result {
    let file = |kind: &str| match kind {
        "mount" => "mnt".to_owned(),
        "network" => "net".to_owned(),
        other => other.to_owned(),
    };
    let kinds = words(&features(ctx)?, "/linux/namespaces")?;
    for kind in kinds.iter().filter(|kind| Host::has(&format!("/proc/self/ns/{}", file(kind)))) {
        let mut bundle = ctx.waiting()?;
        bundle.namespace(kind, None);
        if kind == "user" {
            bundle.user_namespace(100_000, 65_536)?;
        }
        let container = ctx.started(&bundle).map_err(|e| format!("a namespace of type {kind}: {e}"))?;
        let of = |pid: &str| std::fs::read_link(format!("/proc/{pid}/ns/{}", file(kind)));
        check!(of(&container.pid.to_string())? != of("self")?, "the {kind} namespace is the host's");
    }
    Ok(())
}

fn every_capability_is_taken(ctx: &Ctx) -> Result {
    let names = words(&features(ctx)?, "/linux/capabilities")?;
    let mut bundle = ctx.waiting()?;
    bundle.set("/process/capabilities", json!({"bounding": names}));
    bundle.write()?;
    let mut container = Container::named(ctx, ctx.id(), &bundle.dir);
    container.create(&[])?;
    let said = container.output.as_ref().map(crate::harness::Output::stderr).unwrap_or_default();
    check!(!said.contains("this build"), "a name that features lists is not known: {said}");
    container.start()?;
    let set = |pid: &str| -> Result<u64> {
        let status = std::fs::read_to_string(format!("/proc/{pid}/status"))?;
        let line = status.lines().find_map(|l| l.strip_prefix("CapBnd:")).unwrap_or_default();
        Ok(u64::from_str_radix(line.trim(), 16)?)
    };
    // All of the kernel's that the runtime itself has: none is missing in the list.
    check_eq!(set(&container.pid.to_string())?, set("self")?, "bounding set, as bits");
    Ok(())
}

/// Whether `plan`, which compiles the filter, takes the profile.
fn planned(ctx: &Ctx, profile: Value, what: &str) -> Result {
    let mut bundle = ctx.waiting()?;
    bundle.set("/linux/seccomp", profile).write()?;
    let output = ctx.call(&["plan", "--bundle", path(&bundle.dir)])?;
    check_eq!(output.code, 0, "plan with {what} ({})", output.stderr());
    Ok(())
}

fn every_seccomp_word_is_taken(ctx: &Ctx) -> Result {
    let features = features(ctx)?;
    for action in words(&features, "/linux/seccomp/actions")? {
        let profile = json!({"defaultAction": "SCMP_ACT_ALLOW", "listenerPath": "/run/agent",
            "syscalls": [{"names": ["mkdir"], "action": action}]});
        planned(ctx, profile, &action)?;
    }
    for operator in words(&features, "/linux/seccomp/operators")? {
        let argument = json!({"index": 0, "value": 1, "valueTwo": 1, "op": operator});
        let profile = json!({"defaultAction": "SCMP_ACT_ALLOW",
            "syscalls": [{"names": ["mkdir"], "action": "SCMP_ACT_ERRNO", "args": [argument]}]});
        planned(ctx, profile, &operator)?;
    }
    for arch in words(&features, "/linux/seccomp/archs")? {
        planned(ctx, json!({"defaultAction": "SCMP_ACT_ALLOW", "architectures": [arch]}), &arch)?;
    }
    for flag in words(&features, "/linux/seccomp/knownFlags")? {
        planned(ctx, json!({"defaultAction": "SCMP_ACT_ALLOW", "flags": [flag]}), &flag)?;
    }
    Ok(())
}

fn every_seccomp_flag_that_is_supported_loads(ctx: &Ctx) -> Result {
    let features = features(ctx)?;
    let known = words(&features, "/linux/seccomp/knownFlags")?;
    for flag in words(&features, "/linux/seccomp/supportedFlags")? {
        check!(known.contains(&flag), "{flag} is supported, and not known");
        let mut bundle = ctx.shell("true")?;
        bundle.set("/linux/seccomp", json!({"defaultAction": "SCMP_ACT_ALLOW", "flags": [flag]}));
        ctx.run(&bundle)?.succeeded(&flag)?;
    }
    Ok(())
}

fn every_memory_policy_is_taken(ctx: &Ctx) -> Result {
    let features = features(ctx)?;
    let planned = |policy: Value| -> Result {
        let mut bundle = ctx.waiting()?;
        bundle.set("/linux/memoryPolicy", policy.clone()).write()?;
        let output = ctx.call(&["plan", "--bundle", path(&bundle.dir)])?;
        check_eq!(output.code, 0, "plan with {policy} ({})", output.stderr());
        Ok(())
    };
    for mode in words(&features, "/linux/memoryPolicy/modes")? {
        let nodes = if ["MPOL_DEFAULT", "MPOL_LOCAL"].contains(&mode.as_str()) { "" } else { "0" };
        planned(json!({"mode": mode, "nodes": nodes}))?;
    }
    for flag in words(&features, "/linux/memoryPolicy/flags")? {
        planned(json!({"mode": "MPOL_BIND", "nodes": "0", "flags": [flag]}))?;
    }
    Ok(())
}

/// Whether the host has it is another question: features-linux.md.
fn what_is_built_is_on(ctx: &Ctx) -> Result {
    let features = features(ctx)?;
    for pointer in ["apparmor", "intelRdt", "mountExtensions/idmap", "netDevices", "seccomp", "selinux"] {
        let enabled = features.pointer(&format!("/linux/{pointer}/enabled"));
        check_eq!(enabled, Some(&json!(true)), "{pointer}.enabled");
    }
    Ok(())
}

/// Each that a binary answers to is listed, so that an engine can keep it from whoever may write annotations.
fn annotations_that_loosen_are_named(ctx: &Ctx) -> Result {
    let named = words(&features(ctx)?, "/potentiallyUnsafeConfigAnnotations")?;
    let binary = std::fs::read(&ctx.runtime)?;
    let has = |word: &str| binary.windows(word.len()).any(|w| w == word.as_bytes());
    for word in &named {
        check!(has(word.trim_end_matches('.')), "{word} is listed, and nobody reads it");
    }
    for word in ["run.oci.keep_original_groups", "run.oci.hooks.", "org.systemd.property.", "org.criu.config"]
    {
        check!(named.iter().any(|n| n == word), "{word} is not listed");
    }
    Ok(())
}
