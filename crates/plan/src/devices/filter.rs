//! The rules as an eBPF program (BPF_PROG_TYPE_CGROUP_DEVICE): include/uapi/linux/bpf.h, Documentation/bpf. The last rule
//! that fits decides, so the program asks the last one first; what no rule names is denied. An access asked with several
//! bits needs all of them: an allowing rule must cover them, a denying rule need touch but one.
//!
//! Neighbours that agree in kind, access and major number share these tests: the kernel verifies each instruction.

use super::{ALL, Rule};
use coracle_sys::bpf::Insn;

/// Where a jump leads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Target {
    Verdict(bool),
    /// The place of this number in `Assembly::places`.
    Place(usize),
}

/// A program being written.
#[derive(Default)]
struct Assembly {
    code: Vec<Insn>,
    /// Instructions whose offset is still open.
    jumps: Vec<(usize, Target)>,
    places: Vec<usize>,
}

const LOAD: u8 = 0x61;
const MOVE: u8 = 0xbc;
const SET: u8 = 0xb4;
const AND: u8 = 0x54;
const SHIFT: u8 = 0x74;
const GO: u8 = 0x05;
const IF_EQUAL: u8 = 0x15;
const IF_NOT: u8 = 0x55;
const IF_NOT_REGISTER: u8 = 0x5d;
const EXIT: u8 = 0x95;

/// Registers: the context (later scratch), and the fields of struct bpf_cgroup_dev_ctx.
const SCRATCH: u8 = 1;
const KIND: u8 = 2;
const ACCESS: u8 = 3;
const MAJOR: u8 = 4;
const MINOR: u8 = 5;

impl Assembly {
    fn put(&mut self, code: u8, dst: u8, src: u8, off: i16, imm: i32) {
        self.code.push(Insn { code, regs: dst | src << 4, off, imm });
    }

    fn jump(&mut self, code: u8, register: u8, imm: i32, to: Target) {
        self.jumps.push((self.code.len(), to));
        let src = if code == IF_NOT_REGISTER { ACCESS } else { 0 };
        self.put(code, register, src, 0, imm);
    }

    /// A place to be settled later.
    fn place(&mut self) -> usize {
        self.places.push(usize::MAX);
        self.places.len() - 1
    }

    fn here(&mut self, place: usize) {
        self.places[place] = self.code.len();
    }

    /// The verdicts, as far as anything leads there (the verifier refuses dead code), and the offsets. `None` when a jump
    /// is too long for its field.
    fn finish(mut self, open: bool) -> Option<Vec<Insn>> {
        let mut at = [usize::MAX; 2];
        for verdict in [false, true] {
            if (!verdict && open) || self.jumps.iter().any(|(_, t)| *t == Target::Verdict(verdict)) {
                at[usize::from(verdict)] = self.code.len();
                self.put(SET, 0, 0, 0, i32::from(verdict));
                self.put(EXIT, 0, 0, 0, 0);
            }
        }
        for (from, target) in &self.jumps {
            let to = match target {
                Target::Verdict(allow) => at[usize::from(*allow)],
                Target::Place(place) => self.places[*place],
            };
            self.code[*from].off = i16::try_from(to - from - 1).ok()?;
        }
        Some(self.code)
    }
}

/// The program; empty when everything is allowed, for which none is needed; `None` when there are too many rules.
pub(crate) fn program(rules: &[Rule]) -> Option<Vec<Insn>> {
    let all = |r: &&Rule| r.kind.is_none() && r.major.is_none() && r.minor.is_none() && r.access == ALL;
    // What stands before a rule for everything never counts.
    let first = rules.iter().rposition(|r| all(&r)).unwrap_or(0);
    let mut left: Vec<Rule> = rules[first..].iter().rev().copied().collect();
    let whole = left.last().copied().filter(|r| all(&r));
    left.truncate(left.len() - usize::from(whole.is_some()));
    let otherwise = whole.is_some_and(|r| r.allow);
    if otherwise && left.iter().all(|r| r.allow) {
        return Some(Vec::new());
    }
    let mut out = Assembly::default();
    // access_type holds the access in its high, the kind in its low 16 bits.
    out.put(LOAD, KIND, SCRATCH, 0, 0);
    out.put(MOVE, ACCESS, KIND, 0, 0);
    out.put(AND, KIND, 0, 0, 0xffff);
    out.put(SHIFT, ACCESS, 0, 0, 16);
    out.put(LOAD, MAJOR, SCRATCH, 4, 0);
    out.put(LOAD, MINOR, SCRATCH, 8, 0);
    for run in left.chunk_by(|a, b| (a.kind, a.allow) == (b.kind, b.allow)) {
        of_a_kind(run, &mut out);
    }
    if otherwise {
        out.jump(GO, 0, 0, Target::Verdict(true));
    }
    out.finish(!otherwise)
}

/// Rules of one kind and verdict.
fn of_a_kind(run: &[Rule], out: &mut Assembly) {
    let end = out.place();
    if let Some(kind) = run[0].kind {
        out.jump(IF_NOT, KIND, if kind == 'b' { 1 } else { 2 }, Target::Place(end));
    }
    for same in run.chunk_by(|a, b| a.access == b.access) {
        let next = out.place();
        let (access, allow) = (same[0].access, same[0].allow);
        if access != ALL {
            out.put(MOVE, SCRATCH, ACCESS, 0, 0);
            out.put(AND, SCRATCH, 0, 0, i32::from(access));
            // All that is asked for must be allowed; any of it may be forbidden.
            let test = if allow { IF_NOT_REGISTER } else { IF_EQUAL };
            out.jump(test, SCRATCH, 0, Target::Place(next));
        }
        let decided = numbers(same, out);
        out.here(next);
        if decided && access == ALL {
            break; // nothing of this kind comes past here
        }
    }
    out.here(end);
}

/// Rules that differ in their numbers only. Returns whether one of them took everything.
fn numbers(rules: &[Rule], out: &mut Assembly) -> bool {
    let verdict = Target::Verdict(rules[0].allow);
    for same in rules.chunk_by(|a, b| a.major == b.major) {
        let whole = same.iter().any(|r| r.minor.is_none());
        match same[0].major {
            None if whole => {
                out.jump(GO, 0, 0, verdict);
                return true;
            }
            Some(major) if whole => out.jump(IF_EQUAL, MAJOR, major as i32, verdict),
            major => {
                let next = out.place();
                if let Some(major) = major {
                    out.jump(IF_NOT, MAJOR, major as i32, Target::Place(next));
                }
                for minor in same.iter().filter_map(|r| r.minor) {
                    out.jump(IF_EQUAL, MINOR, minor as i32, verdict);
                }
                out.here(next);
            }
        }
    }
    false
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::devices::{MKNOD, READ, WRITE, rules_of};
    use crate::problem::Findings;

    /// The rules read literally.
    fn literally(rules: &[Rule], kind: char, access: u8, major: u32, minor: u32) -> bool {
        let fits = |r: &&Rule| {
            r.kind.is_none_or(|k| k == kind)
                && r.major.is_none_or(|n| n == major)
                && r.minor.is_none_or(|n| n == minor)
                && if r.allow { access & !r.access == 0 } else { access & r.access != 0 }
        };
        rules.iter().rev().find(fits).is_some_and(|r| r.allow)
    }

    /// Runs the program as the kernel would; notes which instructions were reached.
    fn run(code: &[Insn], seen: &mut [bool], kind: char, access: u8, major: u32, minor: u32) -> bool {
        let context = [u32::from(access) << 16 | if kind == 'b' { 1 } else { 2 }, major, minor];
        let (mut r, mut at) = ([0u32; 6], 0usize);
        loop {
            let i = code[at];
            seen[at] = true;
            let (dst, src) = (usize::from(i.regs & 15), usize::from(i.regs >> 4));
            let mut taken = false;
            match i.code {
                LOAD => r[dst] = context[i.off as usize / 4],
                MOVE => r[dst] = r[src],
                SET => r[dst] = i.imm as u32,
                AND => r[dst] &= i.imm as u32,
                SHIFT => r[dst] >>= i.imm,
                GO => taken = true,
                IF_EQUAL => taken = r[dst] == i.imm as u32,
                IF_NOT => taken = r[dst] != i.imm as u32,
                IF_NOT_REGISTER => taken = r[dst] != r[src],
                EXIT => return r[0] == 1,
                other => panic!("{other:#x}"),
            }
            at = at + 1 + if taken { i.off as usize } else { 0 };
        }
    }

    fn check(rules: &[Rule]) {
        let code = program(rules).expect("short");
        let mut seen = vec![false; code.len()];
        for kind in ['b', 'c'] {
            for access in [READ, WRITE, MKNOD, READ | WRITE, ALL] {
                for (major, minor) in [(1, 3), (1, 11), (5, 0), (5, 3), (136, 9), (8, 0), (8, 1), (2, 2)] {
                    let want = literally(rules, kind, access, major, minor);
                    let got = code.is_empty() || run(&code, &mut seen, kind, access, major, minor);
                    assert_eq!(got, want, "{kind} {major}:{minor} {access}: {rules:?}");
                }
            }
        }
    }

    #[test]
    fn programs_say_what_their_rules_say() {
        let mut seed = 12345u32;
        let mut dice = |n: u32| {
            seed = seed.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (seed >> 16) % n
        };
        for _ in 0..3000 {
            let mut rules = Vec::new();
            for _ in 0..dice(8) {
                rules.push(Rule {
                    allow: dice(2) == 0,
                    kind: [None, Some('b'), Some('c')][dice(3) as usize],
                    major: [None, Some(1), Some(5), Some(8)][dice(4) as usize],
                    minor: [None, Some(0), Some(3), Some(11)][dice(4) as usize],
                    access: [ALL, READ, WRITE, MKNOD, READ | WRITE][dice(5) as usize],
                });
            }
            check(&rules);
        }
    }

    #[test]
    fn the_default_rules_are_short_and_a_rule_for_everything_needs_no_program() {
        let mut found = Findings::default();
        let code = program(&rules_of(&[], &mut found)).expect("short");
        assert!(code.len() <= 30, "{} instructions", code.len());
        let all: Vec<_> = serde_json::from_str(r#"[{"allow":true,"access":"rwm"}]"#).expect("list");
        assert_eq!(program(&rules_of(&all, &mut found)), Some(Vec::new()));
    }
}
