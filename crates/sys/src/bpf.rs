//! bpf(2), as far as device programs of cgroup v2 need it: load, attach, replace, detach, find. Linux 4.15.
//!
//! Attach flags and types: include/uapi/linux/bpf.h. Several kernels (6.17 to 7.1) write fields of `union bpf_attr` that
//! the caller's size does not cover; so the union here is zeroed and larger than any kernel's.

use crate::{Result, own, syscall};
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd};

/// One eBPF instruction: struct bpf_insn.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(C)]
pub struct Insn {
    /// Operation.
    pub code: u8,
    /// Destination register in the low, source register in the high four bits.
    pub regs: u8,
    /// Jump or memory offset.
    pub off: i16,
    /// Immediate value.
    pub imm: i32,
}

/// union bpf_attr, in words. 256 bytes, where Linux 6.18 has 168: the rest is room for kernels to come.
type Attr = [u64; 32];

/// `int bpf(int cmd, union bpf_attr *attr, unsigned int size)`.
///
/// # Safety
/// Every word of `attr` that the command takes for a pointer must be one, valid for what the command does through it.
unsafe fn bpf(command: u32, attr: *mut Attr) -> Result<usize> {
    // SAFETY: attr is a whole zero-filled union, larger than the kernel's; the caller vouches for the pointers in it.
    unsafe { syscall!(libc::SYS_bpf, command, attr, size_of::<Attr>()) }
}

const PROG_LOAD: u32 = 5;
const PROG_ATTACH: u32 = 8;
const PROG_DETACH: u32 = 9;
const PROG_GET_FD_BY_ID: u32 = 13;
const OBJ_GET_INFO_BY_FD: u32 = 15;
const PROG_QUERY: u32 = 16;

const TYPE_CGROUP_DEVICE: u32 = 15;
const ATTACH_DEVICE: u32 = 6;
const ALLOW_MULTI: u32 = 2;

/// The name that programs loaded here have in the kernel: at most 15 letters, digits and underscores.
pub const NAME: &str = "coracle_devices";

/// [`NAME`] as prog_name[16] takes it, in words.
fn name_words() -> [u64; 2] {
    let mut bytes = [0u8; 16];
    bytes[..NAME.len()].copy_from_slice(NAME.as_bytes());
    let (low, high) = bytes.split_at(8);
    [low, high].map(|half| half.iter().rev().fold(0, |word, byte| word << 8 | u64::from(*byte)).to_le())
}

/// A pair of 32-bit fields that stand side by side in bpf_attr, in memory order.
fn pair(first: u32, second: u32) -> u64 {
    let (a, b) = (first.to_ne_bytes(), second.to_ne_bytes());
    u64::from_ne_bytes([a[0], a[1], a[2], a[3], b[0], b[1], b[2], b[3]])
}

fn first_of_pair(both: u64) -> u32 {
    let b = both.to_ne_bytes();
    u32::from_ne_bytes([b[0], b[1], b[2], b[3]])
}

fn load(program: &[Insn], log: &mut [u8]) -> Result<OwnedFd> {
    let license = c"Apache-2.0";
    let mut attr: Attr = [0; 32];
    attr[0] = pair(TYPE_CGROUP_DEVICE, program.len() as u32);
    attr[1] = program.as_ptr() as u64;
    attr[2] = license.as_ptr() as u64;
    attr[6..8].copy_from_slice(&name_words());
    if !log.is_empty() {
        attr[3] = pair(1, log.len() as u32); // log_level, log_size
        attr[4] = log.as_mut_ptr() as u64;
    }
    // SAFETY: words 1, 2 and 4 point at as many instructions as is said, a terminated string, and a buffer of the size said.
    unsafe { bpf(PROG_LOAD, &mut attr) }.map(own)
}

/// BPF_PROG_LOAD of a cgroup device program. Errors: EPERM without CAP_BPF and CAP_NET_ADMIN (or CAP_SYS_ADMIN), E2BIG
/// for too many instructions, EINVAL or EACCES when the verifier refuses ([`verifier_log`] tells why).
pub fn load_device_program(program: &[Insn]) -> Result<OwnedFd> {
    load(program, &mut [])
}

/// What the kernel's verifier says of a program that [`load_device_program`] refused, its last 64 KiB at most.
pub fn verifier_log(program: &[Insn]) -> String {
    let mut log = vec![0u8; 64 * 1024];
    let _ = load(program, &mut log);
    let end = log.iter().position(|byte| *byte == 0).unwrap_or(log.len());
    String::from_utf8_lossy(&log[..end]).into_owned()
}

/// BPF_PROG_ATTACH to a cgroup v2 directory, beside what is attached already (all must allow).
/// Errors: EBADF for a descriptor that is no cgroup v2 directory.
pub fn attach_device_program(cgroup: BorrowedFd, program: BorrowedFd) -> Result<()> {
    let mut attr: Attr = [0; 32];
    attr[0] = pair(cgroup.as_raw_fd() as u32, program.as_raw_fd() as u32);
    attr[1] = pair(ATTACH_DEVICE, ALLOW_MULTI);
    // SAFETY: this command takes no pointer.
    unsafe { bpf(PROG_ATTACH, &mut attr) }.map(drop)
}

/// BPF_PROG_DETACH from a cgroup v2 directory. Errors: ENOENT when it is not attached there.
pub fn detach_device_program(cgroup: BorrowedFd, program: BorrowedFd) -> Result<()> {
    let mut attr: Attr = [0; 32];
    attr[0] = pair(cgroup.as_raw_fd() as u32, program.as_raw_fd() as u32);
    attr[1] = pair(ATTACH_DEVICE, 0);
    // SAFETY: this command takes no pointer.
    unsafe { bpf(PROG_DETACH, &mut attr) }.map(drop)
}

/// BPF_PROG_QUERY: ids of the device programs attached to a cgroup v2 directory itself, in the order in which they run.
/// Errors: ENOSPC for more than 64, which is also the kernel's own limit.
pub fn device_programs(cgroup: BorrowedFd) -> Result<Vec<u32>> {
    let mut ids = [0u32; 64];
    let mut attr: Attr = [0; 32];
    attr[0] = pair(cgroup.as_raw_fd() as u32, ATTACH_DEVICE);
    attr[2] = ids.as_mut_ptr() as u64;
    attr[3] = pair(ids.len() as u32, 0);
    // SAFETY: word 2 points at room for as many ids as word 3 says; no other word is a pointer.
    unsafe { bpf(PROG_QUERY, &mut attr) }?;
    let count = first_of_pair(attr[3]) as usize;
    Ok(ids[..count.min(ids.len())].to_vec())
}

/// BPF_PROG_GET_FD_BY_ID, close-on-exec. Errors: EPERM without CAP_SYS_ADMIN, ENOENT when there is none of that id (any more).
pub fn program_by_id(id: u32) -> Result<OwnedFd> {
    let mut attr: Attr = [0; 32];
    attr[0] = pair(id, 0);
    // SAFETY: this command takes no pointer.
    unsafe { bpf(PROG_GET_FD_BY_ID, &mut attr) }.map(own)
}

/// BPF_OBJ_GET_INFO_BY_FD: the name of a program, from struct bpf_prog_info (Linux 4.15).
pub fn program_name(program: BorrowedFd) -> Result<String> {
    // Larger than any kernel's structure, and all zero: lengths of zero ask for none of the lists in it.
    let mut info = [0u8; 512];
    let mut attr: Attr = [0; 32];
    attr[0] = pair(program.as_raw_fd() as u32, info.len() as u32);
    attr[1] = info.as_mut_ptr() as u64;
    // SAFETY: word 1 points at as many bytes as word 0 says; every pointer within them is null with a length of zero.
    unsafe { bpf(OBJ_GET_INFO_BY_FD, &mut attr) }?;
    let name = info[64..80].split(|byte| *byte == 0).next().unwrap_or_default();
    Ok(String::from_utf8_lossy(name).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Errno, guard::Guarded};
    use std::os::fd::AsFd;

    #[test]
    fn fields_stand_in_memory_order() {
        let both = pair(1, 2);
        // SAFETY: a u64 is as large as two u32, and any bits are a value of them.
        let fields: [u32; 2] = unsafe { std::mem::transmute(both) };
        assert_eq!((fields, first_of_pair(both)), ([1, 2], 1));
        assert_eq!((size_of::<Insn>(), size_of::<Attr>()), (8, 256));
    }

    #[test]
    fn the_name_stands_in_memory_as_it_is_written() {
        let bytes: Vec<u8> = name_words().iter().flat_map(|w| w.to_ne_bytes()).collect();
        assert_eq!(bytes, b"coracle_devices\0");
    }

    #[test]
    fn an_instruction_is_laid_out_as_the_kernel_reads_it() {
        let insn = Insn { code: 0x95, regs: 0x21, off: -2, imm: 3 };
        // SAFETY: eight bytes without padding; any bytes are a value of [u8; 8].
        let bytes: [u8; 8] = unsafe { std::mem::transmute(insn) };
        let [low, high] = (-2i16).to_ne_bytes();
        assert_eq!(bytes[..4], [0x95, 0x21, low, high]);
        assert_eq!(bytes[4..], 3i32.to_ne_bytes());
    }

    /// The kernels of the module's doc would get EFAULT here instead of writing into what stands behind the union.
    #[test]
    fn the_kernel_stays_within_the_union() {
        let null = crate::fs::open(c"/dev/null", libc::O_RDONLY, 0).expect("/dev/null");
        for (command, first) in [(PROG_QUERY, null.as_fd().as_raw_fd() as u32), (PROG_GET_FD_BY_ID, u32::MAX)]
        {
            let mut attr: Attr = [0; 32];
            attr[0] = pair(first, if command == PROG_QUERY { ATTACH_DEVICE } else { 0 });
            let guarded = Guarded::new(attr);
            // SAFETY: the pointer words of both commands are null with a count of zero.
            let refused = unsafe { bpf(command, guarded.pointer()) }.expect_err("neither exists");
            assert!(
                [Errno::EBADF, Errno::EINVAL, Errno::ENOENT, Errno::EPERM, Errno::ENOSYS].contains(&refused),
                "{refused}"
            );
        }
    }

    #[test]
    fn an_ordinary_file_has_no_programs() {
        let null = crate::fs::open(c"/dev/null", libc::O_RDONLY, 0).expect("/dev/null");
        assert!(device_programs(null.as_fd()).is_err());
    }
}
