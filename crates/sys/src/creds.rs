//! Credentials of this process: ids and capabilities, by the raw syscalls (one thread only).

use crate::{Result, syscall};

/// Three of the five capability sets, a bit per capability number: capabilities(7).
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct CapSets {
    /// What counts now.
    pub effective: u64,
    /// What may be made effective.
    pub permitted: u64,
    /// What survives an execve of a file that inherits it.
    pub inheritable: u64,
}

const VERSION_3: u32 = 0x2008_0522;

/// `capget(2)` of this process.
pub fn capget() -> Result<CapSets> {
    let header = [VERSION_3, 0];
    let mut d = [0u32; 6];
    // SAFETY: header is two words and data twice three words, as version 3 lays them out.
    unsafe { syscall!(libc::SYS_capget, header.as_ptr(), d.as_mut_ptr()) }?;
    let wide = |low: usize| u64::from(d[low]) | u64::from(d[low + 3]) << 32;
    Ok(CapSets { effective: wide(0), permitted: wide(1), inheritable: wide(2) })
}

/// `capset(2)` of this process: all three sets at once.
pub fn capset(sets: &CapSets) -> Result<()> {
    let header = [VERSION_3, 0];
    let words = [sets.effective, sets.permitted, sets.inheritable];
    let d = [0, 1, 2, 3, 4, 5].map(|i| (words[i % 3] >> (32 * (i / 3))) as u32);
    // SAFETY: header is two words and data twice three words, as version 3 lays them out.
    unsafe { syscall!(libc::SYS_capset, header.as_ptr(), d.as_ptr()) }.map(drop)
}

fn prctl(option: i32, a: usize, b: usize) -> Result<usize> {
    // SAFETY: the options used in this file take integers only.
    unsafe { syscall!(libc::SYS_prctl, option, a, b, 0, 0) }
}

/// PR_CAPBSET_READ: whether the capability is in the bounding set; EINVAL when the kernel does not know it.
pub fn capbset_read(capability: u32) -> Result<bool> {
    prctl(libc::PR_CAPBSET_READ, capability as usize, 0).map(|r| r == 1)
}

/// PR_CAPBSET_DROP.
pub fn capbset_drop(capability: u32) -> Result<()> {
    prctl(libc::PR_CAPBSET_DROP, capability as usize, 0).map(drop)
}

/// PR_CAP_AMBIENT_RAISE.
pub fn ambient_raise(capability: u32) -> Result<()> {
    prctl(libc::PR_CAP_AMBIENT, libc::PR_CAP_AMBIENT_RAISE as usize, capability as usize).map(drop)
}

/// PR_CAP_AMBIENT_CLEAR_ALL.
pub fn ambient_clear_all() -> Result<()> {
    prctl(libc::PR_CAP_AMBIENT, libc::PR_CAP_AMBIENT_CLEAR_ALL as usize, 0).map(drop)
}

/// PR_SET_KEEPCAPS: whether permitted capabilities survive the change to another user.
pub fn set_keepcaps(on: bool) -> Result<()> {
    prctl(libc::PR_SET_KEEPCAPS, usize::from(on), 0).map(drop)
}

/// `setresuid(2)`, all three.
pub fn setuid_all(uid: u32) -> Result<()> {
    // SAFETY: plain integers.
    unsafe { syscall!(libc::SYS_setresuid, uid, uid, uid) }.map(drop)
}

/// `setresgid(2)`, all three.
pub fn setgid_all(gid: u32) -> Result<()> {
    // SAFETY: plain integers.
    unsafe { syscall!(libc::SYS_setresgid, gid, gid, gid) }.map(drop)
}

/// `setgroups(2)`.
pub fn setgroups(groups: &[u32]) -> Result<()> {
    // SAFETY: the slice is readable for its length; gid_t is u32.
    unsafe { syscall!(libc::SYS_setgroups, groups.len(), groups.as_ptr()) }.map(drop)
}

/// `geteuid(2)`.
pub fn geteuid() -> u32 {
    // SAFETY: cannot fail.
    unsafe { libc::geteuid() }
}

/// `getegid(2)`.
pub fn getegid() -> u32 {
    // SAFETY: cannot fail.
    unsafe { libc::getegid() }
}
