//! Resources as a table: input → the kernel's files and systemd's properties, at create and after update; and beside runc and
//! crun on the same machine and input, where every difference is one that is known and explained.

use std::{fs, io::Write, path::Path, process::Command, process::Stdio};

use serde_json::{Value, json};

use crate::harness::{Bundle, Container, Ctx, Need, Result, check, check_eq, context::path, look, tests};

tests! {
    files_are_as_the_table_says [Need::CgroupV2, Need::Controller("memory"), Need::Controller("cpuset")];
    systemd_knows_what_the_files_say [Need::CgroupV2, Need::Controller("memory"), Need::Controller("cpuset"), Need::Systemd];
    peers_write_the_same [Need::CgroupV2, Need::Controller("memory"), Need::File("/usr/sbin/runc"), Need::File("/usr/bin/crun")];
    the_group_belongs_to_the_containers_root [Need::CgroupV2];
    annotations_become_properties [Need::Systemd, Need::CgroupV2, Need::Runtime("coracle")];
    a_failed_scope_is_forgotten [Need::Systemd, Need::CgroupV2];
    an_update_of_a_scope_that_fails_changes_nothing [Need::Systemd, Need::CgroupV2, Need::Controller("cpuset")];
    a_bus_that_says_nothing_is_an_error_in_time [Need::CgroupV2, Need::Runtime("coracle")];
    no_bus_is_an_error_that_says_so [Need::CgroupV2, Need::Runtime("coracle")];
}

/// A line of the table.
struct Row {
    resources: Value,
    /// File, value.
    files: &'static [(&'static str, &'static str)],
    /// What `systemctl show` says of the scope.
    properties: &'static [&'static str],
}

fn table() -> Vec<Row> {
    let row = |resources, files, properties| Row { resources, files, properties };
    vec![
        row(
            json!({"memory": {"limit": 67_108_864, "reservation": 33_554_432, "swap": 100_663_296}}),
            &[("memory.max", "67108864"), ("memory.low", "33554432"), ("memory.swap.max", "33554432")],
            &["MemoryMax=67108864", "MemoryLow=33554432", "MemorySwapMax=33554432"],
        ),
        row(
            json!({"memory": {"limit": 67_108_864, "swap": 67_108_864}}),
            &[("memory.max", "67108864"), ("memory.swap.max", "0")],
            &["MemoryMax=67108864", "MemorySwapMax=0"],
        ),
        row(
            json!({"cpu": {"shares": 4096, "quota": 50_000, "period": 200_000}}),
            &[("cpu.weight", "303"), ("cpu.max", "50000 200000")],
            &["CPUWeight=303", "CPUQuotaPerSecUSec=250ms", "CPUQuotaPeriodUSec=200ms"],
        ),
        row(
            json!({"cpu": {"cpus": "0", "mems": "0"}}),
            &[("cpuset.cpus", "0"), ("cpuset.mems", "0")],
            &["AllowedCPUs=0", "AllowedMemoryNodes=0"],
        ),
        row(
            json!({"cpu": {"quota": 50_000, "period": 100_000, "burst": 10_000}}),
            &[("cpu.max", "50000 100000"), ("cpu.max.burst", "10000")],
            &["CPUQuotaPerSecUSec=500ms"],
        ),
        row(json!({"cpu": {"idle": 1}}), &[("cpu.idle", "1")], &["CPUWeight=idle"]),
        row(json!({"pids": {"limit": 55}}), &[("pids.max", "55")], &["TasksMax=55"]),
        row(json!({"pids": {"limit": -1}}), &[("pids.max", "max")], &["TasksMax=infinity"]),
        row(
            json!({"memory": {"limit": 33_554_432}, "unified": {"memory.max": "50331648", "memory.high": "41943040", "pids.max": "21"}}),
            &[("memory.max", "50331648"), ("memory.high", "41943040"), ("pids.max", "21")],
            &["MemoryMax=50331648", "MemoryHigh=41943040", "TasksMax=21"],
        ),
    ]
}

fn with(ctx: &Ctx, resources: &Value) -> Result<Bundle> {
    let mut bundle = ctx.waiting()?;
    for (topic, value) in resources.as_object().into_iter().flatten() {
        bundle.set(&format!("/linux/resources/{topic}"), value.clone());
    }
    Ok(bundle)
}

fn update(ctx: &Ctx, id: &str, new: &Value) -> Result {
    let mut child = ctx.command(&["update", "--resources", "-", id]).stdin(Stdio::piped()).spawn()?;
    if let Some(mut input) = child.stdin.take() {
        input.write_all(new.to_string().as_bytes())?;
    }
    check!(child.wait()?.success(), "update with {new} failed");
    Ok(())
}

fn check_files(pid: u32, row: &Row, when: &str) -> Result {
    for (file, value) in row.files {
        check_eq!(look::cgroup_file(pid, "", file)?, *value, "{file} {when} with {}", row.resources);
    }
    Ok(())
}

fn files_are_as_the_table_says(ctx: &Ctx) -> Result {
    for row in table() {
        let created = ctx.started(&with(ctx, &row.resources)?)?;
        check_files(created.pid, &row, "after create")?;
        drop(created);
        let updated = ctx.started(&ctx.waiting()?)?;
        update(ctx, &updated.id, &row.resources)?;
        check_files(updated.pid, &row, "after update")?;
    }
    Ok(())
}

/// A container in the scope `resources-ID.scope`.
fn scope<'a>(ctx: &'a Ctx, bundle: &mut Bundle) -> Result<(Container<'a>, String)> {
    let id = ctx.id();
    bundle.set("/linux/cgroupsPath", json!(format!("system.slice:resources:{id}"))).write()?;
    let mut container = Container::named(ctx, id, &bundle.dir);
    let pid_file = ctx.dir.join("pid");
    let words = ["--systemd-cgroup", "create", "--bundle", path(&bundle.dir), "--pid-file", path(&pid_file)];
    ctx.call(&[&words[..], &[&container.id]].concat())?.succeeded("create")?;
    container.pid = fs::read_to_string(&pid_file)?.parse()?;
    container.start()?;
    let unit = format!("resources-{}.scope", container.id);
    Ok((container, unit))
}

fn check_properties(unit: &str, row: &Row, when: &str) -> Result {
    for wanted in row.properties {
        let name = wanted.split('=').next().unwrap_or_default();
        let output = Command::new("systemctl").args(["show", "--property", name, unit]).output()?;
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        check_eq!(text.trim(), *wanted, "what systemd says {when} with {}", row.resources);
    }
    Ok(())
}

fn systemd_knows_what_the_files_say(ctx: &Ctx) -> Result {
    for row in table() {
        let (container, unit) = scope(ctx, &mut with(ctx, &row.resources)?)?;
        check_files(container.pid, &row, "after create in a scope")?;
        check_properties(&unit, &row, "after create")?;
        drop(container);
        let (container, unit) = scope(ctx, &mut ctx.waiting()?)?;
        update(ctx, &container.id, &row.resources)?;
        check_files(container.pid, &row, "after update of a scope")?;
        check_properties(&unit, &row, "after update")?;
    }
    Ok(())
}

/// Runtime, file, its value there, why it differs.
const KNOWN: [(&str, &str, &str, &str); 5] = [
    ("runc", "cpu.max.burst", "0", "the runc 1.1 of Debian trixie passes over cpu.burst"),
    ("runc", "cpu.idle", "0", "the runc 1.1 of Debian trixie passes over cpu.idle"),
    ("runc", "cpu.weight", "157", "older runc has the linear conversion of shares"),
    ("crun", "cpu.weight", "157", "older crun has the linear conversion of shares"),
    ("crun", "cpu.idle", "0", "the crun of Debian trixie passes over cpu.idle"),
];

fn peers_write_the_same(ctx: &Ctx) -> Result {
    for peer in ["/usr/sbin/runc", "/usr/bin/crun"] {
        let name = Path::new(peer).file_name().map(|n| n.to_string_lossy().into_owned()).unwrap_or_default();
        for row in table() {
            let mut bundle = with(ctx, &row.resources)?;
            let id = ctx.id();
            bundle.set("/linux/cgroupsPath", json!(format!("/coracle-test/{id}"))).write()?;
            let root = ctx.dir.join(&name);
            let call = |words: &[&str]| -> Result<bool> {
                let mut command = Command::new(peer);
                command.arg("--root").arg(&root).args(words).stdin(Stdio::null());
                command
                    .stdout(fs::File::create(ctx.dir.join("peer.out"))?)
                    .stderr(fs::File::create(ctx.dir.join("peer.err"))?);
                Ok(command.status()?.success())
            };
            let made = call(&["create", "--bundle", path(&bundle.dir), &id])?;
            let group = Path::new("/sys/fs/cgroup/coracle-test").join(&id);
            let mut differences = Vec::new();
            for (file, value) in row.files {
                let theirs = fs::read_to_string(group.join(file)).unwrap_or_default().trim().to_owned();
                let known = KNOWN.iter().any(|k| (k.0, k.1, k.2) == (name.as_str(), *file, theirs.as_str()));
                if theirs != *value && !known {
                    differences.push(format!("{file} is {theirs:?} with {name}, {value} here"));
                }
            }
            call(&["delete", "--force", &id])?;
            let message = fs::read_to_string(ctx.dir.join("peer.err"))?;
            check!(made, "{name} refused {}: {message}", row.resources);
            check!(differences.is_empty(), "{} ({})", differences.join("; "), row.resources);
        }
    }
    Ok(())
}

/// config-linux.md, Cgroup ownership.
fn the_group_belongs_to_the_containers_root(ctx: &Ctx) -> Result {
    use std::os::unix::fs::MetadataExt;
    for (writable, owner) in [(true, 100_000), (false, 0)] {
        let mut bundle = ctx.waiting()?;
        let map = json!([{"containerID": 0, "hostID": 100_000, "size": 65_536}]);
        bundle.namespace("user", None);
        bundle.set("/linux/uidMappings", map.clone()).set("/linux/gidMappings", map);
        for mount in bundle.spec["mounts"].as_array_mut().into_iter().flatten() {
            if let Some(options) = mount["options"].as_array_mut().filter(|_| writable) {
                options.retain(|o| o != "ro");
            }
        }
        let container = ctx.started(&bundle)?;
        let group = look::cgroup(container.pid, "")?;
        for file in ["", "cgroup.procs", "cgroup.subtree_control", "cgroup.threads"] {
            check_eq!(fs::metadata(group.join(file))?.uid(), owner, "owner of {file:?}, writable {writable}");
        }
        check_eq!(
            fs::metadata(group.join("cgroup.max.depth"))?.uid(),
            0,
            "owner of a file that is not delegated"
        );
    }
    Ok(())
}

fn annotations_become_properties(ctx: &Ctx) -> Result {
    let mut bundle = ctx.waiting()?;
    bundle.set("/annotations", json!({"org.systemd.property.TimeoutStopSec": "uint32 7"}));
    let (_container, unit) = scope(ctx, &mut bundle)?;
    let row = Row { resources: json!({}), files: &[], properties: &["TimeoutStopUSec=7s"] };
    check_properties(&unit, &row, "of an annotation")?;
    bundle.set("/annotations", json!({"org.systemd.property.TimeoutStopSec": "word"})).write()?;
    let id = ctx.id();
    let output = ctx.call(&["--systemd-cgroup", "create", "--bundle", path(&bundle.dir), &id])?;
    check!(output.code != 0 && output.stderr().contains("annotations"), "a wrong value: {}", output.stderr());
    Ok(())
}

fn a_failed_scope_is_forgotten(ctx: &Ctx) -> Result {
    let mut bundle = ctx.waiting()?;
    bundle.set("/annotations", json!({"org.systemd.property.RuntimeMaxSec": "1"}));
    let (container, unit) = scope(ctx, &mut bundle)?;
    crate::harness::container::until("systemd ends the container", || {
        Ok((container.status()? == "stopped").then_some(()))
    })?;
    container.delete()?;
    let status = Command::new("systemctl")
        .args(["status", &unit])
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status()?;
    check_eq!(status.code(), Some(4), "exit status of systemctl status (no such unit)");
    Ok(())
}

fn an_update_of_a_scope_that_fails_changes_nothing(ctx: &Ctx) -> Result {
    let resources = json!({"memory": {"limit": 64 << 20}, "pids": {"limit": 40}});
    let (container, unit) = scope(ctx, &mut with(ctx, &resources)?)?;
    let new =
        json!({"memory": {"limit": 80 << 20}, "pids": {"limit": 50}, "unified": {"cpuset.cpus": "8000"}});
    check!(update(ctx, &container.id, &new).is_err(), "an update to a processor that is not there succeeded");
    let row = Row {
        resources: new,
        files: &[("memory.max", "67108864"), ("pids.max", "40")],
        properties: &["MemoryMax=67108864", "TasksMax=40"],
    };
    check_files(container.pid, &row, "after an update that failed")?;
    check_properties(&unit, &row, "after an update that failed")
}

/// The other side takes the connection, and never says a word.
fn a_bus_that_says_nothing_is_an_error_in_time(ctx: &Ctx) -> Result {
    let bundle = ctx.waiting()?;
    bundle.write()?;
    let bus = ctx.dir.join("bus");
    let _listener = std::os::unix::net::UnixListener::bind(&bus)?;
    let id = ctx.id();
    let mut command = ctx.command(&["--systemd-cgroup", "create", "--bundle", path(&bundle.dir), &id]);
    command.env("DBUS_SYSTEM_BUS_ADDRESS", format!("unix:path={}", bus.display()));
    command.env("DBUS_SESSION_BUS_ADDRESS", format!("unix:path={}", bus.display()));
    let began = std::time::Instant::now();
    let output = ctx.finish(command)?;
    check!(output.code != 0 && output.stderr().contains("systemd"), "the message: {}", output.stderr());
    check!(began.elapsed().as_secs() < 60, "it took {} s", began.elapsed().as_secs());
    check!(ctx.records()?.is_empty(), "state is left");
    Ok(())
}

fn no_bus_is_an_error_that_says_so(ctx: &Ctx) -> Result {
    let bundle = ctx.waiting()?;
    bundle.write()?;
    let id = ctx.id();
    let mut command = ctx.command(&[
        "--rootless",
        "true",
        "--systemd-cgroup",
        "create",
        "--bundle",
        path(&bundle.dir),
        &id,
    ]);
    command.env("DBUS_SESSION_BUS_ADDRESS", "unix:path=/nowhere/bus").env("XDG_RUNTIME_DIR", "/nowhere");
    let output = ctx.finish(command)?;
    check!(output.code != 0 && output.stderr().contains("/nowhere/bus"), "the message: {}", output.stderr());
    check!(ctx.records()?.is_empty(), "state is left");
    Ok(())
}
