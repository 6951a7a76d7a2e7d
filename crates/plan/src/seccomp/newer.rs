//! ENOSYS for syscalls that are newer than the profile. A C library tries a new syscall first and falls back on ENOSYS; the
//! profile's default, such as EPERM, would be taken for the last word. What is newer: a number above all that the profile
//! names, for that architecture. So a few instructions stand before the filter proper.

use libseccomp::{ScmpArch, ScmpSyscall};
use oci_spec::runtime::LinuxSeccomp;

/// An instruction of classic BPF: code, jump if true, jump if false, operand. linux/filter.h, struct sock_filter.
type Insn = (u16, u8, u8, u32);

const LOAD_WORD: u16 = 0x20;
const JUMP_EQUAL: u16 = 0x15;
const JUMP_GREATER: u16 = 0x25;
const JUMP_IF_BITS: u16 = 0x45;
const RETURN: u16 = 0x06;

/// Where struct seccomp_data has the number and the architecture.
const NUMBER: u32 = 0;
const ARCHITECTURE: u32 = 4;

/// SECCOMP_RET_ERRNO with ENOSYS.
const NO_SUCH_CALL: u32 = 0x0005_0000 | 38;
/// What tells the calls of x32 from those of x86_64, which have the same architecture.
const X32_BIT: u32 = 0x4000_0000;

/// AUDIT_ARCH_* of linux/audit.h.
fn audit(arch: ScmpArch) -> Option<u32> {
    Some(match arch {
        ScmpArch::X86 => 0x4000_0003,
        ScmpArch::X8664 | ScmpArch::X32 => 0xc000_003e,
        ScmpArch::Arm => 0x4000_0028,
        ScmpArch::Aarch64 => 0xc000_00b7,
        ScmpArch::Loongarch64 => 0xc000_0102,
        ScmpArch::Mips => 0x08,
        ScmpArch::Mips64 => 0x8000_0008,
        ScmpArch::Mips64N32 => 0xa000_0008,
        ScmpArch::Mipsel => 0x4000_0008,
        ScmpArch::Mipsel64 => 0xc000_0008,
        ScmpArch::Mipsel64N32 => 0xe000_0008,
        ScmpArch::Ppc => 0x14,
        ScmpArch::Ppc64 => 0x8000_0015,
        ScmpArch::Ppc64Le => 0xc000_0015,
        ScmpArch::S390 => 0x16,
        ScmpArch::S390X => 0x8000_0016,
        ScmpArch::Parisc => 0x0f,
        ScmpArch::Parisc64 => 0x8000_000f,
        ScmpArch::Riscv64 => 0xc000_00f3,
        _ => return None,
    })
}

/// The instructions for a profile, as 8-byte records.
pub(super) fn prefix(profile: &LinuxSeccomp, listed: &[ScmpArch]) -> Vec<u8> {
    let native = ScmpArch::native();
    // The own one first, for most calls are of it, and also if the list leaves it out.
    let others = listed.iter().copied().filter(|a| *a != native && *a != ScmpArch::Native);
    let mut highest: Vec<(ScmpArch, u32)> = Vec::new();
    for arch in std::iter::once(native).chain(others) {
        let numbers = profile.syscalls().iter().flatten().flat_map(|rule| rule.names());
        let number = numbers.filter_map(|n| ScmpSyscall::from_name_by_arch(n, arch).ok());
        // Negative ones are libseccomp's own, for calls that this architecture does not have.
        let last = number.filter_map(|n| u32::try_from(i32::from(n)).ok()).max();
        highest.extend(last.filter(|_| !highest.iter().any(|(a, _)| *a == arch)).map(|n| (arch, n)));
    }
    bytes(&program(&highest))
}

fn program(highest: &[(ScmpArch, u32)]) -> Vec<Insn> {
    let mut sections = Vec::new();
    for &(arch, last) in highest {
        let Some(audit) = audit(arch) else { continue };
        let of_x32 = arch == ScmpArch::X32;
        let mut body = vec![(LOAD_WORD, 0, 0, NUMBER)];
        if audit == 0xc000_003e {
            // The other one's calls pass by these two instructions.
            body.push((JUMP_IF_BITS, if of_x32 { 0 } else { 2 }, if of_x32 { 2 } else { 0 }, X32_BIT));
        }
        if matches!(arch, ScmpArch::S390 | ScmpArch::S390X) {
            // setup(2) is what the kernel reports for numbers too large for the instruction that makes the call.
            body.extend([(JUMP_EQUAL, 0, 1, 0), (RETURN, 0, 0, NO_SUCH_CALL)]);
        }
        body.extend([(JUMP_GREATER, 0, 1, last), (RETURN, 0, 0, NO_SUCH_CALL)]);
        sections.push((audit, body));
    }
    let mut out = Vec::new();
    for (audit, body) in sections {
        out.extend([(LOAD_WORD, 0, 0, ARCHITECTURE), (JUMP_EQUAL, 0, body.len() as u8, audit)]);
        out.extend(body);
    }
    out
}

fn bytes(program: &[Insn]) -> Vec<u8> {
    let record = |(code, yes, no, k): &Insn| {
        let mut out = code.to_ne_bytes().to_vec();
        out.extend([*yes, *no]);
        out.extend(k.to_ne_bytes());
        out
    };
    program.iter().flat_map(record).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What the program returns for a call, `None` if it runs off its end into the filter proper.
    fn run(program: &[Insn], arch: u32, number: u32) -> Option<u32> {
        let (mut at, mut a) = (0, 0);
        while let Some(&(code, yes, no, k)) = program.get(at) {
            at += 1;
            let jump = |holds: bool| usize::from(if holds { yes } else { no });
            match code {
                LOAD_WORD => a = if k == NUMBER { number } else { arch },
                JUMP_EQUAL => at += jump(a == k),
                JUMP_GREATER => at += jump(a > k),
                JUMP_IF_BITS => at += jump(a & k != 0),
                _ => return Some(k),
            }
        }
        assert_eq!(at, program.len(), "a jump beyond the filter's begin");
        None
    }

    const AMD64: u32 = 0xc000_003e;
    const I386: u32 = 0x4000_0003;

    #[test]
    fn only_what_is_above_the_highest_is_unknown() {
        let program = program(&[(ScmpArch::X8664, 300), (ScmpArch::X86, 400)]);
        assert_eq!(run(&program, AMD64, 300), None);
        assert_eq!(run(&program, AMD64, 301), Some(NO_SUCH_CALL));
        assert_eq!(run(&program, I386, 301), None);
        assert_eq!(run(&program, I386, 401), Some(NO_SUCH_CALL));
        assert_eq!(run(&program, 0x28, 1000), None);
    }

    #[test]
    fn x32_has_a_highest_of_its_own() {
        let both = program(&[(ScmpArch::X8664, 300), (ScmpArch::X32, X32_BIT + 500)]);
        for (number, wanted) in [(300, None), (301, Some(NO_SUCH_CALL))] {
            assert_eq!(run(&both, AMD64, number), wanted, "{number}");
        }
        for (number, wanted) in [(X32_BIT + 301, None), (X32_BIT + 501, Some(NO_SUCH_CALL))] {
            assert_eq!(run(&both, AMD64, number), wanted, "{number:#x}");
        }
        // Not asked for: the filter proper refuses the architecture.
        let one = program(&[(ScmpArch::X8664, 300)]);
        assert_eq!(run(&one, AMD64, X32_BIT + 501), None);
    }

    #[test]
    fn setup_is_unknown_on_s390() {
        let program = program(&[(ScmpArch::S390X, 300)]);
        assert_eq!(run(&program, 0x8000_0016, 0), Some(NO_SUCH_CALL));
        assert_eq!(run(&program, 0x8000_0016, 1), None);
    }
}
