//! A table of mistakes, and what is said of each: the place, what stands there, the rule, what to do about it. Made for
//! people who have never seen the code; read it as they would.
//!
//! Every entry is refused in one sentence (two lines at most) with an exit status that is not 0, and nothing is made.

use std::path::Path;

use serde_json::{Value, json};

use crate::harness::{Bundle, Ctx, Need, Output, Result, check, check_eq, context::path, tests};

tests! {
    versions_and_annotations [Need::Runtime("coracle")];
    root [Need::Runtime("coracle")];
    mounts [Need::Runtime("coracle")];
    mounted_ids [Need::Runtime("coracle")];
    program [Need::Runtime("coracle")];
    user_and_rights [Need::Runtime("coracle")];
    limits_and_scheduling [Need::Runtime("coracle")];
    names [Need::Runtime("coracle")];
    namespaces [Need::Runtime("coracle")];
    clocks [Need::Runtime("coracle"), Need::Namespace("time")];
    devices [Need::Runtime("coracle")];
    network_devices [Need::Runtime("coracle")];
    sysctl [Need::Runtime("coracle")];
    seccomp [Need::Runtime("coracle")];
    resources [Need::Runtime("coracle")];
    what_only_cgroup_v1_has [Need::Runtime("coracle"), Need::CgroupV2];
    paths [Need::Runtime("coracle")];
    memory_and_cache [Need::Runtime("coracle")];
    hooks [Need::Runtime("coracle")];
    files [Need::Runtime("coracle")];
    command_lines [Need::Runtime("coracle")];
    container_ids [Need::Runtime("coracle")];
    no_such_profile [Need::Runtime("coracle")];
    states [Need::Runtime("coracle")];
}

/// `place: value` is a change to a good config.json, by JSON pointer: null takes away, `/-` appends. After `=>` stands what
/// the message must contain.
macro_rules! mistakes {
    ($($test:ident { $($($place:literal: $value:tt),+ => $($words:literal),+;)+ })+) => {
        $(fn $test(ctx: &Ctx) -> Result {
            each(ctx, &[$((vec![$(($place, json!($value))),+], &[$($words),+])),+])
        })+
    };
}

/// Changes, and what must be said of them.
type Mistake = (Vec<(&'static str, Value)>, &'static [&'static str]);

/// Creates with each of the mistakes, and tells of all that goes wrong.
fn each(ctx: &Ctx, table: &[Mistake]) -> Result {
    let mut bundle = ctx.waiting()?;
    let good = bundle.spec.clone();
    let mut wrong = Vec::new();
    for (changes, words) in table {
        bundle.spec = good.clone();
        for (place, value) in changes {
            change(&mut bundle, place, value);
        }
        bundle.write()?;
        let id = ctx.id();
        let output = ctx.call(&["--log-format", "json", "create", "--bundle", path(&bundle.dir), &id])?;
        if let Err(error) = refused(ctx, &output, words).and_then(|()| plan_agrees(ctx, &bundle, &output)) {
            wrong.push(format!("{changes:?}: {error}"));
        }
    }
    check!(wrong.is_empty(), "\n{}", wrong.join("\n"));
    Ok(())
}

fn change(bundle: &mut Bundle, place: &str, value: &Value) {
    match (place.strip_suffix("/-"), value) {
        (Some(list), _) => drop(bundle.push(list, value.clone())),
        (None, Value::Null) => drop(bundle.remove(place)),
        (None, _) => drop(bundle.set(place, value.clone())),
    }
}

/// One JSON object on standard error, a short message with these words, a status that is not 0, and nothing left.
fn refused(ctx: &Ctx, output: &Output, words: &[&str]) -> Result {
    let left = ctx.left()?;
    check!(left.is_empty(), "{}", left.join("; "));
    check!(output.code != 0, "it succeeds");
    let message = message(output)?;
    check!((1..=2).contains(&message.lines().count()), "lines of {message:?}");
    for word in words {
        check!(message.contains(word), "{message:?} lacks {word:?}");
    }
    Ok(())
}

/// The message of the one object that must stand on standard error.
fn message(output: &Output) -> Result<String> {
    let text = output.stderr();
    let record: Value = serde_json::from_str(&text).map_err(|e| format!("standard error {text:?}: {e}"))?;
    check_eq!(record["level"], "error", "level of {record}");
    check_eq!(record.as_object().map(serde_json::Map::len), Some(3), "members of {record}");
    let time = record["time"].as_str().unwrap_or_default();
    check!(time.len() >= 20 && time.contains('T') && time.ends_with('Z'), "time is {time:?}");
    Ok(record["msg"].as_str().unwrap_or_default().to_owned())
}

/// What plan refuses, it refuses in the same words. Some mistakes show only on the way; those it cannot know.
fn plan_agrees(ctx: &Ctx, bundle: &Bundle, created: &Output) -> Result {
    let output = ctx.call(&["--log-format", "json", "plan", "--bundle", path(&bundle.dir)])?;
    if output.code != 0 {
        check_eq!(message(&output)?, message(created)?, "what plan says, and create");
    }
    Ok(())
}

mistakes! {
    versions_and_annotations {
        "/ociVersion": null => "ociVersion: is missing or empty (config.md, Specification version); write the version that the bundle follows, such as \"1.0.2\"";
        "/ociVersion": "2.0.0" => "ociVersion: \"2.0.0\" is not a version 1.x.y of the specification (config.md, Specification version); write the version that the bundle follows, such as \"1.0.2\"";
        "/ociVersion": "1.0" => "ociVersion: \"1.0\" is not a version 1.x.y of the specification (config.md, Specification version); write the version that the bundle follows, such as \"1.0.2\"";
        "/ociVersion": "one" => "ociVersion: \"one\" is not a version 1.x.y of the specification (config.md, Specification version); write the version that the bundle follows, such as \"1.0.2\"";
        "/ociVersion": 1.2 => "ociVersion: 1.2 is not a string (config.md); write a string";
        "/annotations": {"com.example.count": 7} => "annotations.com.example.count: 7 is not a string (config.md, Annotations); write \"7\"";
        "/annotations": {"run.oci.mount_context_type": "incontext"} => "annotations[\"run.oci.mount_context_type\"]: \"incontext\" is not context, fscontext, defcontext or rootcontext (mount(8)); write one of these";
        "/annotations": {"run.oci.handler": "krun"} => "annotations[\"run.oci.handler\"]: \"krun\" is to run the program, and coracle has no handlers: it would run as any other (config.md, Annotations); remove it, or use a runtime that has this handler";
        "/annotations": {"run.oci.seccomp_bpf_data": "AAAA"} => "annotations[\"run.oci.seccomp_bpf_data\"]: a compiled seccomp filter is not taken, and without it the container would have another (config.md, Annotations); describe the filter in linux.seccomp";
        "/annotations": {"run.oci.delegate-cgroup": "a/../b"} => "annotations[\"run.oci.delegate-cgroup\"]: \"a/../b\" leaves its place by .. (config-linux.md, Control groups); write the path without ..";
        "/annotations": {"": "x"} => "annotations: has an empty key (config.md, Annotations); name it, or remove it";
        "/annotations": ["a"] => "annotations: [\"a\"] is not an object (config.md, Annotations); write an object";
    }

    root {
        "/root": null => "root: is missing (config.md, Root); add it, such as {\"path\": \"rootfs\"}";
        "/root": {} => "root.path: is missing or empty (config.md, Root); add it, such as {\"path\": \"rootfs\"}";
        "/root/path": "nowhere" => "root.path: opening the root file system \"", "/bundle1/nowhere\": no such file or directory (config.md, Root); name a directory, from the bundle's or from the root";
        "/root/path": "config.json" => "root.path: \"", "/bundle1/config.json\" is not a directory (config.md, Root); name one, from the bundle's or from the root";
        "/root/path": 7 => "root.path: 7 is not a string (config.md, Root); write a string";
        "/root/readonly": "yes" => "root.readonly: \"yes\" is not true or false (config.md, Root); write true or false";
    }

    mounts {
        "/mounts/-": {"type": "tmpfs"} => "mounts[7].destination: is missing (config.md, Mounts); add it";
        "/mounts/-": {"destination": "/mnt", "source": "tmpfs"} => "mounts[7].type: there is neither a type nor the option bind (config.md, Mounts); name the file system, such as tmpfs, or add bind";
        "/mounts/-": {"destination": "/mnt", "type": "bind", "source": "/usr", "options": ["bind", "readonly"]} => "mounts[7].options: \"readonly\" is not an option of this mount (mount(8)); write \"ro\"";
        "/mounts/-": {"destination": "/mnt", "type": "bind", "source": "/usr", "options": ["bind", "nosiud"]} => "mounts[7].options: \"nosiud\" is not an option of this mount (mount(8)); write \"nosuid\"";
        "/mounts/-": {"destination": "/mnt", "type": "nofs"} => "opening a file system of type \"nofs\" (/proc/filesystems lists the kernel's): no such device (asked for by mounts[7])";
        "/mounts/-": {"destination": "/mnt", "options": ["bind"]} => "mounts[7].source: a bind mount needs a source (config.md, Mounts); name the host's file or directory";
        "/mounts/-": {"destination": "/mnt", "options": ["bind"], "source": "/no/such/source"} => "opening the source \"/no/such/source\": no such file or directory (asked for by mounts[7])";
        "/mounts/-": {"destination": "/mnt", "type": "tmpfs", "options": "ro"} => "mounts[7].options: \"ro\" is not an array (config.md, Mounts); write [\"ro\"]";
        "/mounts/-": {"destination": "/mnt", "type": "tmpfs", "options": ["sise=1m"]} => "setting the option \"sise=1m\" of \"tmpfs\" on \"/mnt\" (the kernel says: tmpfs: Unknown parameter 'sise'): invalid argument (asked for by mounts[7])";
        "/mounts/-": {"destination": "/mnt", "type": "tmpfs", "options": ["size=lots"]} => "setting the option \"size=lots\" of \"tmpfs\" on \"/mnt\" (the kernel says: tmpfs: Bad value for 'size'): invalid argument (asked for by mounts[7])";
        "/mounts/-": {"destination": "/mnt", "type": "securityfs", "source": "securityfs"},
            "/linux/namespaces/-": {"type": "user"},
            "/linux/uidMappings": [{"containerID": 0, "hostID": 0, "size": 1000}],
            "/linux/gidMappings": [{"containerID": 0, "hostID": 0, "size": 1000}] => "mounting a file system of type \"securityfs\" from \"securityfs\" on \"/mnt\" (most types want CAP_SYS_ADMIN on the host, not in a user namespace): operation not permitted (asked for by mounts[7])";
        "/mounts/-": {"destination": "/mnt", "type": "overlay", "source": "overlay", "options": ["lowerdir=/no/such"]} => "\"overlay\"", " on \"/mnt\"", ": no such file or directory (asked for by mounts[7])";
        "/mounts/-": {"destination": "/mnt", "type": "overlay", "source": "overlay"} => "mounting a file system of type \"overlay\" from \"overlay\" on \"/mnt\" (it wants lowerdir, and upperdir only together with workdir, both on one file system; dmesg may have the kernel's reason): invalid argument (asked for by mounts[7])";
        "/mounts/-": {"destination": "/mnt", "type": "tmpfs", "options": ["ro\u{0}"]} => "mounts[7].options[0]: holds a NUL byte; remove it";
        "/mounts/-": {"destination": "/proc/sys/kernel", "type": "tmpfs"} => "mounts[7].destination: \"/proc/sys/kernel\" would hide part of /proc from the runtime and the container (CVE-2019-16884); mount it outside /proc, or mount proc there";
        "/mounts/-": {"destination": "/proc", "type": "tmpfs"} => "mounts[7].destination: \"/proc\" would hide part of /proc from the runtime and the container (CVE-2019-16884); mount it outside /proc, or mount proc there";
        "/mounts/-": {"destination": "/etc/passwd", "options": ["bind"], "source": "/etc"} => "error mounting \"/etc/passwd\" (a directory onto a file): not a directory (asked for by mounts[7])";
        "/mounts/-": {"destination": "/tmp", "options": ["bind"], "source": "/etc/passwd"} => "error mounting \"/tmp\" (a file onto a directory): not a directory (asked for by mounts[7])";
        "/mounts/-": {"destination": "/mnt", "type": "tmpfs", "options": ["remount", "ro"]} => "remounting \"/mnt\": nothing is mounted there (asked for by mounts[7])";
        "/linux/rootfsPropagation": "sideways" => "linux.rootfsPropagation: \"sideways\" is not a propagation (config-linux.md, Rootfs Mount Propagation); use shared, slave, private or unbindable";
    }

    mounted_ids {
        "/mounts/-": {"destination": "/mnt", "type": "tmpfs", "uidMappings": [{"containerID": 0, "hostID": 1, "size": 1}]} => "mounts[7].gidMappings: id-mapped mounts must have both uid and gid mappings specified (config.md, Mounts); add the missing one";
        "/mounts/-": {"destination": "/mnt", "type": "tmpfs", "options": ["idmap"]} => "mounts[7].options[0]: the ids cannot be mapped: the mount has no mappings, and the container no user namespace (config.md, Mounts); add uidMappings and gidMappings to the mount";
        "/mounts/-": {"destination": "/mnt", "type": "tmpfs", "options": ["idmap=uids=0-1"]} => "mounts[7].options[0]: \"0-1\" is not a map of ids (crun(1), idmap mount options); write uids=FILE-HOST-COUNT;gids=FILE-HOST-COUNT, more ranges after #";
        "/mounts/-": {"destination": "/mnt", "type": "tmpfs", "uidMappings": [{"containerID": 0, "hostID": 1, "size": 0}],
            "gidMappings": [{"containerID": 0, "hostID": 1, "size": 1}]} => "mounts[7].uidMappings[0]: a range of 0 ids does not fit (user_namespaces(7)); correct the size";
    }

    program {
        "/process/args": [] => "process.args: is empty: there is no program to run (config.md, Process); name a program, such as [\"sh\"]";
        "/process/args": null => "process.args: is empty: there is no program to run (config.md, Process); name a program, such as [\"sh\"]";
        "/process/args": "true" => "process.args: \"true\" is not an array (config.md, Process); write [\"true\"]";
        "/process/args": ["/no/such/program"] => "process.args[0]: exec: \"/no/such/program\": stat \"/no/such/program\": no such file or directory";
        "/process/args": ["no-such-program"] => "process.args[0]: PATH is /usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin: exec: \"no-such-program\": executable file not found in $PATH";
        "/process/args": ["/etc"] => "process.args[0]: exec: \"/etc\": is a directory: permission denied";
        "/process/args": ["/etc/passwd"] => "process.args[0]: its mode 0644 lets nobody execute it (chmod +x does): exec: \"/etc/passwd\": permission denied";
        "/process/args": ["sh", "a\u{0}b"] => "process.args[1]: holds a NUL byte; remove it";
        "/process/env": ["A=1", "B=\u{0}"] => "process.env[1]: holds a NUL byte; remove it";
        "/process/env": ["=C"] => "process.env[0]: \"=C\" is not NAME=VALUE (config.md, Process); write a name, = and its value, which may be empty";
        "/process/env": ["A=", "B"] => "process.env[1]: \"B\" is not NAME=VALUE (config.md, Process); write a name, = and its value, which may be empty";
        "/process/env": {"A": "1"} => "process.env: {\"A\":\"1\"} is not an array (config.md, Process); write [\"A=1\"]";
        "/process/cwd": "srv" => "process.cwd: \"srv\" is not an absolute path (config.md, Process); write it from the root, such as /";
        "/process/cwd": null => "process.cwd: is missing (config.md, Process); add it";
        "/process/cwd": "/etc/passwd" => "chdir \"/etc/passwd\": not a directory (asked for by process.cwd)";
        "/process/terminal": true => "process.terminal: is true, but nobody takes the terminal; give --console-socket, or set it to false";
        "/process/terminal": "yes" => "process.terminal: \"yes\" is not true or false (config.md, Process); write true or false";
        "/process/consoleSize": {"height": 25, "width": "wide"} => "process.consoleSize.width: \"wide\" is not an integer from 0 to 18446744073709551615 (config.md, Process); write an integer";
    }

    user_and_rights {
        "/process/user/uid": "root" => "process.user.uid: \"root\" is not an integer from 0 to 4294967295 (config.md, User); write 0";
        "/process/user/uid": (-1) => "process.user.uid: -1 is not an integer from 0 to 4294967295 (config.md, User); write an integer";
        "/process/user/gid": 4294967296u64 => "process.user.gid: 4294967296 is not an integer from 0 to 4294967295 (config.md, User); write an integer";
        "/process/user/uid": 4294967295u64 => "process.user.uid: 4294967295 is no id: to the kernel it says that nothing changes (setresuid(2)); write the id that is meant, at most 4294967294";
        "/process/user/umask": 1022 => "process.user.umask: 1022 has more than the nine bits of a mask (umask(2)); write it in decimal, such as 18 for octal 022";
        "/process/user/additionalGids": [1, "wheel"] => "process.user.additionalGids[1]: \"wheel\" is not an integer from 0 to 4294967295 (config.md, User); write its number, which the container's /etc/group has";
        "/process/user/uid": 1000, "/linux/namespaces/-": {"type": "user"},
            "/linux/uidMappings": [{"containerID": 0, "hostID": 100000, "size": 1000}],
            "/linux/gidMappings": [{"containerID": 0, "hostID": 100000, "size": 1000}] => "process.user.uid: 1000 is not mapped (user_namespaces(7)); cover it in linux.uidMappings";
        "/process/capabilities/effective": ["CAP_KILL", "CAP_CHOWN"], "/process/capabilities/permitted": ["CAP_KILL"] => "process.capabilities.effective: holds CAP_CHOWN, which permitted lacks: operation not permitted (capabilities(7)); add what is missing to permitted";
        "/process/capabilities/inheritable": ["CAP_KILL", "CAP_CHOWN"], "/process/capabilities/bounding": ["CAP_KILL"] => "process.capabilities.inheritable: holds CAP_CHOWN, which bounding lacks: operation not permitted (capabilities(7)); add what is missing to bounding";
        "/process/capabilities/bounding": "CAP_KILL" => "process.capabilities.bounding: \"CAP_KILL\" is not an array (config.md, Process); write [\"CAP_KILL\"]";
        "/process/capabilities/permitted": [7] => "process.capabilities.permitted[0]: 7 is not a string (config.md, Process); write a string";
        "/process/noNewPrivileges": 1 => "process.noNewPrivileges: 1 is not true or false (config.md, Process); write true";
        "/process/selinuxLabel": "system_u:system_r:container_t:s0" => "process.selinuxLabel: \"system_u:system_r:container_t:s0\" is an SELinux label, and SELinux is not in force on this host (config.md, Linux Process); remove it, or boot the host with SELinux and a policy";
        "/linux/mountLabel": "system_u:object_r:container_file_t:s0" => "linux.mountLabel: \"system_u:object_r:container_file_t:s0\" is an SELinux label, and SELinux is not in force on this host (config-linux.md, Mount Label); remove it, or boot the host with SELinux and a policy";
    }

    limits_and_scheduling {
        "/process/rlimits": [{"type": "RLIMIT_LUCK", "soft": 1, "hard": 1}] => "process.rlimits[0].type: \"RLIMIT_LUCK\" is not RLIMIT_CPU, ", " or RLIMIT_RTTIME (config.md, POSIX process); write one of these";
        "/process/rlimits": [{"type": "RLIMIT_CORE", "soft": 1, "hard": 1}, {"type": "RLIMIT_CORE", "soft": 2, "hard": 2}] => "process.rlimits[1]: RLIMIT_CORE is limited twice (config.md, POSIX process); keep one of the two";
        "/process/rlimits": [{"type": "RLIMIT_CORE", "soft": 2, "hard": 1}] => "process.rlimits[0].soft: 2 is over the hard limit 1 (getrlimit(2)); lower it, or raise hard";
        "/process/rlimits": [{"type": "nofile", "soft": 1, "hard": 1}] => "process.rlimits[0].type: \"nofile\" is not ", "; write \"RLIMIT_NOFILE\"";
        "/process/rlimits": [{"type": "RLIMIT_CORE", "soft": 2}] => "process.rlimits[0].hard: is missing (config.md, POSIX process); add it";
        "/process/rlimits": [{"type": "RLIMIT_CORE", "soft": (-1), "hard": (-1)}] => "process.rlimits[0].hard: -1 is not an integer from 0 to 18446744073709551615 (config.md, POSIX process); write an integer; 18446744073709551615 is no limit\nprocess.rlimits[0].soft: -1 is not an integer from 0 to 18446744073709551615 (config.md, POSIX process); write an integer; 18446744073709551615 is no limit";
        "/process/oomScoreAdj": 1001 => "process.oomScoreAdj: 1001 is not from -1000 to 1000 (proc_pid_oom_score_adj(5)); write -1000 (never killed) to 1000 (killed first)";
        "/process/scheduler": {"policy": "SCHED_LATER"} => "process.scheduler.policy: \"SCHED_LATER\" is not SCHED_OTHER, ", " or SCHED_DEADLINE (config.md, Process); write one of these";
        "/process/scheduler": {"nice": 1} => "process.scheduler.policy: is missing (config.md, Process); add it";
        "/process/scheduler": {"policy": "SCHED_OTHER", "nice": 20} => "process.scheduler.nice: 20 is not from -20 to 19 (sched(7)); write -20 (most CPU time) to 19";
        "/process/scheduler": {"policy": "SCHED_OTHER", "priority": 5} => "process.scheduler.priority: 5 means nothing to SCHED_OTHER (sched(7)); remove it, or use SCHED_FIFO or SCHED_RR";
        "/process/scheduler": {"policy": "SCHED_FIFO", "priority": 100} => "process.scheduler.priority: 100 is not from 1 to 99, as SCHED_FIFO needs it (sched(7)); write 1 to 99 (runs before all others)";
        "/process/scheduler": {"policy": "SCHED_BATCH", "deadline": 30000} => "process.scheduler.deadline: 30000 means nothing to SCHED_BATCH (sched(7)); remove it, or use SCHED_DEADLINE";
        "/process/scheduler": {"policy": "SCHED_DEADLINE", "runtime": 40000, "deadline": 30000, "period": 50000} => "process.scheduler.runtime: sched_setattr: `SCHED_DEADLINE` runtime 40000 must be <= deadline 30000 (sched_setattr(2)); give nanoseconds with 1024 <= runtime <= deadline <= period";
        "/process/scheduler": {"policy": "SCHED_OTHER", "flags": ["SCHED_FLAG_HURRY"]} => "process.scheduler.flags[0]: \"SCHED_FLAG_HURRY\" is not SCHED_FLAG_RESET_ON_FORK, ", " or SCHED_FLAG_UTIL_CLAMP_MAX (config.md, Process); write one of these";
        "/process/ioPriority": {"class": "IOPRIO_CLASS_SOME", "priority": 1} => "process.ioPriority.class: \"IOPRIO_CLASS_SOME\" is not IOPRIO_CLASS_RT, IOPRIO_CLASS_BE or IOPRIO_CLASS_IDLE (config.md, Process); write one of these";
        "/process/ioPriority": {"class": "IOPRIO_CLASS_BE", "priority": 8} => "process.ioPriority.priority: 8 is not from 0 to 7 (ioprio_set(2)); write 0 (served first) to 7";
        "/process/execCPUAffinity": {"initial": "0-"} => "process.execCPUAffinity.initial: \"0-\" is not a list of CPUs (config.md, Process); write a list such as 0-3,7";
        "/process/execCPUAffinity": {"final": "3-1"} => "process.execCPUAffinity.final: \"3-1\" is not a number or a range below 8192 (cpuset(7)); write a list such as 0-3,7";
    }

    names {
        "/hostname": "a-name-that-goes-on-and-on-for-longer-than-any-kernel-would-take-it" => "hostname: has 67 bytes, and the kernel has room for 64 (sethostname(2), setdomainname(2)); shorten it";
        "/linux/namespaces": [{"type": "pid"}, {"type": "network"}, {"type": "ipc"}, {"type": "mount"}] => "hostname: the container uses the host's uts namespace: setting it would rename the host (config-linux.md, Namespaces); add a namespace of type uts";
        "/hostname": null, "/domainname": "example.org",
            "/linux/namespaces": [{"type": "pid"}, {"type": "network"}, {"type": "ipc"}, {"type": "mount"}] => "domainname: the container uses the host's uts namespace: setting it would rename the host (config-linux.md, Namespaces); add a namespace of type uts";
        "/hostname": ["a"] => "hostname: [\"a\"] is not a string (config.md); write a string";
        "/root/readonly": false, "/root/readOnly": true => "root.readOnly: says something else than \"readonly\" beside it, and the two are one name to some (config.md, Extensibility); keep one of the two";
        "/process/noNewPrivileges": false, "/Process": {"noNewPrivileges": true} => "Process: says something else than \"process\" beside it, and the two are one name to some (config.md, Extensibility); keep one of the two";
    }

    namespaces {
        "/linux/namespaces/-": {"type": "moon"} => "linux.namespaces[", "].type: \"moon\" is not mount, cgroup, uts, ipc, user, pid, network or time (config-linux.md, Namespaces); write one of these";
        "/linux/namespaces/-": {"type": "pid"} => "linux.namespaces[", "]: the pid namespace is named twice (config-linux.md, Namespaces); keep one of the two";
        "/linux/namespaces/-": {"type": "user", "path": "proc/1/ns/user"} => "linux.namespaces[", "].path: \"proc/1/ns/user\" is not absolute (config-linux.md, Namespaces); write it from the root, such as /proc/1/ns/net";
        "/linux/namespaces": [{"type": "mount"}, {"type": "uts"}, {"type": "network", "path": "/no/such/namespace"}] => "opening the namespace \"/no/such/namespace\": no such file or directory (asked for by linux.namespaces[2].path)";
        "/linux/namespaces": [{"type": "mount"}, {"type": "uts"}, {"type": "network", "path": "/proc/self/ns/uts"}] => "entering \"/proc/self/ns/uts\": it is not a network namespace; name one, such as /proc/PID/ns/net: invalid argument (asked for by linux.namespaces[2].path)";
        "/linux/namespaces": [{"type": "mount"}, "pid"] => "linux.namespaces[1]: \"pid\" is not an object (config-linux.md, Namespaces); write {\"type\": \"pid\"}";
        "/linux/namespaces": "pid" => "linux.namespaces: \"pid\" is not an array (config-linux.md, Namespaces); write [{\"type\": \"pid\"}]";
        "/linux/namespaces": [{"type": "net"}] => "linux.namespaces[0].type: \"net\" is not ", " (config-linux.md, Namespaces); write \"network\"";
        "/linux/namespaces": [{"type": "CLONE_NEWNS"}] => "linux.namespaces[0].type: \"CLONE_NEWNS\" is not ", "; write \"mount\"";
        "/linux/namespaces": [{"type": "mount"}, {"type": "uts"}, {"type": "network", "path": "/etc/passwd"}] => "entering \"/etc/passwd\": it is not a network namespace; name one, such as /proc/PID/ns/net: invalid argument (asked for by linux.namespaces[2].path)";
        "/linux/namespaces/-": {"path": "/proc/1/ns/user"} => "linux.namespaces[", "].type: is missing (config-linux.md, Namespaces); add it";
        "/linux/uidMappings": [{"containerID": 0, "hostID": 100000, "size": 1000}] => "linux.uidMappings: there is no user namespace to map ids in (config-linux.md, User namespace mappings); add a namespace of type user";
        "/linux/namespaces/-": {"type": "user"},
            "/linux/uidMappings": [{"containerID": 0, "hostID": 100000, "size": 0}],
            "/linux/gidMappings": [{"containerID": 0, "hostID": 100000, "size": 1000}] => "linux.uidMappings[0]: a range of 0 ids does not fit (user_namespaces(7)); correct the size\nprocess.user.uid: 0 is not mapped (user_namespaces(7)); cover it in linux.uidMappings";
        "/linux/namespaces/-": {"type": "user"},
            "/linux/uidMappings": [{"containerID": 0, "hostID": 100000, "size": 1000}],
            "/linux/gidMappings": [{"containerID": 0, "hostID": 100000, "size": 10}, {"containerID": 9, "hostID": 100010, "size": 1}] => "linux.gidMappings[1]: has ids that linux.gidMappings[0] has too (user_namespaces(7)); let no range overlap another";
    }

    clocks {
        "/linux/timeOffsets": {"monotonic": {"secs": 1}} => "linux.timeOffsets.monotonic: there is no new time namespace to set it in (config-linux.md, Offset for Time Namespace); add a namespace of type time without a path";
        "/linux/namespaces/-": {"type": "time"}, "/linux/timeOffsets": {"realtime": {"secs": 1}} => "linux.timeOffsets.realtime: only monotonic and boottime have an offset (time_namespaces(7)); remove it";
        "/linux/namespaces/-": {"type": "time"}, "/linux/timeOffsets": {"boottime": {"nanosecs": 1000000000}} => "linux.timeOffsets.boottime.nanosecs: 1000000000 is a second or more (time_namespaces(7)); write less than 1000000000, and the rest as secs";
        "/linux/namespaces/-": {"type": "time"}, "/linux/timeOffsets": {"boottime": 5} => "linux.timeOffsets.boottime: 5 is not an object (config-linux.md, Offset for Time Namespace); write an object";
        "/linux/namespaces/-": {"type": "time"}, "/linux/timeOffsets": {"boottime": {"secs": (-100000000)}} => "writing \"boottime -100000000 0\" to /proc/self/timens_offsets (a clock must stay between 0 and 146 years): math result not representable (asked for by linux.timeOffsets)";
    }

    devices {
        "/linux/devices": [{"type": "a", "path": "/dev/x", "major": 1, "minor": 3}] => "linux.devices[0].type: a is not a type of device file (config-linux.md, Devices); use c, b, u or p";
        "/linux/devices": [{"type": "z", "path": "/dev/x", "major": 1, "minor": 3}] => "linux.devices[0].type: \"z\" is not a, b, c, u or p (config-linux.md, Devices); write one of these";
        "/linux/devices": [{"type": "c", "path": "dev/x", "major": 1, "minor": 3}] => "linux.devices[0].path: \"dev/x\" is not absolute (config-linux.md, Devices); write it from the root, such as /dev/fuse";
        "/linux/devices": [{"type": "c", "path": "/dev/x"}] => "linux.devices[0]: has no major and minor number (config-linux.md, Devices); add them, such as major 1, minor 3";
        "/linux/devices": [{"type": "c", "path": "/dev/x", "major": 4096, "minor": 3}] => "linux.devices[0].major: 4096 is not from 0 to 4095 (config-linux.md, Devices); write the number that ls -l shows for the device";
        "/linux/devices": [{"type": "c", "path": "/dev/x", "major": 1, "minor": 3, "fileMode": 20666666}] => "linux.devices[0].fileMode: 20666666 is no file mode (config-linux.md, Devices); write it in decimal, such as 438 for octal 0666";
        "/linux/devices": [{"type": "c", "path": "/dev/x", "major": 1, "minor": 3, "fileMode": "0666"}] => "linux.devices[0].fileMode: \"0666\" is not an integer from 0 to 4294967295 (config-linux.md, Devices); write it in decimal: 438 is octal 0666";
        "/linux/devices": [{"type": "c", "path": "/dev/x", "major": 1, "minor": 3}, {"type": "c", "path": "/dev/x", "major": 1, "minor": 5}] => "making the device \"/dev/x\": something else of that name is there already, in the root file system or by another entry of linux.devices; remove one of the two (asked for by linux.devices[1])";
        "/linux/devices": [{"type": "c", "path": "/etc/passwd", "major": 1, "minor": 3}] => "making the device \"/etc/passwd\": something else of that name is there already, in the root file system or by another entry of linux.devices; remove one of the two (asked for by linux.devices[0])";
        "/linux/resources/devices": [{"allow": false, "access": "rwx"}] => "linux.resources.devices[0].access: 'x' is not an access (config-linux.md, Allowed Device list); use r, w and m";
        "/linux/resources/devices": [{"allow": true, "type": "p"}] => "linux.resources.devices[0].type: p has no device number to filter (config-linux.md, Allowed Device list); use a, b or c";
        "/linux/resources/devices": [{"allow": true, "type": "c", "major": 4294967296u64}] => "linux.resources.devices[0].major: 4294967296 is no device number (config-linux.md, Allowed Device list); write that of a device, or leave it out for all";
        "/linux/resources/devices": [{"allow": true, "type": "c", "minor": -2}] => "linux.resources.devices[0].minor: -2 is no device number (config-linux.md, Allowed Device list); write that of a device, or leave it out for all";
        "/linux/resources/devices": [{"access": "rwm"}] => "linux.resources.devices[0].allow: is missing (config-linux.md, Control groups); add it";
    }

    network_devices {
        "/linux/netDevices": {"nosuchdev": {}} => "finding the network device \"nosuchdev\" of the runtime's namespace: no such device (asked for by linux.netDevices.nosuchdev)";
        "/linux/netDevices": {"lo": {"name": "a name"}} => "linux.netDevices.lo.name: \"a name\" is not a name that a network device can have (netdevice(7)); use 1 to 15 characters without /, :, % and blanks; a new name may have one %d";
        "/linux/netDevices": {"eth8": {"name": "x"}, "eth9": {"name": "x"}} => "linux.netDevices.eth9.name: \"x\" is the name of eth8 in the container too (config-linux.md, Network Devices); give each its own, or end the name with %d";
        "/linux/namespaces": [{"type": "mount"}, {"type": "uts"}], "/linux/netDevices": {"eth9": {}} => "linux.netDevices: the container uses the host's network namespace: there is nowhere to move a device to (config-linux.md, Network Devices); add a namespace of type network";
        "/linux/netDevices": {"eth9": {"name": 23}} => "linux.netDevices.eth9.name: 23 is not a string (config-linux.md, Network Devices); write a string";
    }

    sysctl {
        "/linux/sysctl": {"kernel.panic": "1"} => "linux.sysctl.kernel.panic: is not separate in any namespace: setting it would change the host (config-linux.md, Sysctl); set it on the host";
        "/linux/sysctl": {"kernel.hostname": "x"} => "linux.sysctl.kernel.hostname: is not allowed as it conflicts with the OCI field \"hostname\" (config.md, Hostname, Domainname); set hostname instead";
        "/linux/sysctl": {"net.nothing.such": "1"} => "writing \"1\" to /proc/sys/net/nothing/such: no such file or directory (asked for by linux.sysctl.net.nothing.such)";
        "/linux/sysctl": {"net.ipv4.ip_forward": "perhaps"} => "writing \"perhaps\" to /proc/sys/net/ipv4/ip_forward: invalid argument (asked for by linux.sysctl.net.ipv4.ip_forward)";
        "/linux/sysctl": {"net.ipv4.ip_forward": 1} => "linux.sysctl.net.ipv4.ip_forward: 1 is not a string (config-linux.md, Sysctl); write \"1\"";
        "/linux/namespaces": [{"type": "mount"}, {"type": "uts"}], "/linux/sysctl": {"net.ipv4.ip_forward": "1"} => "linux.sysctl.net.ipv4.ip_forward: belongs to the network namespace, and the container uses the host's (config-linux.md, Sysctl); add a namespace of type network";
    }

    seccomp {
        "/linux/seccomp": {} => "linux.seccomp.defaultAction: is missing (config-linux.md, Seccomp); add it";
        "/linux/seccomp": {"defaultAction": "SCMP_ACT_FROWN"} => "linux.seccomp.defaultAction: \"SCMP_ACT_FROWN\" is not SCMP_ACT_KILL, ", " or SCMP_ACT_ALLOW (config-linux.md, Seccomp); write one of these";
        "/linux/seccomp": {"defaultAction": "allow", "architectures": ["x86_64"]} => "\"allow\" is not ", "; write \"SCMP_ACT_ALLOW\"", "\"x86_64\" is not ", "; write \"SCMP_ARCH_X86_64\"";
        "/linux/seccomp": {"defaultAction": "SCMP_ACT_ALLOW", "architectures": ["amd64", "SCMP_ARCH_ARMM"]} => "\"amd64\" is not ", "; write \"SCMP_ARCH_X86_64\"", "; write \"SCMP_ARCH_ARM\"";
        "/linux/seccomp": {"defaultAction": "SCMP_ACT_NOTIFY"} => "linux.seccomp.defaultAction: SCMP_ACT_NOTIFY cannot be used as default action: nobody could tell the agent whom to listen to (config-linux.md, Seccomp); use it for single syscalls";
        "/linux/seccomp": {"defaultAction": "SCMP_ACT_ALLOW", "defaultErrnoRet": 1} => "linux.seccomp.defaultErrnoRet: SCMP_ACT_ALLOW returns no errno (config-linux.md, Seccomp); remove it, or use SCMP_ACT_ERRNO";
        "/linux/seccomp": {"defaultAction": "SCMP_ACT_ERRNO", "defaultErrnoRet": 5000} => "linux.seccomp.defaultErrnoRet: 5000 is more than the 4095 that SCMP_ACT_ERRNO can return (config-linux.md, Seccomp); write an errno, such as 1 for EPERM";
        "/linux/seccomp": {"defaultAction": "SCMP_ACT_ALLOW", "architectures": ["SCMP_ARCH_PDP11"]} => "linux.seccomp.architectures[0]: \"SCMP_ARCH_PDP11\" is not SCMP_ARCH_NATIVE, ", " or SCMP_ARCH_SHEB (config-linux.md, Seccomp); write one of these";
        "/linux/seccomp": {"defaultAction": "SCMP_ACT_ALLOW", "flags": ["SECCOMP_FILTER_FLAG_FAST"]} => "linux.seccomp.flags[0]: \"SECCOMP_FILTER_FLAG_FAST\" is not SECCOMP_FILTER_FLAG_LOG, ", " or SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV (config-linux.md, Seccomp); write one of these";
        "/linux/seccomp": {"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [{"names": [], "action": "SCMP_ACT_ERRNO"}]} => "linux.seccomp.syscalls[0].names: names no syscall (config-linux.md, Seccomp); name at least one, or remove the rule";
        "/linux/seccomp": {"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [{"names": ["fly"], "action": "SCMP_ACT_ERRNO"}]} => "linux.seccomp.syscalls[0].names[0]: \"fly\" is not a syscall that", "knows, so the rule cannot hold (config-linux.md, Seccomp); correct the name, or deny by default and allow what is needed";
        "/linux/seccomp": {"defaultAction": "SCMP_ACT_ERRNO", "syscalls": [
            {"names": ["read"], "action": "SCMP_ACT_ALLOW", "args": [{"index": 6, "value": 1, "op": "SCMP_CMP_EQ"}]}]} => "linux.seccomp.syscalls[0].args[0].index: 6 is not from 0 to 5: a syscall has six arguments (config-linux.md, Seccomp); write 0 for the first to 5 for the last";
        "/linux/seccomp": {"defaultAction": "SCMP_ACT_ERRNO", "syscalls": [
            {"names": ["read"], "action": "SCMP_ACT_ALLOW", "args": [{"index": 0, "value": 1, "op": "SCMP_CMP_LIKE"}]}]} => "linux.seccomp.syscalls[0].args[0].op: \"SCMP_CMP_LIKE\" is not SCMP_CMP_NE, ", " or SCMP_CMP_MASKED_EQ (config-linux.md, Seccomp); write one of these";
        "/linux/seccomp": {"defaultAction": "SCMP_ACT_ERRNO", "syscalls": [
            {"names": ["read"], "action": "SCMP_ACT_ALLOW", "errnoRet": 5}]} => "linux.seccomp.syscalls[0].errnoRet: SCMP_ACT_ALLOW returns no errno (config-linux.md, Seccomp); remove it, or use SCMP_ACT_ERRNO";
        "/linux/seccomp": {"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [{"names": ["mkdir"], "action": "SCMP_ACT_NOTIFY"}]} => "linux.seccomp.listenerPath: is missing, and there are syscalls with SCMP_ACT_NOTIFY (config-linux.md, Seccomp); name the socket of the agent that decides";
        "/linux/seccomp": {"defaultAction": "SCMP_ACT_ALLOW", "listenerPath": "/run/agent", "syscalls": [
            {"names": ["write"], "action": "SCMP_ACT_NOTIFY"}]} => "linux.seccomp.syscalls[0].names: SCMP_ACT_NOTIFY cannot be used for the write syscall: it takes one to begin listening (config-linux.md, Seccomp); leave write out";
    }

    resources {
        "/linux/resources/memory": {"limit": "1G"} => "linux.resources.memory.limit: \"1G\" is not an integer from -9223372036854775808 to 9223372036854775807 (config-linux.md, Control groups); write bytes: 1073741824";
        "/linux/resources/memory": {"limit": 0, "swap": "512 MiB"} => "swap: \"512 MiB\" is not an integer", "; write bytes: 536870912";
        "/linux/resources/pids": {"limit": "10"} => "pids.limit: \"10\" is not an integer", "; write 10, without quotation marks";
        "/linux/resources/pids": {"limit": "many"} => "linux.resources.pids.limit: \"many\" is not an integer from -9223372036854775808 to 9223372036854775807 (config-linux.md, Control groups); write an integer";
        "/linux/resources/cpu": {"shares": (-1)} => "linux.resources.cpu.shares: -1 is not an integer from 0 to 18446744073709551615 (config-linux.md, Control groups); write an integer";
        "/linux/resources/hugepageLimits": [{"pageSize": "64kB", "limit": 1}] => "linux.resources.hugepageLimits[0].pageSize: \"64kB\" is not a size of pages (config-linux.md, Huge page limits); write a number and KB, MB or GB, such as 2MB";
        "/linux/resources/hugepageLimits": [{"limit": 1}] => "linux.resources.hugepageLimits[0].pageSize: is missing (config-linux.md, Control groups); add it";
        "/linux/resources/rdma": {"mlx 5": {"hcaHandles": 3}} => "linux.resources.rdma: \"mlx 5\" is not the name of a device (config-linux.md, RDMA); name one of those in /sys/class/infiniband";
        "/linux/resources/blockIO": {"weight": 70000} => "linux.resources.blockIO.weight: 70000 is not an integer from 0 to 65535 (config-linux.md, Control groups); write an integer";
        "/linux/resources/blockIO": {"throttleReadBpsDevice": [{"major": 8, "rate": 1}]} => "linux.resources.blockIO.throttleReadBpsDevice[0].minor: is missing (config-linux.md, Control groups); add it";
        "/linux/resources/rdma": {"mlx5": {}} => "linux.resources.rdma.mlx5: limits nothing (config-linux.md, RDMA); add hcaHandles or hcaObjects, or remove it";
        "/linux/resources/blockIO": {"weightDevice": [{"major": 8, "minor": 0}]} => "linux.resources.blockIO.weightDevice[0]: has no weight (config-linux.md, Block IO); add weight, or remove it";
        "/linux/resources": "none" => "linux.resources: \"none\" is not an object (config-linux.md, Control groups); write an object";
    }

    what_only_cgroup_v1_has {
        "/linux/resources/cpu": {"realtimeRuntime": 1000} => "linux.resources.cpu.realtimeRuntime: cgroup v2 has no real-time limits (config-linux.md, Control groups); remove realtimeRuntime and realtimePeriod";
        "/linux/resources/network": {"classID": 1} => "linux.resources.network.classID: cgroup v2 has no network classes (config-linux.md, Control groups); remove it, or boot with cgroup v1";
        "/linux/resources/blockIO": {"leafWeight": 10} => "linux.resources.blockIO.leafWeight: cgroup v2 has no leaf weights (config-linux.md, Control groups); remove leafWeight";
        "/linux/resources/memory": {"limit": 20971520, "swap": 10485760} => "linux.resources.memory.swap: 10485760 counts memory and swap together, and is below memory.limit 20971520 (config-linux.md, Control groups); raise it, or lower memory.limit";
        "/linux/resources/unified": {"../memory.max": "1"} => "linux.resources.unified.../memory.max: the specified key has not the form CONTROLLER.VALUE `../memory.max` (config-linux.md, Control groups); name a file such as memory.high";
        "/linux/resources/unified": {"cgroup.procs": "1"} => "linux.resources.unified.cgroup.procs: is no limit, but does something to the group itself or to its processes (config-linux.md, Control groups); remove it";
        "/linux/resources/unified": {"memory.max": 1} => "linux.resources.unified.memory.max: 1 is not a string (config-linux.md, Control groups); write \"1\"";
    }

    paths {
        "/linux/maskedPaths": ["proc/kcore"] => "linux.maskedPaths[0]: \"proc/kcore\" is not absolute (config-linux.md, Masked Paths); write it from the container's root";
        "/linux/maskedPaths": ["/tmp/.."] => "linux.maskedPaths[0]: is the root file system itself, which a program that runs in it would still see (config-linux.md, Masked Paths); name what is to be hidden";
        "/linux/maskedPaths": ["/a\u{0}b"] => "linux.maskedPaths[0]: holds a NUL byte; remove it";
        "/linux/maskedPaths": "/proc/kcore" => "linux.maskedPaths: \"/proc/kcore\" is not an array (config-linux.md, Masked Paths); write [\"/proc/kcore\"]";
        "/linux/cgroupsPath": "/a/../.." => "linux.cgroupsPath: \"/a/../..\" is the root of all groups (config-linux.md, Control groups); name a group below it";
        "/linux/cgroupsPath": "/a\u{0}b" => "linux.cgroupsPath: holds a NUL byte; remove it";
        "/linux/cgroupsPath": "/" => "linux.cgroupsPath: \"/\" is the root of all groups (config-linux.md, Control groups); name a group below it";
        "/linux/cgroupsPath": (format!("/{}", "n".repeat(256))) => "linux.cgroupsPath: it has 257 bytes, and 256 between two slashes (config-linux.md, Control groups); write at most 4000, and 255 between two slashes";
        "/linux/cgroupsPath": 7 => "linux.cgroupsPath: 7 is not a string (config-linux.md, Control groups); write a string";
    }

    memory_and_cache {
        "/linux/personality": {"domain": "WINDOWS"} => "linux.personality.domain: \"WINDOWS\" is not LINUX or LINUX32 (config-linux.md, Personality); write one of these";
        "/linux/personality": {"domain": "LINUX32", "flags": ["ADDR_NO_RANDOMIZE"]} => "linux.personality.flags: the specification has no flags yet (config-linux.md, Personality); remove the member";
        "/linux/memoryPolicy": {"mode": "MPOL_RANDOM"} => "linux.memoryPolicy.mode: \"MPOL_RANDOM\" is not MPOL_DEFAULT, ", " or MPOL_LOCAL: invalid memory policy mode (config-linux.md, Memory policy); write one of these";
        "/linux/memoryPolicy": {"mode": "MPOL_BIND"} => "linux.memoryPolicy.nodes: is missing, and MPOL_BIND needs at least one node (config-linux.md, Memory policy); name nodes, such as 0-3,7";
        "/linux/memoryPolicy": {"mode": "MPOL_LOCAL", "nodes": "0"} => "linux.memoryPolicy.nodes: \"0\" means nothing to MPOL_LOCAL: mode requires 0 nodes but got 1 (config-linux.md, Memory policy); remove it, or use another mode";
        "/linux/memoryPolicy": {"mode": "MPOL_BIND", "nodes": "zero"} => "linux.memoryPolicy.nodes: \"zero\" is not a number or a range below 8192: invalid memory policy node (cpuset(7)); write a list such as 0-3,7";
        "/linux/memoryPolicy": {"mode": "MPOL_BIND", "nodes": "0", "flags": ["MPOL_F_STATIC_NODES", "MPOL_F_RELATIVE_NODES"]} => "linux.memoryPolicy.flags: MPOL_F_STATIC_NODES and MPOL_F_RELATIVE_NODES exclude each other (set_mempolicy(2)); keep one of the two";
        "/linux/intelRdt": {"closID": "a/b"} => "linux.intelRdt.closID: \"a/b\" cannot be the name of a class of service (config-linux.md, IntelRdt); use one word, or / for the default class";
        "/linux/intelRdt": {"memBwSchema": "L3:0=f"} => "linux.intelRdt.memBwSchema: \"L3:0=f\" does not begin with MB: (config-linux.md, IntelRdt); write a line such as MB:0=…";
        "/linux/intelRdt": {"schemata": ["MB:0=50\nL3:0=f"]} => "linux.intelRdt.schemata[0]: \"MB:0=50\\nL3:0=f\" is more than one line (config-linux.md, IntelRdt); write each line by itself";
    }

    hooks {
        "/hooks": {"createRuntime": [{"path": "bin/hook"}]} => "hooks.createRuntime[0].path: \"bin/hook\" is not absolute (config.md, POSIX-platform Hooks); write it from the root";
        "/hooks": {"createContainer": [{"path": "/bin/true", "timeout": 0}]} => "hooks.createContainer[0].timeout: 0 is not greater than zero (config.md, POSIX-platform Hooks); remove it for no limit";
        "/hooks": {"poststop": [{"args": ["hook"]}]} => "hooks.poststop[0].path: is missing (config.md, POSIX-platform Hooks); add it";
        "/hooks": {"prestart": [{"path": "/no/such/hook"}]} => "error running prestart hook #0: hook \"/no/such/hook\" could not be run (correct hooks.prestart[0].path, or what the #! line of the file names): no such file or directory";
        "/hooks": {"createRuntime": [{"path": "/etc/passwd"}]} => "hook \"/etc/passwd\" could not be run (chmod +x makes a file executable, unless its mount is noexec; else correct hooks.createRuntime[0].path): permission denied";
        "/hooks": {"createRuntime": [{"path": "/bin/true"}]}, "/annotations": {"run.oci.hooks.stdout": "log"} => "annotations[\"run.oci.hooks.stdout\"]: \"log\" is not absolute; name a file of the host, from the root";
        "/hooks": {"createRuntime": [{"path": "/bin/false"}]} => "error running createRuntime hook #0: \"/bin/false\": createRuntime hook failed with exit code 1 (asked for by hooks.createRuntime[0])";
        "/hooks": {"createRuntime": [{"path": "/bin/sleep", "args": ["sleep", "60"], "timeout": 1}]} => "error running createRuntime hook #0: hook \"/bin/sleep\" did not end within its timeout of 1 s and was killed (asked for by hooks.createRuntime[0])";
        "/hooks": {"startContainer": {"path": "/bin/true"}} => "hooks.startContainer: {\"path\":\"/bin/true\"} is not an array (config.md, POSIX-platform Hooks); write [{\"path\":\"/bin/true\"}]";
        "/hooks": {"poststart": [{"path": "/bin/true", "env": ["A=\u{0}"]}]} => "hooks.poststart[0]: holds a NUL byte; remove it";
    }
}

/// What is said of every container that is not there; the last words are runc's.
const MISSING: &[&str] = &[
    "container \"",
    "\" is not in ",
    "/state (--root chooses another directory, list shows what is there): container does not exist",
];

/// Runs each command line. `BUNDLE` stands for a good bundle, `ID` for a free id, `DIR` for an empty directory.
fn each_command(ctx: &Ctx, bundle: &Bundle, table: &[(&str, &[&str])]) -> Result {
    let empty = ctx.dir.join("empty");
    std::fs::create_dir_all(&empty)?;
    let mut wrong = Vec::new();
    for (line, words) in table {
        let id = ctx.id();
        let put = |word: &str| {
            word.replace("BUNDLE", path(&bundle.dir)).replace("ID", &id).replace("DIR", path(&empty))
        };
        let line: Vec<String> = line.split(' ').map(put).collect();
        let mut all = vec!["--log-format", "json"];
        all.extend(line.iter().map(String::as_str));
        if let Err(error) = refused(ctx, &ctx.call(&all)?, words) {
            wrong.push(format!("{}: {error}", line.join(" ")));
        }
    }
    check!(wrong.is_empty(), "\n{}", wrong.join("\n"));
    Ok(())
}

fn command_lines(ctx: &Ctx) -> Result {
    let bundle = ctx.waiting()?;
    bundle.write()?;
    each_command(
        ctx,
        &bundle,
        &[
            (
                "create --bundle BUNDLE",
                &["the following required arguments were not provided: <ID>; usage: coracle create ", "<ID>"],
            ),
            ("create --hurry BUNDLE ID", &["--hurry; coracle create --help lists the options"]),
            ("zzz ID", &["No help topic for 'zzz'; coracle --help lists the commands"]),
            ("--rooot DIR state ID", &["flag provided but not defined: --rooot; did you mean --root?"]),
            (
                "run --root DIR ID",
                &[
                    "flag provided but not defined: --root; it stands before the command: coracle --root … run",
                ],
            ),
            ("kill ID -KILL", &["write the signal without a dash: coracle kill ID KILL"]),
            ("create --bundle", &["flag needs an argument: --bundle"]),
            (
                "create --bundle BUNDLE ID and more",
                &["unexpected argument: and; --help after the command lists what it takes"],
            ),
            (
                "create --bundel BUNDLE ID",
                &["flag provided but not defined: --bundel; did you mean --bundle?"],
            ),
            ("creat --bundle BUNDLE ID", &["No help topic for 'creat'; did you mean create?"]),
            (
                "create --bundle BUNDLE --preserve-fds many ID",
                &["invalid value 'many' for '--preserve-fds <N>': invalid digit found in string"],
            ),
            (
                "create --bundle BUNDLE --pid-file DIR/none/pid ID",
                &["writing the pid file \"", "/empty/none/pid\": no such file or directory"],
            ),
            (
                "create --bundle BUNDLE --console-socket DIR/socket ID",
                &[
                    "--console-socket: process.terminal is not true, so there is no terminal to send; set process.terminal, or leave the option out",
                ],
            ),
            (
                "create --bundle BUNDLE --pidfd-socket DIR/socket ID",
                &["connecting to the pidfd socket \"", "/empty/socket\": no such file or directory"],
            ),
            (
                "--rootless perhaps create --bundle BUNDLE ID",
                &["invalid value 'perhaps' for '--rootless <WHEN>' [possible values: true, false, auto]"],
            ),
            (
                "--log-level loud create --bundle BUNDLE ID",
                &[
                    "invalid value 'loud' for '--log-level <LEVEL>' [possible values: error, warning, warn, info, debug]",
                ],
            ),
            (
                "--cgroup-manager none create --bundle BUNDLE ID",
                &[
                    "invalid value 'none' for '--cgroup-manager <MANAGER>' [possible values: cgroupfs, systemd, disabled]",
                ],
            ),
            (
                "create --no-pivot=maybe --bundle BUNDLE ID",
                &["invalid value 'maybe' for '--no-pivot[=<BOOL>]' [possible values: true, false]"],
            ),
            (
                "start",
                &["the following required arguments were not provided: <ID>; usage: coracle start <ID>"],
            ),
            ("start ID", MISSING),
            ("state ID", MISSING),
            ("kill ID TERM", MISSING),
            ("kill ID SIGNOTHING", &["\"SIGNOTHING\" is not a signal; name one such as TERM, SIGKILL or 9"]),
            ("delete ID", MISSING),
            ("exec ID true", MISSING),
            ("exec --user root ID true", MISSING),
            ("exec --process DIR/process.json ID", MISSING),
            ("update --memory lots ID", MISSING),
            (
                "list --format xml",
                &["invalid value 'xml' for '--format <FORMAT>' [possible values: table, json]"],
            ),
            ("events --interval soon ID", MISSING),
        ],
    )
}

/// That there is no such profile, or no AppArmor, shows only to the process that is to be confined; create tells of it, as
/// critest asks.
fn no_such_profile(ctx: &Ctx) -> Result {
    let mut bundle = ctx.waiting()?;
    bundle.set("/process/apparmorProfile", json!("nosuch"));
    let enforced = Path::new("/sys/kernel/security/apparmor/profiles").exists();
    let reason = match enforced {
        true => "; it is not loaded: apparmor_parser loads a profile, aa-status lists them): ",
        false => {
            "; AppArmor is not in force on this host: remove process.apparmorProfile, or boot with it): "
        }
    };
    let words = ["setting the AppArmor profile ", "nosuch", " (write /proc/self/attr/exec", reason];
    ctx.refused(&bundle, &words).map(drop)
}

/// What a container in its state cannot do, with engines' words for it; the options of exec that cannot go on.
fn states(ctx: &Ctx) -> Result {
    let bundle = ctx.waiting()?;
    let container = ctx.started(&bundle)?;
    let id = container.id.as_str();
    let said = |line: &str, words: &[&str]| -> Result {
        let words: Vec<String> = words.iter().map(|word| word.replace("ID", &format!("{id:?}"))).collect();
        let line: Vec<&str> = line.split(' ').map(|word| if word == "ID" { id } else { word }).collect();
        let output = ctx.call(&[&["--log-format", "json"], &line[..]].concat())?;
        check!(output.code != 0, "{line:?} succeeds");
        let message = message(&output)?;
        for word in words {
            check!(message.contains(&word), "{line:?}: {message:?} lacks {word:?}");
        }
        Ok(())
    };
    said("start ID", &["cannot start an already running container: ID; exec runs another program in it"])?;
    said("resume ID", &["container ID is running: container not paused"])?;
    said("exec ID", &["no program to run; write coracle exec ", " PROGRAM …, or --process FILE"])?;
    said(
        "exec --cwd nope ID true",
        &["--cwd \"nope\" is not an absolute path; write it from the root, such as /"],
    )?;
    said(
        "exec --env A ID true",
        &["--env \"A\" is not NAME=VALUE; write a name, = and its value, which may be empty"],
    )?;
    said(
        "exec -t -d ID true",
        &[
            "--tty with --detach: nobody takes the terminal; give --console-socket, or leave one of the two out",
        ],
    )?;
    said("exec --process /etc/passwd ID", &["/etc/passwd: expected value at line 1 column 1 (config.md)"])?;
    said("exec --process /no/process ID", &["reading \"/no/process\": no such file or directory"])?;
    said("events --interval 5 ID", &["--interval \"5\": it has no unit; write 5s for seconds"])?;
    container.stop()?;
    said("kill ID", &["container ID has ended (delete removes what is left): container not running"])?;
    said("start ID", &["cannot start a container that has stopped: ID; delete it, and create it anew"])?;
    said("exec ID true", &["cannot exec in a stopped container: ID is stopped; run or start one"])
}

fn container_ids(ctx: &Ctx) -> Result {
    let bundle = ctx.waiting()?;
    bundle.write()?;
    let long = format!("create --bundle BUNDLE {}", "x".repeat(256));
    each_command(
        ctx,
        &bundle,
        &[
            (
                "create --bundle BUNDLE ..",
                &[
                    "invalid container ID format: \"..\": invalid character '.'; use letters, digits, _ + - and . (- and . not first), at most 255",
                ],
            ),
            (
                "create --bundle BUNDLE a/b",
                &[
                    "invalid container ID format: \"a/b\": invalid character '/'; use letters, digits, _ + - and . (- and . not first), at most 255",
                ],
            ),
            (
                "create --bundle BUNDLE ",
                &[
                    "invalid container ID format: \"\": it is empty; use letters, digits, _ + - and . (- and . not first), at most 255",
                ],
            ),
            (
                "create --bundle BUNDLE a:b",
                &[
                    "invalid container ID format: \"a:b\": invalid character ':'; use letters, digits, _ + - and . (- and . not first), at most 255",
                ],
            ),
            (
                &long,
                &[
                    "invalid container ID format: \"",
                    "\": it has 256 characters; use letters, digits, _ + - and . (- and . not first), at most 255",
                ],
            ),
        ],
    )
}

/// What is wrong with the file, not with what it says.
fn files(ctx: &Ctx) -> Result {
    let bundle = ctx.waiting()?;
    let file = bundle.dir.join("config.json");
    let (create, none) = ("create --bundle BUNDLE ID", "no such file or directory");
    each_command(
        ctx,
        &bundle,
        &[(create, &["config.json\"", none, "; make one with: coracle spec --bundle "])],
    )?;
    for (text, words) in [
        ("", ["config.json: EOF while parsing a value at line 1 column 0", "correct the JSON there"]),
        ("{\n\"ociVersion\": \"1.0.2\"\n\"process\": {}}", ["at line 3 column 1", "correct the JSON there"]),
        ("[]", ["config.json: is an array (config.md)", "write an object"]),
        ("{\"a\": 1, // one\n\"b\": 2}", ["at line 1 column 10", "JSON has no comments: remove it"]),
        ("{'a': 1}", ["at line 1 column 2", "JSON has double quotation marks"]),
        ("{\"a\": 1,}", ["config.json: trailing comma at line 1", "remove the comma before it"]),
        ("{\"a\": 0666}", ["invalid number at line 1 column 8", "438 is octal 0666"]),
        ("\u{feff}{}", ["at line 1 column 1", "remove the byte order mark that the file begins with"]),
        (r#"{"ociVersion": "1", "root": {}, "root": {}}"#, ["duplicate field `root`", "keep one of the two"]),
    ] {
        std::fs::write(&file, text)?;
        each_command(ctx, &bundle, &[(create, &words)])?;
    }
    std::fs::remove_file(&file)?;
    std::fs::create_dir(&file)?;
    each_command(
        ctx,
        &bundle,
        &[
            (create, &["reading ", "config.json\": is a directory"]),
            (
                "create --bundle DIR ID",
                &["reading ", "config.json", none, "; make one with: coracle spec --bundle "],
            ),
            ("create --bundle DIR/none ID", &["opening the bundle ", "empty/none\"", none]),
            ("create --bundle BUNDLE --config other.json ID", &["reading ", "other.json\"", none]),
        ],
    )
}
