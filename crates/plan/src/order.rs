//! The one place that fixes the order of the steps, with the reason for each constraint.

use crate::devices::Nodes;
use crate::inputs::{Host, Request};
use crate::mounts::Surroundings;
use crate::problem::{Findings, Refusal};
use crate::steps::{
    Act, Bind, Capabilities, Mount, MountKind, NOTIFY, Namespaces, PROGRAM, Plan, Step, Terminal,
};
use crate::{
    affinity, annotations, cgroup, creds, devices, hooks, labels, limits, mounts, namespaces, net_devices,
    process, rdt, seccomp,
};
use coracle_sys::{libc, mount::attr};
use oci_spec::runtime::{LinuxNamespaceType as Kind, Process, Spec};
use std::ffi::CString;
use std::path::Path;

const CAP_SYS_ADMIN: u64 = 1 << 21;
const CAP_MKNOD: u64 = 1 << 27;

pub(crate) fn step(act: Act, origin: &str) -> Step {
    Step { act, origin: origin.into() }
}

/// Decides everything that create does.
/// Errors: all mistakes of the configuration at once.
pub fn plan(spec: &Spec, host: &Host, request: &Request) -> Result<Plan, Refusal> {
    let mut found = Findings::default();
    version(spec, &mut found);
    annotations::check(spec, &mut found);
    let mut namespaces = namespaces::plan(spec, host, &mut found);
    let cgroup = cgroup::plan(spec, host, request, &mut found);
    root_is_named(spec, &mut found);
    let nothing = process::nothing();
    let process = spec.process().as_ref().unwrap_or(&nothing);
    let terminal = terminal(process, request, &mut found);
    let rdt = rdt::plan(spec, &request.id, &mut found);
    let hooks = hooks::plan(spec, &mut found);
    let mut setup = entry(spec, &mut namespaces, request, &cgroup, &mut found);
    affinity::check(process, &mut found);
    setup.extend(before_root(spec, process, host, &mut found));
    setup.extend(root(spec, request, host, &cgroup, &namespaces, terminal.is_some(), &mut found));
    network(spec, &mut namespaces, host, &mut setup, &mut found);
    let launch = match spec.process() {
        Some(process) => workload(spec, process, host, request, &namespaces, &mut setup, &mut found),
        None => {
            found.warn("process: is missing: the container can be created, but not started");
            setup.extend(only_waiting());
            Vec::new()
        }
    };
    let (setup, imposed) = imposed(spec, host, setup);
    if found.problems.is_empty() {
        Ok(Plan {
            namespaces,
            cgroup,
            rdt,
            setup,
            launch,
            imposed,
            hooks,
            terminal,
            first_cpus: Vec::new(),
            warnings: found.warnings,
        })
    } else {
        Err(Refusal(found.problems))
    }
}

/// Takes out what a process in a user namespace has no right to, whatever its capabilities there: to raise a hard limit and to
/// lower its oom_score_adj (CAP_SYS_RESOURCE; getrlimit(2), proc_pid_oom_score_adj(5)). The runtime has it, if it is root.
fn imposed(spec: &Spec, host: &Host, setup: Vec<Step>) -> (Vec<Step>, Vec<Step>) {
    let apart = host.admin() && namespaces::asked(spec, Kind::User).is_some();
    setup.into_iter().partition(|s| !(apart && matches!(s.act, Act::Rlimit(..) | Act::OomScore(_))))
}

fn version(spec: &Spec, found: &mut Findings) {
    let version = spec.version();
    if major(version) != Some(1) {
        let what = match version.as_str() {
            "" => "is missing or empty".into(),
            other => format!("{other:?} is not a version 1.x.y of the specification"),
        };
        found.problem(
            "ociVersion",
            what,
            "config.md, Specification version",
            "write the version that the bundle follows, such as \"1.0.2\"",
        );
    }
}

/// The first number of a version that SemVer 2.0.0 knows as one: `1.0.2`, `1.2.0-rc.1`, `1.2.0+dev`.
fn major(version: &str) -> Option<u32> {
    let core = version.split(['-', '+']).next()?;
    let behind = &version[core.len()..];
    let word = |c: char| c.is_ascii_alphanumeric() || "-.+".contains(c);
    let number = |n: &str| (n == "0" || !n.starts_with(['0', '+'])).then(|| n.parse::<u32>().ok())?;
    let numbers = core.split('.').map(number).collect::<Option<Vec<u32>>>()?;
    (numbers.len() == 3 && behind.len() != 1 && behind.chars().all(word)).then_some(numbers[0])
}

fn root_is_named(spec: &Spec, found: &mut Findings) {
    let (section, hint) = ("config.md, Root", "add it, such as {\"path\": \"rootfs\"}");
    match spec.root() {
        None => found.problem("root", "is missing", section, hint),
        Some(root) if root.path().as_os_str().is_empty() => {
            found.problem("root.path", "is missing or empty", section, hint);
        }
        Some(_) => {}
    }
}

/// What the init of a container without `process` is: it will never be anything else, and needs no rights for that.
fn only_waiting() -> [Step; 2] {
    [
        step(Act::Bounding(0), "process.capabilities.bounding"),
        step(Act::Capabilities(Capabilities::default()), "process.capabilities"),
    ]
}

fn terminal(process: &Process, request: &Request, found: &mut Findings) -> Option<Terminal> {
    let socket = request.console_socket.as_ref();
    if process.terminal() != Some(true) {
        if socket.is_some() {
            found.problem(
                "--console-socket",
                "process.terminal is not true, so there is no terminal to send",
                "",
                "set process.terminal, or leave the option out",
            );
        }
        return None;
    }
    if socket.is_none() && request.detached {
        found.problem(
            "process.terminal",
            "is true, but nobody takes the terminal",
            "",
            "give --console-socket, or set it to false",
        );
    }
    let side = |n: u64, name: &str, found: &mut Findings| {
        u16::try_from(n).unwrap_or_else(|_| {
            found.problem(
                format!("process.consoleSize.{name}"),
                format!("{n} is more than the 65535 that a terminal can have"),
                "ioctl_tty(2), TIOCSWINSZ",
                "lower it",
            );
            0
        })
    };
    let size =
        process.console_size().map(|b| (side(b.height(), "height", found), side(b.width(), "width", found)));
    let socket = socket.map(|s| found.cstring("--console-socket", s.as_os_str().as_encoded_bytes()));
    Some(Terminal { size, socket })
}

/// Into the namespaces.
fn entry(
    spec: &Spec,
    ns: &mut Namespaces,
    request: &Request,
    cgroup: &crate::steps::Cgroup,
    found: &mut Findings,
) -> Vec<Step> {
    let mut out = Vec::new();
    // First of all: init may write there until it is untraceable.
    if let Some(score) = spec.process().as_ref().and_then(|process| limits::oom_score(process, found)) {
        out.push(step(Act::OomScore(score), "process.oomScoreAdj"));
    }
    if let Some(process) = spec.process().as_ref().filter(|_| !request.no_new_keyring) {
        // Whatever is joined and cloned from here on has it too.
        out.extend(labels::keys(process, found));
    }
    into_namespaces(ns, &mut out);
    let legacy = cgroup.mode == crate::inputs::CgroupMode::Legacy;
    if cgroup.path.is_some() && (legacy || cgroup.unit.is_some()) {
        out.push(step(Act::AwaitCgroup, "linux.cgroupsPath"));
    }
    // In the control group, or its cpuset would take CPUs away again.
    out.push(affinity::all());
    if crate::namespaces::asked(spec, Kind::Cgroup) == Some(true) {
        // Not in the clone: the kernel would root it at the parent's control group. cgroup_namespaces(7).
        out.push(step(Act::Unshare(libc::CLONE_NEWCGROUP), "linux.namespaces"));
    }
    out.push(step(Act::NewSession, ""));
    if !request.no_new_keyring {
        out.push(step(Act::Keyring(found.cstring("container id", format!("_ses.{}", request.id))), ""));
    }
    out
}

/// Into the network namespace, as late as may be: the kernel needs about as long for it as for all mounts together, so
/// the parent makes it meanwhile. One that a new user namespace is to own only a process in that can make.
fn network(spec: &Spec, ns: &mut Namespaces, host: &Host, setup: &mut Vec<Step>, found: &mut Findings) {
    let (new, user) = (libc::CLONE_NEWNET as u64, libc::CLONE_NEWUSER as u64);
    ns.network = ns.new & new != 0 && ns.new & user == 0 && host.admin();
    let mut steps = Vec::new();
    if ns.network {
        ns.new &= !new;
        steps.push(step(Act::EnterNetwork, "linux.namespaces"));
    } else if mounts::new_namespace(spec, Kind::Network) {
        steps.push(step(Act::LoopbackUp, "linux.namespaces"));
    }
    let devices = net_devices::plan(spec, host, found);
    if !devices.is_empty() {
        steps.push(step(Act::NetDevices(devices), "linux.netDevices"));
    }
    let at = setup.iter().position(|s| wants_network(&s.act)).unwrap_or(setup.len());
    setup.splice(at..at, steps);
}

/// Whether a step depends on the network namespace that it is done in, or waits for a word of the parent, which is after the one
/// that brings the namespace.
fn wants_network(act: &Act) -> bool {
    let is_local = |kind: &CString| [c"proc", c"tmpfs", c"devpts", c"mqueue"].contains(&kind.as_c_str());
    match act {
        Act::AwaitCgroup | Act::CreateContainerHooks => true,
        Act::WriteProc(file, _) => file.to_bytes().starts_with(b"sys/net/"),
        Act::Mount(mount) => match &mount.what {
            _ if mount.idmap.is_some() => true,
            MountKind::Filesystem(kind, ..) => !is_local(kind),
            // /proc/net and /proc/self/ns/net are those of who looks.
            MountKind::Bind(bind) => bind.source.to_bytes().starts_with(b"/proc"),
            _ => false,
        },
        _ => false,
    }
}

/// What is joined is entered before a user namespace is made: it cannot belong to one that is new, and within that one
/// nobody has a right to it. namespaces.rs has the place of a user namespace that is joined.
fn into_namespaces(ns: &mut Namespaces, out: &mut Vec<Step>) {
    let user = libc::CLONE_NEWUSER as u64;
    let later = ns.new & user != 0 && !ns.join.is_empty();
    for (i, join) in ns.join.iter().enumerate() {
        out.push(step(Act::Enter(i), &join.origin));
        if join.kind == libc::CLONE_NEWUSER {
            out.push(step(Act::BecomeRoot, &join.origin));
        }
    }
    if later {
        out.push(step(Act::Unshare(libc::CLONE_NEWUSER), "linux.namespaces"));
    }
    if ns.maps.is_some() {
        out.push(step(Act::BecomeRoot, "linux.uidMappings"));
    }
    let joins = |kind| ns.join.iter().any(|j| j.kind == kind);
    if later || joins(libc::CLONE_NEWUSER) || joins(libc::CLONE_NEWPID) || ns.time.is_some() {
        let first = if later { 0 } else { ns.new & user };
        second_stage(ns, first, out);
    }
}

/// A pid namespace that is joined, and a time namespace that is new, take only the next child in (setns(2), unshare(2));
/// and what a user namespace is to own can be made only after it was entered. Then all but `first` is made there.
fn second_stage(ns: &mut Namespaces, first: u64, out: &mut Vec<Step>) {
    let pid = ns.new & libc::CLONE_NEWPID as u64;
    let mut rest = (ns.new & !(libc::CLONE_NEWUSER as u64) & !pid) as i32;
    ns.new = first;
    if ns.time.is_some() {
        rest |= coracle_sys::namespace::CLONE_NEWTIME;
    }
    if rest != 0 {
        out.push(step(Act::Unshare(rest), "linux.namespaces"));
    }
    if let Some(offsets) = ns.time.take().filter(|t| !t.is_empty()) {
        out.push(step(Act::ClockOffsets(offsets.into_bytes()), "linux.timeOffsets"));
    }
    out.push(step(Act::CloneAgain(pid), "linux.namespaces"));
}

/// What is written through the host's /proc, while nothing of the container stands over it (CVE-2025-52881).
fn before_root(spec: &Spec, process: &Process, host: &Host, found: &mut Findings) -> Vec<Step> {
    let mut out = Vec::new();
    for (key, value) in spec.linux().as_ref().and_then(|l| l.sysctl().as_ref()).into_iter().flatten() {
        let origin = format!("linux.sysctl.{key}");
        sysctl_is_namespaced(spec, key, &origin, found);
        sysctl_is_alone(spec, key, value, &origin, found);
        let path = found.cstring(&origin, format!("sys/{}", slashes(key)));
        out.push(step(Act::WriteProc(path, value.clone().into_bytes()), &origin));
    }
    out.extend(labels::open(process, host, found));
    out
}

/// The key with slashes: dots separate, unless the key has slashes already (then dots belong to names). sysctl(8).
fn slashes(key: &str) -> String {
    if key.contains('/') { key.to_owned() } else { key.replace('.', "/") }
}

/// What has a field of its own may not be set to something else as well.
fn sysctl_is_alone(spec: &Spec, key: &str, value: &str, at: &str, found: &mut Findings) {
    let field = match slashes(key).as_str() {
        "kernel/hostname" => "hostname",
        "kernel/domainname" if spec.domainname().as_ref().is_some_and(|d| !d.is_empty() && d != value) => {
            "domainname"
        }
        _ => return,
    };
    found.problem(
        at,
        format!("is not allowed as it conflicts with the OCI field {field:?}"),
        "config.md, Hostname, Domainname",
        format!("set {field} instead"),
    );
}

/// Only what belongs to a namespace of the container may be set: the rest is the host's.
fn sysctl_is_namespaced(spec: &Spec, key: &str, at: &str, found: &mut Findings) {
    match namespace_of(key) {
        None => found.problem(
            at,
            "is not separate in any namespace: setting it would change the host",
            "config-linux.md, Sysctl",
            "set it on the host",
        ),
        Some((kind, name)) if namespaces::asked(spec, kind).is_none() => {
            found.problem(
                at,
                format!("belongs to the {name} namespace, and the container uses the host's"),
                "config-linux.md, Sysctl",
                format!("add a namespace of type {name}"),
            );
        }
        _ => {}
    }
}

/// The kind of namespace that a sysctl belongs to.
fn namespace_of(key: &str) -> Option<(Kind, &'static str)> {
    let key = slashes(key);
    let ipc = [
        "kernel/msgmax",
        "kernel/msgmnb",
        "kernel/msgmni",
        "kernel/sem",
        "kernel/shmall",
        "kernel/shmmax",
        "kernel/shmmni",
        "kernel/shm_rmid_forced",
    ];
    if key.contains("..") {
        None
    } else if ipc.contains(&key.as_str()) || key.starts_with("fs/mqueue/") {
        Some((Kind::Ipc, "ipc"))
    } else if key.starts_with("net/") {
        Some((Kind::Network, "network"))
    } else if key == "kernel/domainname" || key == "kernel/hostname" {
        Some((Kind::Uts, "uts"))
    } else if key.starts_with("user/") {
        Some((Kind::User, "user"))
    } else {
        None
    }
}

/// What of the configuration changes a namespace of this kind for all who are in it: a sysctl, a name, or mounts.
pub(crate) fn changes(spec: &Spec, kind: Kind) -> Option<String> {
    if kind == Kind::Mount {
        return mounts::wanted(spec).then(|| "what is mounted for the container".to_owned());
    }
    let sysctls = spec.linux().as_ref().and_then(|l| l.sysctl().as_ref()).into_iter().flatten();
    let mut sysctls = sysctls.map(|(key, _)| key);
    let names = [("hostname", spec.hostname()), ("domainname", spec.domainname())];
    let named = |(_, name): &(&str, &Option<String>)| name.as_ref().is_some_and(|name| !name.is_empty());
    let name = || names.into_iter().find(named).filter(|_| kind == Kind::Uts).map(|(at, _)| at.to_owned());
    let sysctl = sysctls.find(|key| namespace_of(key).is_some_and(|(of, _)| of == kind));
    sysctl.map(|key| format!("linux.sysctl.{key}")).or_else(name)
}

/// From the host's tree to the container's.
fn root(
    spec: &Spec,
    request: &Request,
    host: &Host,
    cgroup: &crate::steps::Cgroup,
    namespaces: &Namespaces,
    terminal: bool,
    found: &mut Findings,
) -> Vec<Step> {
    let mut out = Vec::new();
    let Some(root) = spec.root() else { return out };
    let rootfs = request.bundle.join(root.path());
    let path = found.cstring("root.path", rootfs.as_os_str().as_encoded_bytes());
    let own_mounts = mounts::new_namespace(spec, Kind::Mount);
    let mounts_wanted = own_mounts || mounts::wanted(spec);
    let propagation = mounts::root_propagation(spec, found);
    let user_namespace = namespaces::asked(spec, Kind::User).is_some() || !host.admin();
    let label = labels::of_mounts(spec, host, found);
    let context = labels::context_option(spec, found);
    if own_mounts {
        // Nothing may propagate out, but for binds that are to, whose source the parent opens; what the host mounts later
        // may come in, unless private was asked for.
        let private = propagation.is_some_and(|p| p & (libc::MS_PRIVATE | libc::MS_UNBINDABLE) != 0);
        out.push(step(
            Act::Sever(if private { libc::MS_PRIVATE } else { libc::MS_SLAVE }),
            "linux.rootfsPropagation",
        ));
        if let Some(overlay) = &request.overlay {
            // Before the root is copied, after propagation is cut: nobody else ever sees it, and it ends with the namespace.
            let from = found.cstring("--image", overlay.directory.as_os_str().as_encoded_bytes());
            let options = found.cstring("--image", overlay.options.as_str());
            out.push(step(Act::Overlay(from, options, path.clone()), "--image"));
        }
        out.push(step(Act::OpenRoot(path), "root.path"));
    } else if mounts_wanted {
        out.push(step(Act::BindRoot(path), "root.path"));
    } else {
        out.push(step(Act::PlainRoot(path), "root.path"));
    }
    if mounts_wanted {
        let around = Surroundings {
            host,
            bundle: &request.bundle,
            rootfs,
            namespaces,
            user_namespace,
            // Mounts of a user namespace never show in the namespace that they were copied from: mount_namespaces(7).
            shared_root: own_mounts
                && !user_namespace
                && propagation.is_some_and(|p| p & libc::MS_SHARED != 0),
            cgroup_namespace: namespaces::asked(spec, Kind::Cgroup).is_some(),
            cgroup_path: cgroup.path.clone().unwrap_or_default(),
            label: label.clone(),
            context,
        };
        for (mount, at) in mounts::plan(spec, &around, found) {
            out.push(Step { act: Act::Mount(Box::new(mount)), origin: at });
        }
        if let Some(directory) = &request.notify {
            out.push(step(Act::Mount(Box::new(notify(directory, found))), NOTIFY));
        }
        let makes = host.capabilities & CAP_MKNOD != 0 && host.admin();
        let nodes = Nodes { user_namespace, given: namespaces.maps.as_ref().filter(|_| makes) };
        dev(spec, &around.rootfs, &nodes, &mut out, found);
    }
    if let Some(cwd) = spec.process().as_ref().map(|p| mounts::inside(p.cwd())).filter(|c| !c.is_empty()) {
        out.push(step(Act::WorkingDir(found.cstring("process.cwd", cwd)), "process.cwd"));
    }
    out.push(step(Act::CreateContainerHooks, "hooks.createContainer"));
    let change = match (own_mounts, request.no_pivot) {
        (false, _) => Act::Chroot,
        (true, true) => Act::MoveRoot,
        (true, false) => Act::Pivot,
    };
    out.push(step(change, "root.path"));
    if own_mounts {
        // A descriptor that leads to a mount of the host is one that criu(8) cannot restore, and so does not dump.
        out.push(step(Act::NullStreams, ""));
    }
    if terminal {
        // After the pivot: /dev/pts is then the container's own beyond doubt. Before /dev may become read-only.
        out.push(step(Act::Console, "process.terminal"));
    }
    if out.iter().any(|s| matches!(&s.act, Act::Mount(m) if m.seal)) {
        out.push(step(Act::SealMounts, "mounts"));
    }
    after_root(spec, propagation.filter(|_| own_mounts), label, &mut out, found);
    out
}

/// The directory of the socket that the container's sd_notify(3) writes to.
fn notify(directory: &Path, found: &mut Findings) -> Mount {
    let source = found.cstring(NOTIFY, directory.as_os_str().as_encoded_bytes());
    Mount {
        target: c"run/notify".into(),
        what: MountKind::Bind(Bind { source, ..Bind::default() }),
        attributes: (attr::RDONLY | attr::NOSUID | attr::NODEV | attr::NOEXEC, 0),
        ..Mount::default()
    }
}

fn dev(spec: &Spec, rootfs: &Path, nodes: &Nodes, out: &mut Vec<Step>, found: &mut Findings) {
    if mounts::dev_is_bind(spec, rootfs) {
        return; // the host's own /dev, shown inside: nothing is to be made in it
    }
    // A multiplexer that is listed is the one of the container's own devpts, as every /dev/ptmx: Default Devices. Bound from the
    // host, as in a user namespace, it could not even be replaced.
    let listed =
        devices::plan(spec, nodes, found).into_iter().filter(|(d, _)| d.path.to_bytes() != b"dev/ptmx");
    out.extend(listed.map(|(d, at)| Step { act: Act::Device(d), origin: at }));
    for (path, target) in devices::LINKS {
        let (path, target) = (found.cstring("", path), found.cstring("", target));
        out.push(step(Act::Link(path, target), ""));
    }
    out.push(step(Act::Ptmx, ""));
}

fn after_root(
    spec: &Spec,
    propagation: Option<u64>,
    label: Option<CString>,
    out: &mut Vec<Step>,
    found: &mut Findings,
) {
    let linux = spec.linux().as_ref();
    let readonly = spec.root().as_ref().and_then(|r| r.readonly()) == Some(true);
    let mut whole = readonly.then(|| "root.readonly".to_owned());
    for (i, path) in linux.and_then(|l| l.readonly_paths().as_ref()).into_iter().flatten().enumerate() {
        let at = format!("linux.readonlyPaths[{i}]");
        // One that is not absolute, as it must be, is taken from the root, without a word: more is protected so, not less.
        let path = below_root(path, &at, found);
        if path.is_empty() {
            // A mount over the root would be seen by nobody who is below it already: the root's own mount is changed.
            whole = Some(at);
        } else {
            out.push(Step { act: Act::Readonly(path), origin: at });
        }
    }
    for (i, text) in linux.and_then(|l| l.masked_paths().as_ref()).into_iter().flatten().enumerate() {
        let at = format!("linux.maskedPaths[{i}]");
        let path = below_root(text, &at, found);
        if !text.starts_with('/') {
            found.problem(
                &at,
                format!("{text:?} is not absolute"),
                "config-linux.md, Masked Paths",
                "write it from the container's root",
            );
        } else if path.is_empty() {
            found.problem(
                &at,
                "is the root file system itself, which a program that runs in it would still see",
                "config-linux.md, Masked Paths",
                "name what is to be hidden",
            );
        }
        // One mask hides a path as well as two.
        if !out.iter().any(|s| matches!(&s.act, Act::Mask(before, _) if *before == path)) {
            out.push(Step { act: Act::Mask(path, label.clone()), origin: at });
        }
    }
    if let Some(flags) = propagation {
        out.push(step(Act::RootPropagation(flags), "linux.rootfsPropagation"));
        if flags & libc::MS_REC != 0 {
            let again: Vec<Step> = out.iter().filter_map(mounts::propagation_of).collect();
            out.extend(again);
        }
    }
    if let Some(origin) = whole {
        out.push(Step { act: Act::ReadonlyRoot, origin });
    }
    let name =
        |name: &Option<String>| name.as_ref().filter(|n| !n.is_empty()).map(|n| n.clone().into_bytes());
    for (value, at, act) in [
        (name(spec.hostname()), "hostname", Act::Hostname as fn(Vec<u8>) -> Act),
        (name(spec.domainname()), "domainname", Act::Domainname),
    ] {
        let Some(value) = value else { continue };
        if value.len() > 64 {
            found.problem(
                at,
                format!("has {} bytes, and the kernel has room for 64", value.len()),
                "sethostname(2), setdomainname(2)",
                "shorten it",
            );
        }
        if namespaces::asked(spec, Kind::Uts).is_none() {
            found.problem(
                at,
                "the container uses the host's uts namespace: setting it would rename the host",
                "config-linux.md, Namespaces",
                "add a namespace of type uts",
            );
        }
        out.push(step(act(value), at));
    }
}

fn below_root(path: &str, at: &str, found: &mut Findings) -> CString {
    found.cstring(at, mounts::place(std::path::Path::new(path)))
}

/// What makes the process the workload. Whatever can fail without the start comes before the report, so that create tells.
fn workload(
    spec: &Spec,
    process: &Process,
    host: &Host,
    request: &Request,
    ns: &Namespaces,
    setup: &mut Vec<Step>,
    found: &mut Findings,
) -> Vec<Step> {
    let strict =
        spec.annotations().as_ref().is_some_and(|a| a.get(seccomp::STRICT).is_some_and(|v| v != "0"));
    let seccomp = spec
        .linux()
        .as_ref()
        .and_then(|l| l.seccomp().as_ref())
        .and_then(|p| seccomp::compile(p, strict, request.compiled.as_ref(), found));
    let no_new_privs = process.no_new_privileges() == Some(true);
    setup.extend(limits::scheduling(process, found));
    setup.extend(limits::domain_and_memory(spec, found));
    setup.extend(limits::rlimits(process, found));
    let fresh_user = namespaces::asked(spec, Kind::User).is_some();
    let (bounding, mut sets) = creds::capabilities(process, host, fresh_user, found);
    if seccomp.is_some() && !no_new_privs {
        // Without no_new_privs only CAP_SYS_ADMIN may load a filter: it stays until then. seccomp(2).
        sets.meanwhile = CAP_SYS_ADMIN;
    }
    let maps = ns.maps.as_ref();
    let cwd = found.cstring("process.cwd", process.cwd().as_os_str().as_encoded_bytes());
    // A directory that its user cannot enter (an image whose WORKDIR is /root) is one to start in all the same, as with runc.
    setup.push(step(Act::ChdirEarly(cwd.clone()), "process.cwd"));
    setup.push(step(Act::Bounding(bounding), "process.capabilities.bounding"));
    let mut ids = creds::ids(process.user(), maps, namespaces::denies_setgroups(spec, host), found);
    if let (Act::Ids(.., groups), true) = (&mut ids, keeps_groups(spec)) {
        *groups = None;
    }
    setup.push(step(ids, "process.user"));
    setup.push(step(Act::Capabilities(sets), "process.capabilities"));
    if no_new_privs {
        setup.push(step(Act::NoNewPrivs, "process.noNewPrivileges"));
    }
    let umask = process.user().umask().unwrap_or(0o022);
    if umask > 0o777 {
        found.problem(
            "process.user.umask",
            format!("{umask} has more than the nine bits of a mask"),
            "umask(2)",
            "write it in decimal, such as 18 for octal 022",
        );
    }
    setup.push(step(Act::Umask(umask), "process.user.umask"));
    // And one that only its user can enter: root of a user namespace may have no right where the user has.
    setup.push(step(Act::Chdir(cwd), "process.cwd"));
    setup.push(step(Act::FindProgram, PROGRAM));
    let (listener, filter) = seccomp.map_or((None, None), |(listener, filter)| (listener, Some(filter)));
    // Of a profile that is not there, create tells. The hooks are programs of the container: what confines its own confines
    // them too.
    setup.extend(labels::confine(process, found));
    // Last: it may notify what comes before, and of an agent that cannot be told create tells.
    setup.extend(listener.map(|listener| step(Act::Listen(listener), "linux.seccomp")));
    let mut launch = vec![step(Act::StartContainerHooks, "hooks.startContainer")];
    // Before the filter, which may forbid what this takes.
    launch.push(step(Act::Settle(3 + request.preserve_fds), ""));
    if let Some(filter) = filter {
        // After the start: a strict filter must not end the wait.
        launch.push(step(Act::Seccomp(filter), "linux.seccomp"));
    }
    if sets.meanwhile != 0 {
        sets.meanwhile = 0;
        launch.push(step(Act::Capabilities(sets), "process.capabilities"));
    }
    launch.push(step(Act::Exec(process::program(process, &request.environment, found)), PROGRAM));
    launch
}

/// Whether the caller's supplementary groups are to stay: crun's annotation, which Podman sets for `--group-add keep-groups`.
fn keeps_groups(spec: &Spec) -> bool {
    let value = spec.annotations().as_ref().and_then(|a| a.get("run.oci.keep_original_groups"));
    value.is_some_and(|v| v == "1" || v == "true")
}

/// Decides an exec: another process in the container whose configuration and init these are. The same steps, without those
/// that make the container.
pub fn exec(
    process: &Process,
    spec: &Spec,
    host: &Host,
    request: &Request,
    init: i32,
    cgroup: Option<String>,
) -> Result<Plan, Refusal> {
    let mut found = Findings::default();
    let process = &creds::inherited(labels::inherited(process, spec), spec);
    let terminal = terminal(process, request, &mut found);
    let mut namespaces = namespaces::of_init(spec, host, init, request.own_clocks, &mut found);
    let mut setup = Vec::new();
    // One that says nothing of it must not have the engine's, which is often out of the OOM killer's reach.
    let score = if process.oom_score_adj().is_some() { Some(process) } else { spec.process().as_ref() };
    if let Some(score) = score.and_then(|p| limits::oom_score(p, &mut found)) {
        setup.push(step(Act::OomScore(score), "process.oomScoreAdj"));
    }
    if !request.no_new_keyring {
        // Before it is in the container, whose /proc may be anything.
        setup.extend(labels::keys(process, &mut found));
    }
    let opened = labels::open(process, host, &mut found);
    if let Some(first) = opened.first() {
        setup.push(step(Act::KeepProc, &first.origin));
    }
    into_namespaces(&mut namespaces, &mut setup);
    // A process writes its own label only: after it is the one that stays. The kernel checks who opened it.
    setup.extend(opened);
    let legacy = host.cgroup == crate::inputs::CgroupMode::Legacy;
    if cgroup.is_some() && (legacy || request.moved_into_cgroup) {
        setup.push(step(Act::AwaitCgroup, "linux.cgroupsPath"));
    }
    let (first_cpus, last_cpus) = affinity::of_exec(process, &mut found);
    setup.extend(last_cpus);
    setup.push(step(Act::NewSession, ""));
    if !request.no_new_keyring {
        setup.push(step(Act::Keyring(found.cstring("container id", format!("_ses.{}", request.id))), ""));
    }
    setup.push(step(Act::InitsRoot, ""));
    if terminal.is_some() {
        setup.push(step(Act::Console, "process.terminal"));
    }
    let launch = workload(spec, process, host, request, &namespaces, &mut setup, &mut found);
    let launch = launch.into_iter().filter(|s| !matches!(s.act, Act::StartContainerHooks)).collect();
    let cgroup = crate::steps::Cgroup { path: cgroup, mode: host.cgroup, ..Default::default() };
    let (setup, imposed) = imposed(spec, host, setup);
    if found.problems.is_empty() {
        Ok(Plan {
            namespaces,
            cgroup,
            rdt: None,
            setup,
            launch,
            imposed,
            hooks: Default::default(),
            terminal,
            first_cpus,
            warnings: found.warnings,
        })
    } else {
        Err(Refusal(found.problems))
    }
}
