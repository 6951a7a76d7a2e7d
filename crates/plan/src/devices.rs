//! Device nodes, and which devices may be used: config-linux.md, Default Devices, Devices, Allowed Device list; config.md,
//! /dev symbolic links. What the rules become: an eBPF program of v2 (`filter`), lines of v1's files, systemd's properties.

mod filter;

use crate::creds::{check_id, on_host};
use crate::problem::Findings;
use crate::steps::{Device, IdMaps, Node};
use coracle_sys::{bpf::Insn, libc};
use coracle_systemd::{Property, Value};
use oci_spec::runtime::{LinuxDeviceCgroup, LinuxDeviceType as Type, Spec};

/// runtime-linux.md, Dev symbolic links: where, target.
pub(crate) const LINKS: [(&str, &str); 4] = [
    ("dev/fd", "/proc/self/fd"),
    ("dev/stdin", "/proc/self/fd/0"),
    ("dev/stdout", "/proc/self/fd/1"),
    ("dev/stderr", "/proc/self/fd/2"),
];

const DEFAULT: [(&str, u32, u32); 6] = [
    ("dev/null", 1, 3),
    ("dev/zero", 1, 5),
    ("dev/full", 1, 7),
    ("dev/random", 1, 8),
    ("dev/urandom", 1, 9),
    ("dev/tty", 5, 0),
];

/// What decides where nodes come from.
pub(crate) struct Nodes<'a> {
    /// Whether the container's root is in a user namespace.
    pub(crate) user_namespace: bool,
    /// The maps of that namespace, when the parent may make nodes for it.
    pub(crate) given: Option<&'a IdMaps>,
}

/// Decides the nodes: the listed ones, and the default ones that the list does not name.
pub(crate) fn plan(spec: &Spec, nodes: &Nodes, found: &mut Findings) -> Vec<(Device, String)> {
    let mut out = Vec::new();
    for (i, d) in spec.linux().as_ref().and_then(|l| l.devices().as_ref()).into_iter().flatten().enumerate() {
        let at = format!("linux.devices[{i}]");
        let kind = match d.typ() {
            Type::C | Type::U => libc::S_IFCHR,
            Type::B => libc::S_IFBLK,
            Type::P => libc::S_IFIFO,
            Type::A => {
                found.problem(
                    format!("{at}.type"),
                    "a is not a type of device file",
                    "config-linux.md, Devices",
                    "use c, b, u or p",
                );
                continue;
            }
        };
        if !d.path().is_absolute() {
            found.problem(
                format!("{at}.path"),
                format!("{:?} is not absolute", d.path()),
                "config-linux.md, Devices",
                "write it from the root, such as /dev/fuse",
            );
        }
        if kind != libc::S_IFIFO && (d.major(), d.minor()) == (0, 0) {
            found.problem(
                &at,
                "has no major and minor number",
                "config-linux.md, Devices",
                "add them, such as major 1, minor 3",
            );
        }
        // The kernel has 12 bits for the one and 20 for the other: include/linux/kdev_t.h.
        let mut number = |n: i64, most: u32, name: &str| {
            let fits = u32::try_from(n).ok().filter(|n| *n <= most);
            if fits.is_none() {
                found.problem(
                    format!("{at}.{name}"),
                    format!("{n} is not from 0 to {most}"),
                    "config-linux.md, Devices",
                    "write the number that ls -l shows for the device",
                );
            }
            fits.unwrap_or(0)
        };
        let (major, minor) = (number(d.major(), 0xfff, "major"), number(d.minor(), 0xf_ffff, "minor"));
        let mode = d.file_mode().unwrap_or(0o666);
        // Engines copy st_mode, with the kind of the file in it: inode(7).
        if mode > 0o177_777 {
            found.problem(
                format!("{at}.fileMode"),
                format!("{mode} is no file mode"),
                "config-linux.md, Devices",
                "write it in decimal, such as 438 for octal 0666",
            );
        }
        let (node, maps) = match nodes.given {
            _ if !nodes.user_namespace || kind == libc::S_IFIFO => (Node::Made, None),
            Some(maps) => (Node::Given, Some(maps)),
            None => (Node::Bound, None),
        };
        let mut owner = |id: Option<u32>, name: &str, map: fn(&IdMaps) -> &str| {
            let id = id.unwrap_or(0);
            check_id(&format!("{at}.{name}"), id, found);
            maps.map_or(id, |maps| on_host(&format!("{at}.{name}"), id, map(maps), found))
        };
        let (uid, gid) = (owner(d.uid(), "uid", |m| &m.uids), owner(d.gid(), "gid", |m| &m.gids));
        out.push((
            Device {
                path: found.cstring(&at, crate::mounts::inside(d.path())),
                kind,
                major,
                minor,
                mode: mode & 0o7777,
                uid,
                gid,
                node,
            },
            at,
        ));
    }
    let node = if nodes.user_namespace { Node::Bound } else { Node::Made };
    for (path, major, minor) in DEFAULT {
        if !out.iter().any(|(d, _)| d.path.to_bytes() == path.as_bytes()) {
            let path = found.cstring("", path);
            out.push((
                Device { path, kind: libc::S_IFCHR, major, minor, mode: 0o666, uid: 0, gid: 0, node },
                String::new(),
            ));
        }
    }
    out
}

/// One rule of the filter; `None` is any.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Rule {
    allow: bool,
    kind: Option<char>,
    major: Option<u32>,
    minor: Option<u32>,
    access: u8,
}

const READ: u8 = 2;
const WRITE: u8 = 4;
const MKNOD: u8 = 1;
const ALL: u8 = READ | WRITE | MKNOD;

/// Everything is forbidden to begin with, as it would be by hand in most lists.
const NOTHING: Rule = Rule { allow: false, kind: None, major: None, minor: None, access: ALL };

/// Kind, major, minor, access of a rule that allows.
type Allowed = (Option<char>, Option<u32>, Option<u32>, u8);

/// What every container may use, whatever the list says: the default devices, ptys, /dev/net/tun (which takes
/// CAP_NET_ADMIN, and which engines count on), and making (not opening) any node.
const ALWAYS: [Allowed; 10] = [
    (None, None, None, MKNOD),
    (Some('c'), Some(1), Some(3), ALL),
    (Some('c'), Some(1), Some(5), ALL),
    (Some('c'), Some(1), Some(7), ALL),
    (Some('c'), Some(1), Some(8), ALL),
    (Some('c'), Some(1), Some(9), ALL),
    (Some('c'), Some(5), Some(0), ALL),
    (Some('c'), Some(5), Some(2), ALL),
    (Some('c'), Some(10), Some(200), ALL),
    (Some('c'), Some(136), None, ALL),
];

fn rule(d: &LinuxDeviceCgroup, at: &str, found: &mut Findings) -> Rule {
    let kind = match d.typ() {
        None | Some(Type::A) => None,
        Some(Type::B) => Some('b'),
        Some(Type::C | Type::U) => Some('c'),
        Some(Type::P) => {
            found.problem(
                format!("{at}.type"),
                "p has no device number to filter",
                "config-linux.md, Allowed Device list",
                "use a, b or c",
            );
            None
        }
    };
    let mut access = 0;
    for letter in d.access().as_deref().filter(|a| !a.is_empty()).unwrap_or("rwm").chars() {
        access |= match letter {
            'r' => READ,
            'w' => WRITE,
            'm' => MKNOD,
            // All, where a list was written by hand after v1's own files.
            'a' => ALL,
            _ => {
                found.problem(
                    format!("{at}.access"),
                    format!("{letter:?} is not an access"),
                    "config-linux.md, Allowed Device list",
                    "use r, w and m",
                );
                0
            }
        };
    }
    let major = number(d.major(), &format!("{at}.major"), found);
    let minor = number(d.minor(), &format!("{at}.minor"), found);
    Rule { allow: d.allow(), kind, major, minor, access }
}

/// An absent number stands for all, and so does -1, as programs in Go write it. Another that no device can have must not
/// become that.
fn number(n: Option<i64>, at: &str, found: &mut Findings) -> Option<u32> {
    let n = n.filter(|n| *n != -1)?;
    let small = u32::try_from(n);
    if small.is_err() {
        found.problem(
            at,
            format!("{n} is no device number"),
            "config-linux.md, Allowed Device list",
            "write that of a device, or leave it out for all",
        );
    }
    small.ok()
}

/// The rules in force, the last that fits decides. Without a list nothing but the default devices may be used, as with runc:
/// else a container with CAP_MKNOD could read the host's disks.
pub(crate) fn rules(spec: &Spec, found: &mut Findings) -> Vec<Rule> {
    let resources = spec.linux().as_ref().and_then(|l| l.resources().as_ref());
    rules_of(resources.and_then(|r| r.devices().as_deref()).unwrap_or_default(), found)
}

/// Whether such a list says more than an empty one: engines always begin with a rule that forbids everything.
pub(crate) fn asked(rules: &[Rule]) -> bool {
    rules[..rules.len() - ALWAYS.len()].iter().any(|rule| *rule != NOTHING)
}

/// The rules of a list.
pub(crate) fn rules_of(list: &[LinuxDeviceCgroup], found: &mut Findings) -> Vec<Rule> {
    let mut out = vec![NOTHING];
    for (i, d) in list.iter().enumerate() {
        out.push(rule(d, &format!("linux.resources.devices[{i}]"), found));
    }
    out.extend(ALWAYS.map(|(kind, major, minor, access)| Rule { allow: true, kind, major, minor, access }));
    out
}

/// The rules as a program of v2; empty when everything is allowed.
pub(crate) fn filter_or_problem(rules: &[Rule], found: &mut Findings) -> Option<Vec<Insn>> {
    let program = filter::program(rules);
    if program.is_none() {
        found.problem(
            "linux.resources.devices",
            "are more rules than a filter can hold",
            "config-linux.md, Allowed Device list",
            "join some with wildcards",
        );
    }
    program
}

fn letters(access: u8) -> String {
    [(READ, 'r'), (WRITE, 'w'), (MKNOD, 'm')].iter().filter(|(b, _)| access & b != 0).map(|p| p.1).collect()
}

/// Lines for v1's devices.allow and devices.deny, in order.
pub(crate) fn lines(rules: &[Rule]) -> Vec<(bool, String)> {
    let star = |n: Option<u32>| n.map_or("*".into(), |n| n.to_string());
    let mut out = Vec::new();
    for r in rules {
        if r.kind.is_none() && r.major.is_none() && r.minor.is_none() && r.access == ALL {
            out.push((r.allow, "a".into()));
            continue;
        }
        // v1 takes `a` for all accesses of all devices, whatever stands after it.
        for kind in r.kind.map_or(vec!['b', 'c'], |k| vec![k]) {
            out.push((r.allow, format!("{kind} {}:{} {}", star(r.major), star(r.minor), letters(r.access))));
        }
    }
    out
}

/// The rules as systemd has them: all is forbidden, or all allowed, and then exceptions that allow. DevicePolicy=,
/// DeviceAllow= of systemd.resource-control(5). What cannot be said so is a problem: systemd would write its own idea of
/// the rules over the right ones at its next reload.
pub(crate) fn systemd_rules(rules: &[Rule], found: &mut Findings) -> Vec<Property> {
    let mut allowed: Vec<Rule> = Vec::new();
    let mut everything = false;
    for r in rules {
        match r {
            Rule { kind: None, major: None, minor: None, access: ALL, allow } => {
                (everything, allowed) = (*allow, Vec::new());
            }
            Rule { allow: true, .. } => allowed.push(*r),
            Rule { allow: false, .. } => {
                let same = |a: &Rule| (a.kind, a.major, a.minor) == (r.kind, r.major, r.minor);
                let overlaps = |a: &Rule| {
                    let touch = |x: Option<u32>, y: Option<u32>| x.is_none() || y.is_none() || x == y;
                    (a.kind.is_none() || r.kind.is_none() || a.kind == r.kind)
                        && touch(a.major, r.major)
                        && touch(a.minor, r.minor)
                        && a.access & r.access != 0
                };
                if everything || allowed.iter().any(|a| overlaps(a) && !same(a)) {
                    found.problem(
                        "linux.resources.devices",
                        "systemd cannot forbid single devices on cgroup v1",
                        "systemd.resource-control(5), DeviceAllow=",
                        "allow what is needed after forbidding all, or leave --systemd-cgroup out",
                    );
                }
                allowed.iter_mut().filter(|a| same(a)).for_each(|a| a.access &= !r.access);
                allowed.retain(|a| a.access != 0);
            }
        }
    }
    let policy = if everything { "auto" } else { "strict" };
    let list = if everything { Vec::new() } else { allowed.iter().flat_map(device_allow).collect() };
    vec![
        // The empty list first: it takes back what an update finds.
        ("DeviceAllow".into(), Value::Array("(ss)".into(), Vec::new())),
        ("DevicePolicy".into(), Value::str(policy)),
        ("DeviceAllow".into(), Value::Array("(ss)".into(), list)),
    ]
}

fn device_allow(r: &Rule) -> Vec<Value> {
    let entry = |kind: char| {
        let word = if kind == 'b' { "block" } else { "char" };
        let path = match (r.major, r.minor) {
            (Some(major), Some(minor)) => format!("/dev/{word}/{major}:{minor}"),
            (Some(major), None) => format!("{word}-{major}"),
            _ => format!("{word}-*"),
        };
        Value::Struct(vec![Value::Str(path), Value::Str(letters(r.access))])
    };
    r.kind.map_or(vec!['b', 'c'], |k| vec![k]).into_iter().map(entry).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn systemd_is_told_what_stays_allowed() {
        let rule = |allow, minor: Option<u32>| Rule {
            allow,
            kind: minor.map(|_| 'c'),
            major: minor.map(|_| 1),
            minor,
            access: ALL,
        };
        let mut found = Findings::default();
        let list = [
            rule(true, Some(3)),
            rule(false, None),
            rule(true, Some(5)),
            rule(true, Some(7)),
            rule(false, Some(7)),
        ];
        let told = systemd_rules(&list, &mut found);
        let entry = Value::Struct(vec![Value::str("/dev/char/1:5"), Value::str("rwm")]);
        let devices = |list| ("DeviceAllow".to_owned(), Value::Array("(ss)".into(), list));
        let strict = ("DevicePolicy".to_owned(), Value::str("strict"));
        assert_eq!((told, found.problems.len()), (vec![devices(vec![]), strict, devices(vec![entry])], 0));
        let list = [rule(true, None), rule(false, Some(5))];
        systemd_rules(&list, &mut found);
        assert_eq!(found.problems.len(), 1, "all but one cannot be said");
    }
}
