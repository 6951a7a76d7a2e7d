//! Limits and scheduling of a process.

use crate::{Result, syscall};

/// `prlimit(2)`: sets soft and hard limit.
pub fn prlimit(pid: i32, resource: u32, soft: u64, hard: u64) -> Result<()> {
    let new = [soft, hard];
    // SAFETY: new is a struct rlimit64 (two u64); the old value is not asked for.
    unsafe { syscall!(libc::SYS_prlimit64, pid, resource, new.as_ptr(), 0) }.map(drop)
}

/// struct sched_attr, version 0: sched_setattr(2).
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
#[repr(C)]
pub struct SchedAttr {
    /// Bytes of this structure; set by [`sched_setattr`].
    pub size: u32,
    /// SCHED_* policy.
    pub policy: u32,
    /// SCHED_FLAG_* bits.
    pub flags: u64,
    /// -20 to 19, of the normal policies.
    pub nice: i32,
    /// 1 to 99, of the real-time policies.
    pub priority: u32,
    /// Nanoseconds, of SCHED_DEADLINE.
    pub runtime: u64,
    /// Nanoseconds, of SCHED_DEADLINE.
    pub deadline: u64,
    /// Nanoseconds, of SCHED_DEADLINE.
    pub period: u64,
}

/// `sched_setattr(2)` of this process.
pub fn sched_setattr(attributes: &SchedAttr) -> Result<()> {
    let whole = SchedAttr { size: std::mem::size_of::<SchedAttr>() as u32, ..*attributes };
    // SAFETY: whole has the layout and size of sched_attr version 0 (48 bytes).
    unsafe { syscall!(libc::SYS_sched_setattr, 0, &whole as *const SchedAttr, 0) }.map(drop)
}

/// `sched_setaffinity(2)` of this process; a bit per CPU.
pub fn sched_setaffinity(mask: &[u64]) -> Result<()> {
    // SAFETY: the slice is readable for the bytes given.
    unsafe { syscall!(libc::SYS_sched_setaffinity, 0, mask.len() * 8, mask.as_ptr()) }.map(drop)
}

/// `ioprio_set(2)` of this process: class 1 real time, 2 best effort, 3 idle; level 0 to 7.
pub fn ioprio_set(class: u32, level: u32) -> Result<()> {
    // SAFETY: plain integers; 1 is IOPRIO_WHO_PROCESS.
    unsafe { syscall!(libc::SYS_ioprio_set, 1, 0, class << 13 | level) }.map(drop)
}

/// `set_mempolicy(2)`; a bit per node, none for an empty slice.
pub fn set_mempolicy(mode: u32, nodes: &[u64]) -> Result<()> {
    let (pointer, bits) =
        if nodes.is_empty() { (std::ptr::null(), 0) } else { (nodes.as_ptr(), nodes.len() * 64 + 1) };
    // SAFETY: the kernel reads maxnode - 1 bits, which the slice holds; null with 0 is allowed.
    unsafe { syscall!(libc::SYS_set_mempolicy, mode, pointer, bits) }.map(drop)
}
