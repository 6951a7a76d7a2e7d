//! bpf(2), as far as cgroup device programs need it.

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

/// union bpf_attr, larger than any kernel reads or writes: some kernels write past a short one.
type Attr = [u64; 32];

fn bpf(command: u32, attr: &mut Attr) -> Result<usize> {
    // SAFETY: attr is a zero-filled union of 256 bytes, whose pointers the callers below keep alive.
    unsafe { syscall!(libc::SYS_bpf, command, attr.as_mut_ptr(), std::mem::size_of::<Attr>()) }
}

/// A pair of 32-bit fields that stand side by side in bpf_attr, in memory order.
fn pair(first: u32, second: u32) -> u64 {
    let (a, b) = (first.to_ne_bytes(), second.to_ne_bytes());
    u64::from_ne_bytes([a[0], a[1], a[2], a[3], b[0], b[1], b[2], b[3]])
}

const TYPE_CGROUP_DEVICE: u32 = 15;
const ATTACH_DEVICE: u32 = 6;
const ALLOW_MULTI: u32 = 2;

/// BPF_PROG_LOAD of a cgroup device program.
pub fn load_device_program(program: &[Insn]) -> Result<OwnedFd> {
    let license = c"Apache-2.0";
    let mut attr: Attr = [0; 32];
    attr[0] = pair(TYPE_CGROUP_DEVICE, program.len() as u32);
    attr[1] = program.as_ptr() as u64;
    attr[2] = license.as_ptr() as u64;
    bpf(5, &mut attr).map(own)
}

/// BPF_PROG_ATTACH to a cgroup directory, beside what is attached already (all must allow).
pub fn attach_device_program(cgroup: BorrowedFd, program: BorrowedFd) -> Result<()> {
    let mut attr: Attr = [0; 32];
    attr[0] = pair(cgroup.as_raw_fd() as u32, program.as_raw_fd() as u32);
    attr[1] = pair(ATTACH_DEVICE, ALLOW_MULTI);
    bpf(8, &mut attr).map(drop)
}

/// BPF_PROG_DETACH from a cgroup directory.
pub fn detach_device_program(cgroup: BorrowedFd, program: BorrowedFd) -> Result<()> {
    let mut attr: Attr = [0; 32];
    attr[0] = pair(cgroup.as_raw_fd() as u32, program.as_raw_fd() as u32);
    attr[1] = pair(ATTACH_DEVICE, 0);
    bpf(9, &mut attr).map(drop)
}

/// BPF_PROG_QUERY: ids of the device programs attached to a cgroup directory, at most 64.
pub fn device_programs(cgroup: BorrowedFd) -> Result<Vec<u32>> {
    let mut ids = [0u32; 64];
    let mut attr: Attr = [0; 32];
    attr[0] = pair(cgroup.as_raw_fd() as u32, ATTACH_DEVICE);
    attr[2] = ids.as_mut_ptr() as u64;
    attr[3] = pair(ids.len() as u32, 0);
    bpf(16, &mut attr)?;
    let count = u32::from_ne_bytes(attr[3].to_ne_bytes()[..4].try_into().expect("four bytes"));
    Ok(ids[..(count as usize).min(ids.len())].to_vec())
}

/// BPF_PROG_GET_FD_BY_ID.
pub fn program_by_id(id: u32) -> Result<OwnedFd> {
    let mut attr: Attr = [0; 32];
    attr[0] = pair(id, 0);
    bpf(13, &mut attr).map(own)
}
