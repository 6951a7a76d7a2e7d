//! Namespaces and id maps: config-linux.md, Namespaces, User namespace mappings, Offset for Time Namespace.

use crate::inputs::Host;
use crate::problem::Findings;
use crate::steps::{IdMaps, Join, Namespaces};
use coracle_sys::libc;
use oci_spec::runtime::{Linux, LinuxIdMapping, LinuxNamespaceType as Kind, Spec};

const SECTION: &str = "config-linux.md, Namespaces";

/// The CLONE_NEW* flag of a kind, and config.json's name for it.
fn flag(kind: Kind) -> (i32, &'static str) {
    match kind {
        Kind::Mount => (libc::CLONE_NEWNS, "mount"),
        Kind::Pid => (libc::CLONE_NEWPID, "pid"),
        Kind::Network => (libc::CLONE_NEWNET, "network"),
        Kind::Ipc => (libc::CLONE_NEWIPC, "ipc"),
        Kind::Uts => (libc::CLONE_NEWUTS, "uts"),
        Kind::Cgroup => (libc::CLONE_NEWCGROUP, "cgroup"),
        Kind::User => (libc::CLONE_NEWUSER, "user"),
        Kind::Time => (coracle_sys::namespace::CLONE_NEWTIME, "time"),
    }
}

/// The place of a flag in the order in which namespaces are entered. A caller with CAP_SYS_ADMIN has rights over the others
/// now, and loses those that the user namespace does not own by entering it: it comes last. Any other caller gets rights by
/// entering it: it comes first. The mount namespace comes late, for it takes the caller's paths away. setns(2).
fn rank(kind: i32, host: &Host) -> usize {
    let order = [
        libc::CLONE_NEWPID,
        coracle_sys::namespace::CLONE_NEWTIME,
        libc::CLONE_NEWIPC,
        libc::CLONE_NEWUTS,
        libc::CLONE_NEWNET,
        libc::CLONE_NEWCGROUP,
        libc::CLONE_NEWNS,
    ];
    match kind {
        libc::CLONE_NEWUSER if !host.admin() => 0,
        other => order.iter().position(|k| *k == other).map_or(order.len() + 1, |at| at + 1),
    }
}

/// Whether the configuration asks for a namespace of this kind: `Some(true)` new, `Some(false)` joined.
pub(crate) fn asked(spec: &Spec, wanted: Kind) -> Option<bool> {
    let list = spec.linux().as_ref()?.namespaces().as_ref()?;
    list.iter().find(|n| n.typ() == wanted).map(|n| n.path().is_none())
}

/// Decides the namespaces.
pub(crate) fn plan(spec: &Spec, host: &Host, found: &mut Findings) -> Namespaces {
    let mut out = Namespaces::default();
    let Some(linux) = spec.linux() else { return out };
    let mut seen = 0;
    for (i, ns) in linux.namespaces().iter().flatten().enumerate() {
        let (kind, name) = flag(ns.typ());
        let at = format!("linux.namespaces[{i}]");
        if seen & kind != 0 {
            found.problem(
                &at,
                format!("the {name} namespace is named twice"),
                SECTION,
                "keep one of the two",
            );
        }
        seen |= kind;
        match ns.path() {
            None if !matches!(ns.typ(), Kind::Time | Kind::Cgroup) => out.new |= kind as u64,
            None => {}
            Some(path) if !path.is_absolute() => {
                found.problem(
                    format!("{at}.path"),
                    format!("{path:?} is not absolute"),
                    SECTION,
                    "write it from the root, such as /proc/1/ns/net",
                );
            }
            Some(path) => {
                let path = found.cstring(&at, path.as_os_str().as_encoded_bytes());
                let changed_by = crate::order::changes(spec, ns.typ());
                out.join.push(Join { kind, path, origin: format!("{at}.path"), changed_by });
            }
        }
    }
    out.join.sort_by_key(|j| rank(j.kind, host));
    out.time = time(spec, linux, found);
    out.maps = maps(spec, linux, host, found);
    out
}

fn time(spec: &Spec, linux: &Linux, found: &mut Findings) -> Option<String> {
    let new = asked(spec, Kind::Time);
    let mut text = String::new();
    for (clock, offset) in linux.time_offsets().iter().flatten() {
        let at = format!("linux.timeOffsets.{clock}");
        if new != Some(true) {
            found.problem(
                &at,
                "there is no new time namespace to set it in",
                "config-linux.md, Offset for Time Namespace",
                "add a namespace of type time without a path",
            );
        }
        if clock != "monotonic" && clock != "boottime" {
            found.problem(
                &at,
                "only monotonic and boottime have an offset",
                "time_namespaces(7)",
                "remove it",
            );
        }
        if offset.nanosecs().is_some_and(|n| n >= 1_000_000_000) {
            found.problem(
                format!("{at}.nanosecs"),
                format!("{} is a second or more", offset.nanosecs().unwrap_or(0)),
                "time_namespaces(7)",
                "write less than 1000000000, and the rest as secs",
            );
        }
        text += &format!("{clock} {} {}\n", offset.secs().unwrap_or(0), offset.nanosecs().unwrap_or(0));
    }
    (new == Some(true)).then_some(text)
}

pub(crate) fn lines(list: &[LinuxIdMapping], at: &str, found: &mut Findings) -> String {
    let mut text = String::new();
    for (i, m) in list.iter().enumerate() {
        let end = |start: u32| u64::from(start) + u64::from(m.size());
        if m.size() == 0 || end(m.host_id()).max(end(m.container_id())) > u64::from(u32::MAX) {
            found.problem(
                format!("{at}[{i}]"),
                format!("a range of {} ids does not fit", m.size()),
                "user_namespaces(7)",
                "correct the size",
            );
        }
        let clash = |a: (u32, u32), b: (u32, u32)| u64::from(a.0) < u64::from(b.0) + u64::from(b.1);
        let overlaps = |a, b| clash(a, b) && clash(b, a);
        let double = list[..i].iter().position(|o| {
            overlaps((o.container_id(), o.size()), (m.container_id(), m.size()))
                || overlaps((o.host_id(), o.size()), (m.host_id(), m.size()))
        });
        if let Some(other) = double {
            found.problem(
                format!("{at}[{i}]"),
                format!("has ids that {at}[{other}] has too"),
                "user_namespaces(7)",
                "let no range overlap another",
            );
        }
        text += &format!("{} {} {}\n", m.container_id(), m.host_id(), m.size());
    }
    text
}

/// What an id of the container is on the host.
pub(crate) fn on_host(id: u32, maps: &[LinuxIdMapping]) -> Option<u32> {
    let m = maps.iter().find(|m| id >= m.container_id() && id - m.container_id() < m.size())?;
    m.host_id().checked_add(id - m.container_id())
}

/// Whether setgroups(2) is given up in the container's user namespace: without CAP_SETGID the kernel takes a map of the
/// caller's own group only then. newgidmap(1) can map a range, and leaves it allowed. user_namespaces(7).
pub(crate) fn denies_setgroups(spec: &Spec, host: &Host) -> bool {
    let gids = spec.linux().as_ref().and_then(|l| l.gid_mappings().as_deref()).unwrap_or(&[]);
    let own = matches!(gids, [one] if one.size() == 1 && one.host_id() == host.egid);
    asked(spec, Kind::User).is_some() && own && host.capabilities & 1 << 6 == 0
}

fn maps(spec: &Spec, linux: &Linux, host: &Host, found: &mut Findings) -> Option<IdMaps> {
    let (uids, gids) =
        (linux.uid_mappings().as_deref().unwrap_or(&[]), linux.gid_mappings().as_deref().unwrap_or(&[]));
    let section = "config-linux.md, User namespace mappings";
    match asked(spec, Kind::User) {
        Some(true) => {
            for (list, at) in [(uids, "linux.uidMappings"), (gids, "linux.gidMappings")] {
                if list.is_empty() {
                    found.problem(
                        at,
                        "a new user namespace needs a map",
                        section,
                        "add one, such as {containerID: 0, hostID: 100000, size: 65536}",
                    );
                }
            }
            let deny_setgroups = denies_setgroups(spec, host);
            Some(IdMaps {
                uids: lines(uids, "linux.uidMappings", found),
                gids: lines(gids, "linux.gidMappings", found),
                deny_setgroups,
            })
        }
        Some(false) => None,
        None => {
            if !uids.is_empty() || !gids.is_empty() {
                found.problem(
                    "linux.uidMappings",
                    "there is no user namespace to map ids in",
                    section,
                    "add a namespace of type user",
                );
            }
            None
        }
    }
}

/// The namespaces of a running container, to be joined by way of its init. Those that the container shares with the host
/// are not named in its configuration.
pub(crate) fn of_init(
    spec: &Spec,
    host: &Host,
    init: i32,
    own_clocks: bool,
    found: &mut Findings,
) -> Namespaces {
    let mut out = Namespaces::default();
    for ns in spec.linux().iter().flat_map(|l| l.namespaces().iter().flatten()) {
        let (kind, _) = flag(ns.typ());
        let file = match ns.typ() {
            Kind::Mount => "mnt",
            Kind::Network => "net",
            _ => flag(ns.typ()).1,
        };
        let path = found.cstring("linux.namespaces", format!("/proc/{init}/ns/{file}"));
        out.join.push(Join { kind, path, origin: "linux.namespaces".into(), changed_by: None });
    }
    let time = coracle_sys::namespace::CLONE_NEWTIME;
    if own_clocks && out.join.iter().all(|j| j.kind != time) {
        let path = found.cstring("linux.namespaces", format!("/proc/{init}/ns/time"));
        out.join.push(Join { kind: time, path, origin: String::new(), changed_by: None });
    }
    out.join.sort_by_key(|j| rank(j.kind, host));
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Where newgidmap(1) would map the one id too, nothing else shows it: user_namespaces(7), Defining user and group ID mappings.
    #[test]
    fn who_may_map_one_group_alone_gives_setgroups_up() {
        let decided = |gids: &str, capabilities: u64| {
            let text = format!(
                r#"{{"ociVersion":"1.3.0","linux":{{"namespaces":[{{"type":"user"}}],"gidMappings":[{gids}],
                    "uidMappings":[{{"containerID":0,"hostID":1000,"size":1}}]}}}}"#
            );
            let (spec, _) = crate::config::parse(text.as_bytes()).expect("read");
            let host = Host { capabilities, euid: 1000, egid: 1000, ..Host::default() };
            let maps = maps(&spec, spec.linux().as_ref()?, &host, &mut Findings::default());
            maps.map(|maps| maps.deny_setgroups)
        };
        let own = r#"{"containerID":0,"hostID":1000,"size":1}"#;
        assert_eq!(decided(own, 0), Some(true));
        assert_eq!(decided(own, 1 << 6), Some(false), "with CAP_SETGID");
        let two = format!(r#"{own},{{"containerID":1,"hostID":100000,"size":9}}"#);
        assert_eq!(decided(&two, 0), Some(false), "more than one");
    }
}
