//! A plan as text, for `coracle plan` and for tests: one line a step, with the place in config.json that asked for it.

use crate::limits;
use crate::steps::{
    Act, Filter, IdMapped, IdSource, Mount, MountKind, NetDevice, Node, Parameter, Plan, Step,
};
use coracle_sys::{libc, mount::attr};
use std::ffi::CStr;
use std::fmt::Write;

/// The whole plan.
pub fn show(plan: &Plan) -> String {
    let mut out = String::new();
    let mut line = |text: String, origin: &str| {
        let _ =
            if origin.is_empty() { writeln!(out, "  {text}") } else { writeln!(out, "  {text}  [{origin}]") };
    };
    line(format!("clone with new namespaces: {}", namespaces(plan.namespaces.new)), "linux.namespaces");
    if plan.namespaces.network {
        line("make a network namespace meanwhile, its loopback interface up".into(), "linux.namespaces");
    }
    for join in &plan.namespaces.join {
        line(format!("open {} to join", join.path.to_string_lossy()), &join.origin);
    }
    if let Some(path) = &plan.cgroup.path {
        line(format!("control group {path} ({:?})", plan.cgroup.mode), "linux.cgroupsPath");
    }
    if let Some(unit) = &plan.cgroup.unit {
        let whose = if unit.user { "the user's" } else { "the machine's" };
        line(format!("made by {whose} systemd as {}", unit.name), "linux.cgroupsPath");
        for (name, value) in &unit.properties {
            line(format!("property {name} = {value:?}"), "");
        }
    }
    if let Some(uid) = plan.cgroup.owner {
        line(format!("give the control group to user {uid}"), "process.user.uid");
    }
    for w in &plan.cgroup.writes {
        line(format!("write {} to {}", w.value, w.file), &w.origin);
    }
    if let Some(rdt) = &plan.rdt {
        let lines: Vec<&str> = rdt.first.iter().chain(&rdt.schemata).map(String::as_str).collect();
        line(
            format!("resctrl class /{} ({:?}): {}", rdt.directory, rdt.class, lines.join(" ")),
            "linux.intelRdt",
        );
    }
    if plan.cgroup.devices.as_ref().is_some_and(|d| !d.is_empty()) || !plan.cgroup.device_lines.is_empty() {
        line("filter devices".into(), "linux.resources.devices");
    }
    if !plan.first_cpus.is_empty() {
        let text = format!("run on CPUs {} before the clone", numbers(&plan.first_cpus));
        line(text, "process.execCPUAffinity.initial");
    }
    for s in &plan.setup {
        line(act(s), &s.origin);
    }
    for s in &plan.imposed {
        line(format!("from outside: {}", act(s)), &s.origin);
    }
    line("report; wait for start".into(), "");
    for s in &plan.launch {
        line(act(s), &s.origin);
    }
    for warning in &plan.warnings {
        let _ = writeln!(out, "warning: {warning}");
    }
    out
}

fn text(path: &CStr) -> String {
    format!("/{}", path.to_bytes().escape_ascii())
}

fn propagation(flags: u64) -> &'static str {
    match flags & !libc::MS_REC {
        libc::MS_PRIVATE => "private",
        libc::MS_SLAVE => "slave",
        libc::MS_SHARED => "shared",
        _ => "unbindable",
    }
}

/// Capabilities by number, as a set.
fn capabilities(set: u64) -> String {
    let mut names: Vec<String> =
        caps::all().into_iter().filter(|c| set >> c.index() & 1 == 1).map(|c| c.to_string()).collect();
    names.sort();
    if names.is_empty() { "none".into() } else { names.join(" ") }
}

fn source(kind: &MountKind) -> String {
    match kind {
        MountKind::Bind(b) => format!(
            "bind {}{}{}",
            if b.inside { "the container's /" } else { "" },
            b.source.to_string_lossy(),
            if b.recursive { " with all below it" } else { "" }
        ),
        MountKind::LegacyCgroups(group, _) => format!("bind {group} of every cgroup v1 hierarchy"),
        MountKind::Filesystem(kind, _, parameters) => {
            format!("mount {} {}", kind.to_string_lossy(), list(parameters)).trim_end().to_owned()
        }
        MountKind::Again(_) => "change the mount".to_owned(),
        MountKind::Remount(parameters) => {
            format!("change the mount {}", list(parameters.as_deref().unwrap_or(&[]))).trim_end().to_owned()
        }
    }
}

fn list(parameters: &[Parameter]) -> String {
    let one = |(k, v): &Parameter| match v {
        Some(v) => format!("{}={}", k.to_string_lossy(), v.to_string_lossy()),
        None => k.to_string_lossy().into_owned(),
    };
    parameters.iter().map(one).collect::<Vec<_>>().join(",")
}

/// Whose ids a mount shows.
fn idmap(mapped: &IdMapped) -> String {
    let whose = match &mapped.by {
        IdSource::Joined(i) => format!("those of joined namespace number {i}"),
        IdSource::Maps(m) => format!("uids {:?} gids {:?}", m.uids.trim_end(), m.gids.trim_end()),
    };
    format!("; ids mapped{}: {whose}", if mapped.recursive { ", below too" } else { "" })
}

fn mount(m: &Mount) -> String {
    let names = [
        (attr::RDONLY, "ro"),
        (attr::NOSUID, "nosuid"),
        (attr::NODEV, "nodev"),
        (attr::NOEXEC, "noexec"),
        (attr::NOATIME, "noatime"),
        (attr::STRICTATIME, "strictatime"),
    ];
    let words = |set: u64, prefix: &str| {
        names
            .iter()
            .filter(|(bit, _)| set & bit != 0)
            .map(|(_, n)| format!("{prefix}{n}"))
            .collect::<Vec<_>>()
    };
    let mut options = words(m.attributes.0, "");
    options.extend(words(m.recursive_attributes.0, "r"));
    options.extend(
        m.propagation.iter().map(|(p, deep)| format!("{}{}", if *deep { "r" } else { "" }, propagation(*p))),
    );
    let fallback =
        m.fallback.as_ref().map_or(String::new(), |f| format!("; if the kernel refuses, {}", source(f)));
    if m.seal {
        options.push("ro once it is filled".into());
    }
    format!(
        "{} on {}{}{}{fallback}",
        source(&m.what),
        text(&m.target),
        if options.is_empty() { String::new() } else { format!(", {}", options.join(" ")) },
        m.idmap.as_ref().map_or(String::new(), idmap),
    )
}

/// One step in words; long programs by their length.
pub fn act(step: &Step) -> String {
    match &step.act {
        Act::Enter(i) => format!("enter joined namespace number {i}"),
        Act::BecomeRoot => "become root of the user namespace, once its ids are mapped".into(),
        Act::SealMounts => "make the mounts that are filled now read-only".into(),
        Act::AwaitCgroup => "wait to be moved into the control group".into(),
        Act::Unshare(flags) => format!("make namespaces {}", namespaces(*flags as u64)),
        Act::CloneAgain(_) => "clone again, so that the pid and time namespaces take hold".into(),
        Act::NewSession => "begin a session".into(),
        Act::WriteProc(path, value) => {
            format!("write {:?} to /proc{}", String::from_utf8_lossy(value), text(path))
        }
        Act::NullStreams => "streams that are the host's /dev/null become the container's".into(),
        Act::OomScore(score) => format!("set oom_score_adj to {score}"),
        Act::KeepProc => "keep the host's /proc open".into(),
        Act::EnterNetwork => "enter the network namespace".into(),
        Act::LoopbackUp => "set the loopback interface up".into(),
        Act::NetDevices(devices) => {
            let one =
                |d: &NetDevice| format!("{} as {}", d.name.to_string_lossy(), d.new_name.to_string_lossy());
            format!(
                "have network devices moved here: {}",
                devices.iter().map(one).collect::<Vec<_>>().join(", ")
            )
        }
        Act::Cpus(set) if set.iter().all(|word| *word == u64::MAX) => "run on every CPU".into(),
        Act::Cpus(set) => format!("run on CPUs {}", numbers(set)),
        Act::ClockOffsets(text) => {
            format!("set the clocks: {}", String::from_utf8_lossy(text).trim_end().replace('\n', ", "))
        }
        Act::Keyring(name) => format!("join the session keyring {}", name.to_string_lossy()),
        Act::Sever(flags) => format!("make all mounts {} to the host's", propagation(*flags)),
        Act::InitsRoot => "take the root of the container's init".into(),
        Act::Overlay(_, _, at) => format!("join the image's layers on {}", at.to_string_lossy()),
        Act::OpenRoot(path) | Act::PlainRoot(path) => {
            format!("take {} as the root file system", path.to_string_lossy())
        }
        Act::BindRoot(path) => {
            format!(
                "bind {0} on itself in the shared mount namespace; delete takes it off",
                path.to_string_lossy()
            )
        }
        Act::Mount(what) => mount(what),
        Act::Device(d) if d.node == Node::Bound => format!("bind the host's {}", text(&d.path)),
        Act::Device(d) => format!(
            "make the device {} ({}:{}, mode {:o}, owner {}:{})",
            text(&d.path),
            d.major,
            d.minor,
            d.mode,
            d.uid,
            d.gid
        ),
        Act::Link(at, target) => format!("link {} to {}", text(at), target.to_string_lossy()),
        Act::Ptmx => "link /dev/ptmx to pts/ptmx".into(),
        Act::WorkingDir(path) => format!("make {} if it is missing", text(path)),
        Act::CreateContainerHooks => "run the hooks before the root changes".into(),
        Act::Console => "open the terminal".into(),
        Act::Pivot => "change the root (pivot_root)".into(),
        Act::MoveRoot => "change the root (move and chroot)".into(),
        Act::Chroot => "change the root (chroot)".into(),
        Act::ReadonlyRoot => "make the root read-only".into(),
        Act::RootPropagation(flags) => format!("make the root {}", propagation(*flags)),
        Act::Readonly(path) => format!("make {} read-only", text(path)),
        Act::Mask(path, _) => format!("hide {}", text(path)),
        Act::Hostname(name) => format!("set the host name {:?}", String::from_utf8_lossy(name)),
        Act::Domainname(name) => format!("set the domain name {:?}", String::from_utf8_lossy(name)),
        Act::Rlimit(number, soft, hard) => {
            format!("limit {} to {soft}, at most {hard}", limits::rlimit_name(*number))
        }
        Act::Umask(mask) => format!("set the umask {mask:04o}"),
        Act::Bounding(keep) => format!("bound capabilities to: {}", capabilities(*keep)),
        Act::Ids(uid, gid, groups) => {
            format!("become user {uid}, group {gid}, further groups {:?}", groups.as_deref().unwrap_or(&[]))
        }
        Act::Capabilities(c) => format!(
            "set capabilities, effective: {}; ambient: {}",
            capabilities(c.effective),
            capabilities(c.ambient)
        ),
        Act::NoNewPrivs => "set no_new_privs".into(),
        Act::ChdirEarly(path) => {
            format!("enter {}, while the rights are still there", path.to_string_lossy())
        }
        Act::Chdir(path) => format!("enter {}", path.to_string_lossy()),
        Act::FindProgram => "find the program".into(),
        Act::StartContainerHooks => "run the startContainer hooks".into(),
        Act::Settle(first) => format!("leave descriptors 0 to {} open", first - 1),
        Act::Listen(l) => {
            format!("{}; the listener goes to {}", load(&l.filter), l.path.to_string_lossy())
        }
        Act::Seccomp(filter) => load(filter),
        Act::Exec(program) => format!("exec {:?}", program.argv),
        other => format!("{other:?}"),
    }
}

/// The bits that are set.
fn load(filter: &Filter) -> String {
    format!("load a seccomp filter of {} instructions, flags {:#x}", filter.program.len() / 8, filter.flags)
}

fn numbers(set: &[u64]) -> String {
    let all = (0..set.len() * 64).filter(|n| set[n / 64] >> (n % 64) & 1 == 1);
    all.map(|n| n.to_string()).collect::<Vec<_>>().join(",")
}

/// The kinds of namespaces that flags of clone(2) ask for.
pub fn namespaces(flags: u64) -> String {
    let kinds = [
        (libc::CLONE_NEWUSER, "user"),
        (libc::CLONE_NEWPID, "pid"),
        (libc::CLONE_NEWNS, "mount"),
        (libc::CLONE_NEWNET, "network"),
        (libc::CLONE_NEWIPC, "ipc"),
        (libc::CLONE_NEWUTS, "uts"),
        (libc::CLONE_NEWCGROUP, "cgroup"),
        (coracle_sys::namespace::CLONE_NEWTIME, "time"),
    ];
    let names: Vec<&str> = kinds.iter().filter(|(bit, _)| flags & *bit as u64 != 0).map(|k| k.1).collect();
    if names.is_empty() { "none".into() } else { names.join(" ") }
}
