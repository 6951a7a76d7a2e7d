//! What people type who come from podman and docker: the options of run --image, seen from within the container. Promises
//! of Coracle alone, as in image.rs.

use std::{fs, os::unix::fs::PermissionsExt, path::Path};

use serde_json::{Value, json};

use crate::harness::{
    Ctx, Layout, Need, Result, check, check_eq,
    image::{call, run},
    tests,
};

const OURS: Need = Need::Runtime("coracle");
const TUN: &str = "/dev/net/tun";

tests! {
    the_host_in_the_container [OURS];
    as_a_user_the_host_in_the_container [OURS, Need::Unprivileged];
    devices_may_be_used_as_far_as_asked_for [OURS, Need::File(FUSE)];
    as_a_user_devices_are_the_hosts [OURS, Need::Unprivileged, Need::File(FUSE)];
    what_a_program_may [OURS];
    as_a_user_what_a_program_may [OURS, Need::Unprivileged];
    an_init_stands_before_the_program [OURS];
    labels_become_annotations [OURS];
    what_there_is_not_says_what_there_is [OURS];
    a_program_that_does_not_begin [OURS];
    names_are_resolved_as_asked_for [OURS, Need::File("/usr/bin/pasta"), Need::File(TUN)];
    as_a_user_names_are_resolved_as_asked_for [OURS, Need::Unprivileged, Need::File("/usr/bin/pasta"), Need::Writable(TUN)];
    limits_bite [OURS, Need::Controller("memory"), Need::Controller("pids"), Need::Controller("cpu")];
    as_a_user_limits_bite [OURS, Need::Unprivileged, Need::Systemd, Need::Controller("memory"), Need::Controller("pids")];
}

/// Any of the host's devices that the default rules do not allow.
const FUSE: &str = "/dev/fuse";

/// An image whose program is a shell that runs the first word.
fn shell(ctx: &Ctx) -> Result<String> {
    Layout::new(ctx, "image")?.finish(&json!({"Entrypoint": ["/bin/sh", "-c"], "Cmd": ["exit 9"]}))
}

/// Runs each of these words; they end with this code and say this.
fn cases(ctx: &Ctx, image: &str, cases: &[(&[&str], i32, &str)]) -> Result {
    for (words, code, said) in cases {
        let output = run(ctx, &[&[image, "--rm"], *words].concat())?;
        check_eq!((output.code, output.stdout().as_str()), (*code, *said), "{words:?} ({})", output.stderr());
    }
    Ok(())
}

fn the_host_in_the_container(ctx: &Ctx) -> Result {
    let image = shell(ctx)?;
    let from = ctx.dir.join("in");
    fs::create_dir_all(&from)?;
    fs::write(from.join("file"), "hello\n")?;
    let from = from.display();
    let (plain, read) =
        (format!("type=bind,source={from},target=/m"), format!("type=bind,src={from},dst=/m,readonly"));
    let (below, over) = (format!("{from}:/a/b"), format!("{from}/file:/etc/hosts"));
    cases(
        ctx,
        &image,
        &[
            (
                &[
                    "--mount",
                    &read,
                    "-h",
                    "web",
                    "--shm-size",
                    "128k",
                    "--add-host",
                    "db:10.1.2.3",
                    "--add-host",
                    "six=[::1]",
                    "cat /m/file; touch /m/new || hostname; grep /dev/shm /proc/mounts | grep -o size=128k; tail -n 2 /etc/hosts",
                ],
                0,
                "hello\nweb\nsize=128k\n10.1.2.3\tdb\n::1\tsix\n",
            ),
            // The outer one first, whatever the order of the words.
            (
                &[
                    "-v",
                    &below,
                    "--tmpfs",
                    "/a",
                    "--mount",
                    &plain,
                    "--mount",
                    "type=tmpfs,dst=/t,tmpfs-size=64k,tmpfs-mode=750",
                    "echo more >>/m/file; cat /a/b/file; stat -f -c %T /a; stat -c %a /t; grep -o 'size=64k' /proc/mounts",
                ],
                0,
                "hello\nmore\ntmpfs\n750\nsize=64k\n",
            ),
            (&["-v", &over, "cat /etc/hosts"], 0, "hello\nmore\n"),
            (&["--net", "host", "--add-host", "db:10.1.2.3", "tail -n 1 /etc/hosts"], 0, "10.1.2.3\tdb\n"),
        ],
    )
}

fn as_a_user_the_host_in_the_container(ctx: &Ctx) -> Result {
    the_host_in_the_container(ctx)
}

/// cgroups(7), "devices": without a rule, a node is of no use; with one, for what it names. EPERM is the filter's: a driver
/// that is not there says something else.
fn devices_may_be_used_as_far_as_asked_for(ctx: &Ctx) -> Result {
    let image = shell(ctx)?;
    let made = "mknod /x c 10 229; dd if=/x count=0 2>&1 | grep -c 'not permitted'";
    let given = "for word in if=/x 'of=/x conv=notrunc'; do dd $word count=0 2>&1 | grep -c 'not permitted'; done; true";
    let (all, read) = (format!("{FUSE}:/x"), format!("{FUSE}:/x:r"));
    cases(
        ctx,
        &image,
        &[
            (&[made], 0, "1\n"),
            (&["--device", &all, given], 0, "0\n0\n"),
            (&["--device", &read, given], 0, "0\n1\n"),
        ],
    )
}

/// The filter is root's: for a user less than all of a device cannot be had, and is not promised.
fn as_a_user_devices_are_the_hosts(ctx: &Ctx) -> Result {
    let image = shell(ctx)?;
    let (all, read) = (format!("{FUSE}:/x"), format!("{FUSE}:/x:r"));
    cases(
        ctx,
        &image,
        &[
            (&["--device", FUSE, "--device", &all, "stat -c %t:%T /x /dev/fuse"], 0, "a:e5\na:e5\n"),
            (&["--device", &read, "true"], 125, ""),
        ],
    )
}

fn what_a_program_may(ctx: &Ctx) -> Result {
    let image = shell(ctx)?;
    let filter = ctx.dir.join("filter.json");
    let refuse = |name: &str, when: Value| json!({"names": [name], "action": "SCMP_ACT_ERRNO", "errnoRet": 1, "args": null, "comment": "", "includes": when, "excludes": {}});
    let rules = [refuse("mkdir", json!({})), refuse("rmdir", json!({"caps": ["CAP_SYS_BOOT"]}))];
    let archs = json!([{"architecture": format!("SCMP_ARCH_{}", std::env::consts::ARCH.to_uppercase()), "subArchitectures": []}]);
    let profile = json!({"defaultAction": "SCMP_ACT_ALLOW", "archMap": archs, "syscalls": rules});
    fs::write(&filter, profile.to_string())?;
    let filter = format!("seccomp={}", filter.display());
    let status = "grep -e NoNewPrivs -e Seccomp: /proc/self/status";
    let hidden = "cat /proc/timer_list | wc -c; grep -c ' /proc/sys ' /proc/mounts";
    let ttl = "cat /proc/sys/net/ipv4/ip_default_ttl";
    // What it has unasked: the fourteen capabilities that engines give, and a filter that keeps it in its namespaces.
    let usual = "grep -h -e CapEff -e CapBnd /proc/self/status; unshare -U true && echo elsewhere";
    cases(
        ctx,
        &image,
        &[
            (&[usual], 1, "CapEff:\t00000000a80425fb\nCapBnd:\t00000000a80425fb\n"),
            (
                &[
                    "--ulimit",
                    "nofile=64:128",
                    "--ulimit",
                    "core=0",
                    &format!("ulimit -n; ulimit -Hn; ulimit -c; {status}; {hidden}"),
                ],
                0,
                "64\n128\n0\nNoNewPrivs:\t0\nSeccomp:\t2\n0\n1\n",
            ),
            (
                &[
                    "--security-opt",
                    "no-new-privileges",
                    "--security-opt",
                    "seccomp=unconfined",
                    "--security-opt",
                    "unmask=ALL",
                    "--sysctl",
                    "net.ipv4.ip_default_ttl=77",
                    &format!("{status}; grep -c ' /proc/' /proc/mounts; {ttl}"),
                ],
                0,
                "NoNewPrivs:\t1\nSeccomp:\t0\n0\n77\n",
            ),
            (
                &[
                    "--security-opt",
                    &filter,
                    "--security-opt",
                    "unmask=/proc/sys",
                    "--security-opt",
                    "mask=/etc/passwd",
                    &format!("mkdir /d || rmdir /tmp && echo removed; wc -c </etc/passwd; {hidden}"),
                ],
                1,
                "removed\n0\n0\n0\n",
            ),
            (&["--security-opt", "seccomp=/no/such/file", "true"], 125, ""),
        ],
    )
}

fn as_a_user_what_a_program_may(ctx: &Ctx) -> Result {
    what_a_program_may(ctx)
}

/// Where the host has one; else it is said what is missing.
fn an_init_stands_before_the_program(ctx: &Ctx) -> Result {
    let image = shell(ctx)?;
    let places = [
        "/usr/libexec/podman/catatonit",
        "/usr/bin/catatonit",
        "/usr/bin/docker-init",
        "/usr/bin/tini-static",
    ];
    let output = run(ctx, &[&image, "--rm", "--init", "cat /proc/1/comm; exit 3"])?;
    if places.iter().any(|place| Path::new(place).exists()) {
        check_eq!((output.code, output.stdout().as_str()), (3, "coracle-init\n"), "{}", output.stderr());
    } else {
        check_eq!((output.code, output.stdout().as_str()), (125, ""), "without an init");
        check!(output.stderr().contains("catatonit"), "{}", output.stderr());
    }
    Ok(())
}

fn labels_become_annotations(ctx: &Ctx) -> Result {
    let config =
        json!({"Cmd": ["/bin/sh"], "StopSignal": "SIGHUP", "Labels": {"version": "1", "vendor": "x"}});
    let image = Layout::new(ctx, "image")?.finish(&config)?;
    let words = ["--label", "version=2", "-l", "bare", "--annotation", "a.b=c=d", "--stop-signal", "SIGUSR1"];
    call(ctx, &[&["unpack"], &words[..], &[&image, "bundle"]].concat())?.succeeded("unpack")?;
    let spec: Value = serde_json::from_slice(&fs::read(ctx.dir.join("bundle/config.json"))?)?;
    let of = |name: &str| spec["annotations"][name].clone();
    let stop = "org.opencontainers.image.stopSignal";
    check_eq!(
        json!(["version", "vendor", "bare", "a.b", stop].map(of)),
        json!(["2", "x", "", "c=d", "SIGUSR1"]),
        "annotations"
    );
    Ok(())
}

fn what_there_is_not_says_what_there_is(ctx: &Ctx) -> Result {
    for (word, why) in [
        ("--privileged", "--cap-add"),
        ("--restart=always", "systemd unit"),
        ("--health-cmd", "exec"),
        ("--gpus=all", "--device"),
        ("--pid=host", "coracle unpack"),
        ("-P", "--publish"),
        ("--nonsense", "--help"),
        ("--security-opt=label=type:x", "SELinux"),
        ("--ulimit=files=1", "nofile"),
        ("--mount=type=volume,src=x,dst=/x", "type=bind"),
        ("--device=vendor.x/gpu=all", "CDI"),
        ("--add-host=x:host-gateway", "address"),
    ] {
        let output = run(ctx, &["./image", "--rm", word, "true"])?;
        check_eq!(output.code, 1, "{word}: {}", output.stderr());
        check!(output.stderr().contains(why), "{word}: {}", output.stderr());
    }
    // Callers probe a bundle's `run` by these words: no word for images follows them.
    let output = call(ctx, &["run", "--privileged", "x"])?;
    let said = "flag provided but not defined: --privileged; coracle run --help";
    check!(output.stderr().contains(said), "run: {}", output.stderr());
    Ok(())
}

/// The exit codes of engines, also where only execve(2) finds out.
fn a_program_that_does_not_begin(ctx: &Ctx) -> Result {
    let image = shell(ctx)?;
    for (name, text, mode, code) in [
        ("orphan", "#!/no/such/interpreter\n", 0o755, 127),
        ("noise", "\u{1}\u{2}\u{3}", 0o755, 126),
        ("closed", "#!/bin/sh\n", 0o644, 126),
    ] {
        let path = ctx.dir.join(name);
        fs::write(&path, text)?;
        fs::set_permissions(&path, fs::Permissions::from_mode(mode))?;
        let volume = format!("{}:/program", path.display());
        let output = run(ctx, &[&image, "--rm", "-v", &volume, "--entrypoint", "/program"])?;
        check_eq!(output.code, code, "{name}: {}", output.stderr());
        check!(output.stderr().contains("/program"), "{name}: {}", output.stderr());
    }
    Ok(())
}

/// resolv.conf(5).
fn names_are_resolved_as_asked_for(ctx: &Ctx) -> Result {
    let image = shell(ctx)?;
    let words = ["--dns", "9.9.9.9", "--dns", "::1", "--dns-search", "x.y", "--dns-option", "ndots:3"];
    let said = "nameserver 9.9.9.9\nnameserver ::1\nsearch x.y\noptions ndots:3\n";
    for net in ["pasta", "host"] {
        let output =
            run(ctx, &[&[&image, "--rm", "--net", net], &words[..], &["cat /etc/resolv.conf"]].concat())?;
        check_eq!(output.stdout(), said, "--net {net} ({})", output.stderr());
    }
    let output = run(ctx, &[&[image.as_str(), "--rm"], &words[..], &["true"]].concat())?;
    check!(output.code == 125 && output.stderr().contains("--net"), "--net none: {}", output.stderr());
    Ok(())
}

fn as_a_user_names_are_resolved_as_asked_for(ctx: &Ctx) -> Result {
    names_are_resolved_as_asked_for(ctx)
}

/// Not only written: what is more than the limit does not happen.
fn limits_bite(ctx: &Ctx) -> Result {
    let image = shell(ctx)?;
    let called = |global: &[&str], words: &[&str]| {
        call(ctx, &[global, &["run", "--image", &image, "--rm"], words].concat())
    };
    let run = |words: &[&str]| called(&[], words);
    let (files, said) = match ctx.host.cgroup2 {
        true => (["memory.max", "memory.swap.max", "pids.max"], "33554432\n8388608\n9\n"),
        false => (
            ["memory/memory.limit_in_bytes", "memory/memory.memsw.limit_in_bytes", "pids/pids.max"],
            "33554432\n41943040\n9\n",
        ),
    };
    let cat = format!("cd /sys/fs/cgroup; cat {}", files.join(" "));
    let managers: &[&[&str]] = if ctx.host.systemd { &[&[], &["--systemd-cgroup"]] } else { &[&[]] };
    for global in managers {
        let output = called(global, &["-m", "32M", "--memory-swap", "40M", "--pids-limit", "9", &cat])?;
        check_eq!(output.stdout(), said, "{global:?}: what is written ({})", output.stderr());
    }
    let (swap, usual) =
        (format!("cat /sys/fs/cgroup/{}", files[1]), if ctx.host.cgroup2 { 32 << 20 } else { 64 << 20 });
    let output = run(&[
        "-m",
        "32M",
        "--pids-limit",
        "0",
        &format!("{swap}; for i in 1 2 3 4 5 6 7 8 9 10; do true & done"),
    ])?;
    check_eq!(output.stdout(), format!("{usual}\n"), "what is usual ({})", output.stderr());
    // A line without end is kept whole.
    let output = run(&["-m", "32M", "--entrypoint", "/bin/tail", "/dev/zero"])?;
    check_eq!(output.code, 137, "more memory than there may be ({})", output.stderr());
    let output = run(&["--pids-limit", "5", "for i in 1 2 3 4 5 6 7 8 9 10; do sleep 1 & done"])?;
    check!(output.stderr().contains("fork"), "more processes than there may be: {}", output.stderr());
    if ctx.host.controller("cpu") {
        let busy = "for i in $(seq 2000); do cat /sys/fs/cgroup/cpu.stat /sys/fs/cgroup/cpu/cpu.stat 2>/dev/null | grep -q 'nr_throttled [1-9]' && exec echo throttled; done";
        let output = run(&["--cpus", "0.2", busy])?;
        check_eq!(output.stdout(), "throttled\n", "more time than there may be ({})", output.stderr());
    }
    Ok(())
}

fn as_a_user_limits_bite(ctx: &Ctx) -> Result {
    limits_bite(ctx)
}
