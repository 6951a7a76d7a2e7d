//! Device nodes and the device filter: config-linux.md, Default Devices, Devices, Allowed Device list; config.md, /dev symbolic links.

use crate::problem::Findings;
use crate::steps::Device;
use coracle_sys::bpf::Insn;
use coracle_sys::libc;
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

/// Decides the nodes: the listed ones, and the default ones that the list does not name.
pub(crate) fn plan(spec: &Spec, bind: bool, found: &mut Findings) -> Vec<(Device, String)> {
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
        let number = |n: i64| u32::try_from(n).unwrap_or(0);
        out.push((
            Device {
                path: found.cstring(&at, crate::mounts::inside(d.path())),
                kind,
                major: number(d.major()),
                minor: number(d.minor()),
                mode: d.file_mode().unwrap_or(0o666) & 0o7777,
                uid: d.uid().unwrap_or(0),
                gid: d.gid().unwrap_or(0),
                bind,
            },
            at,
        ));
    }
    for (path, major, minor) in DEFAULT {
        if !out.iter().any(|(d, _)| d.path.to_bytes() == path.as_bytes()) {
            let path = found.cstring("", path);
            out.push((
                Device { path, kind: libc::S_IFCHR, major, minor, mode: 0o666, uid: 0, gid: 0, bind },
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

/// Kind, major, minor, access of a rule that allows.
type Allowed = (Option<char>, Option<u32>, Option<u32>, u8);

/// What every container may use, whatever the list says: the default devices, ptys, and making (not opening) any node.
const ALWAYS: [Allowed; 10] = [
    (Some('c'), None, None, MKNOD),
    (Some('b'), None, None, MKNOD),
    (Some('c'), Some(1), Some(3), 7),
    (Some('c'), Some(1), Some(8), 7),
    (Some('c'), Some(1), Some(7), 7),
    (Some('c'), Some(5), Some(0), 7),
    (Some('c'), Some(1), Some(5), 7),
    (Some('c'), Some(1), Some(9), 7),
    (Some('c'), Some(136), None, 7),
    (Some('c'), Some(5), Some(2), 7),
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
    let number = |n: Option<i64>| n.and_then(|n| u32::try_from(n).ok());
    let mut access = 0;
    for letter in d.access().as_deref().unwrap_or("rwm").chars() {
        access |= match letter {
            'r' => READ,
            'w' => WRITE,
            'm' => MKNOD,
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
    Rule { allow: d.allow(), kind, major: number(d.major()), minor: number(d.minor()), access }
}

/// The rules in force, later ones first decisive; `None` when config.json has no list.
pub(crate) fn rules(spec: &Spec, found: &mut Findings) -> Option<Vec<Rule>> {
    let list = spec.linux().as_ref()?.resources().as_ref()?.devices().as_ref()?;
    let mut out: Vec<Rule> = list
        .iter()
        .enumerate()
        .map(|(i, d)| rule(d, &format!("linux.resources.devices[{i}]"), found))
        .collect();
    out.extend(ALWAYS.iter().map(|&(kind, major, minor, access)| Rule {
        allow: true,
        kind,
        major,
        minor,
        access,
    }));
    Some(out)
}

/// Lines for v1's devices.allow and devices.deny, in order.
pub(crate) fn lines(rules: &[Rule]) -> Vec<(bool, String)> {
    let star = |n: Option<u32>| n.map_or("*".into(), |n| n.to_string());
    rules
        .iter()
        .map(|r| {
            let access: String = [(READ, 'r'), (WRITE, 'w'), (MKNOD, 'm')]
                .iter()
                .filter(|(b, _)| r.access & b != 0)
                .map(|p| p.1)
                .collect();
            let whole = r.kind.is_none() && r.major.is_none() && r.minor.is_none() && r.access == 7;
            (
                r.allow,
                if whole {
                    "a".into()
                } else {
                    format!("{} {}:{} {access}", r.kind.unwrap_or('a'), star(r.major), star(r.minor))
                },
            )
        })
        .collect()
}

/// The filter as an eBPF program (BPF_PROG_TYPE_CGROUP_DEVICE). The last rule that matches decides, so the program asks
/// the last one first; what no rule names is denied. An access asked with several bits needs all of them: an allowing
/// rule must cover them, a denying rule need touch but one. The context is struct bpf_cgroup_dev_ctx.
pub(crate) fn program(rules: &[Rule]) -> Vec<Insn> {
    let insn = |code: u8, dst: u8, src: u8, off: i16, imm: i32| Insn { code, regs: dst | src << 4, off, imm };
    let load = |dst: u8, at: i16| insn(0x61, dst, 1, at, 0);
    // r2 type, r3 access, r4 major, r5 minor: access_type holds the access in its high, the type in its low 16 bits.
    let mut out = vec![
        load(2, 0),
        insn(0xbc, 3, 2, 0, 0),
        insn(0x54, 2, 0, 0, 0xffff),
        insn(0x74, 3, 0, 0, 16),
        load(4, 4),
        load(5, 8),
    ];
    for r in rules.iter().rev() {
        let mut tests = Vec::new();
        if let Some(kind) = r.kind {
            tests.push(insn(0x55, 2, 0, 0, if kind == 'b' { 1 } else { 2 }));
        }
        if r.access != 7 {
            // 32-bit: r1 = r3 & mask, then compare. r1 (the context) is no longer needed.
            tests.push(insn(0xbc, 1, 3, 0, 0));
            tests.push(insn(0x54, 1, 0, 0, i32::from(r.access)));
            tests.push(if r.allow { insn(0x5d, 1, 3, 0, 0) } else { insn(0x15, 1, 0, 0, 0) });
        }
        for (register, number) in [(4, r.major), (5, r.minor)] {
            if let Some(n) = number {
                tests.push(insn(0x55, register, 0, 0, n as i32));
            }
        }
        let length = tests.len() + 2;
        for (i, test) in tests.iter_mut().enumerate() {
            if test.code & 0x07 == 0x05 {
                test.off = (length - i - 1) as i16; // to the next rule
            }
        }
        out.extend(tests);
        out.extend([insn(0xb4, 0, 0, 0, i32::from(r.allow)), insn(0x95, 0, 0, 0, 0)]);
        if length == 2 {
            return out; // matches everything: what comes before it in the list never counts
        }
    }
    out.extend([insn(0xb4, 0, 0, 0, 0), insn(0x95, 0, 0, 0, 0)]);
    out
}
