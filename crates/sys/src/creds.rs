//! Credentials of this process: ids and capabilities. credentials(7), capabilities(7), user_namespaces(7).
//!
//! By the raw syscalls, which change the calling thread alone; the C library's own make every thread follow, by signals.
//! Here there is one thread, and none of that machinery is wanted between clone and exec.

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

/// _LINUX_CAPABILITY_VERSION_3: a header of two words (version, pid), data of twice three (low and high halves).
const VERSION_3: u32 = 0x2008_0522;

/// `int capget(cap_user_header_t hdrp, cap_user_data_t datap)`, capget(2), of this process.
pub fn capget() -> Result<CapSets> {
    let header = [VERSION_3, 0];
    let mut d = [0u32; 6];
    // SAFETY: header is two words and data twice three words, as version 3 lays them out; both live through the call.
    unsafe { syscall!(libc::SYS_capget, header.as_ptr(), d.as_mut_ptr()) }?;
    let wide = |low: usize| u64::from(d[low]) | u64::from(d[low + 3]) << 32;
    Ok(CapSets { effective: wide(0), permitted: wide(1), inheritable: wide(2) })
}

/// `int capset(cap_user_header_t hdrp, const cap_user_data_t datap)`, capset(2), of this process: all three sets at once.
/// Errors: EPERM when a set would grow beyond what the caller may have. Bits that the kernel does not know are dropped.
pub fn capset(sets: &CapSets) -> Result<()> {
    let header = [VERSION_3, 0];
    let words = [sets.effective, sets.permitted, sets.inheritable];
    let d = [0, 1, 2, 3, 4, 5].map(|i| (words[i % 3] >> (32 * (i / 3))) as u32);
    // SAFETY: header is two words and data twice three words, as version 3 lays them out; both live through the call.
    unsafe { syscall!(libc::SYS_capset, header.as_ptr(), d.as_ptr()) }.map(drop)
}

fn prctl(option: i32, a: usize, b: usize) -> Result<usize> {
    // SAFETY: the options used in this file take integers only.
    unsafe { syscall!(libc::SYS_prctl, option, a, b, 0, 0) }
}

/// PR_CAPBSET_READ, prctl(2): whether the capability is in the bounding set; EINVAL when the kernel does not know it.
pub fn capbset_read(capability: u32) -> Result<bool> {
    prctl(libc::PR_CAPBSET_READ, capability as usize, 0).map(|r| r == 1)
}

/// PR_CAPBSET_DROP, prctl(2). Errors: EPERM without CAP_SETPCAP, EINVAL when the kernel does not know the capability.
pub fn capbset_drop(capability: u32) -> Result<()> {
    prctl(libc::PR_CAPBSET_DROP, capability as usize, 0).map(drop)
}

/// PR_CAP_AMBIENT_RAISE, prctl(2). Errors: EPERM unless the capability is permitted and inheritable.
pub fn ambient_raise(capability: u32) -> Result<()> {
    prctl(libc::PR_CAP_AMBIENT, libc::PR_CAP_AMBIENT_RAISE as usize, capability as usize).map(drop)
}

/// PR_CAP_AMBIENT_IS_SET, prctl(2); EINVAL when the kernel does not know the capability.
pub fn ambient_read(capability: u32) -> Result<bool> {
    prctl(libc::PR_CAP_AMBIENT, libc::PR_CAP_AMBIENT_IS_SET as usize, capability as usize).map(|r| r == 1)
}

/// PR_CAP_AMBIENT_CLEAR_ALL, prctl(2).
pub fn ambient_clear_all() -> Result<()> {
    prctl(libc::PR_CAP_AMBIENT, libc::PR_CAP_AMBIENT_CLEAR_ALL as usize, 0).map(drop)
}

/// PR_SET_KEEPCAPS, prctl(2): whether permitted capabilities survive the change to another user. Cleared by execve.
pub fn set_keepcaps(on: bool) -> Result<()> {
    prctl(libc::PR_SET_KEEPCAPS, usize::from(on), 0).map(drop)
}

/// PR_GET_SECUREBITS, prctl(2): SECBIT_* bits, capabilities(7).
pub fn securebits() -> Result<u32> {
    prctl(libc::PR_GET_SECUREBITS, 0, 0).map(|bits| bits as u32)
}

/// PR_SET_SECUREBITS, prctl(2). Errors: EPERM without CAP_SETPCAP, or for a locked bit.
pub fn set_securebits(bits: u32) -> Result<()> {
    prctl(libc::PR_SET_SECUREBITS, bits as usize, 0).map(drop)
}

/// `int setresuid(uid_t ruid, uid_t euid, uid_t suid)`, setresuid(2), all three the same; the file system's uid follows.
/// Errors: EINVAL for an id that the user namespace does not map.
pub fn setuid_all(uid: u32) -> Result<()> {
    // SAFETY: integers only.
    unsafe { syscall!(libc::SYS_setresuid, uid, uid, uid) }.map(drop)
}

/// `int setresgid(gid_t rgid, gid_t egid, gid_t sgid)`, setresgid(2), all three the same.
/// Errors: EINVAL for an id that the user namespace does not map.
pub fn setgid_all(gid: u32) -> Result<()> {
    // SAFETY: integers only.
    unsafe { syscall!(libc::SYS_setresgid, gid, gid, gid) }.map(drop)
}

/// `int setgroups(size_t size, const gid_t *list)`, setgroups(2). Errors: EPERM where /proc/self/setgroups says deny.
pub fn setgroups(groups: &[u32]) -> Result<()> {
    // SAFETY: the slice is readable for its length, which the kernel takes in gid_t, that is u32.
    unsafe { syscall!(libc::SYS_setgroups, groups.len(), groups.as_ptr()) }.map(drop)
}

/// `int getgroups(int size, gid_t list[])`, getgroups(2): the supplementary groups, at most 65536.
pub fn getgroups() -> Result<Vec<u32>> {
    // SAFETY: with size 0 the kernel only counts and writes nothing.
    let count = unsafe { syscall!(libc::SYS_getgroups, 0, 0) }?;
    let mut groups = vec![0u32; count];
    // SAFETY: groups is writable for as many gid_t as is said.
    let count = unsafe { syscall!(libc::SYS_getgroups, groups.len(), groups.as_mut_ptr()) }?;
    groups.truncate(count);
    Ok(groups)
}

/// `uid_t getuid(void)`, getuid(2).
pub fn getuid() -> u32 {
    // SAFETY: no arguments; cannot fail.
    unsafe { libc::getuid() }
}

/// `uid_t geteuid(void)`, geteuid(2).
pub fn geteuid() -> u32 {
    // SAFETY: no arguments; cannot fail.
    unsafe { libc::geteuid() }
}

/// `gid_t getgid(void)`, getgid(2).
pub fn getgid() -> u32 {
    // SAFETY: no arguments; cannot fail.
    unsafe { libc::getgid() }
}

/// `gid_t getegid(void)`, getegid(2).
pub fn getegid() -> u32 {
    // SAFETY: no arguments; cannot fail.
    unsafe { libc::getegid() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Errno, guard::Guarded};

    /// A line of /proc/thread-self/status: another witness than the syscall.
    fn status(key: &str) -> String {
        let all = std::fs::read_to_string("/proc/thread-self/status").expect("status");
        let line = all.lines().find(|l| l.starts_with(key)).expect(key);
        line.split_once(':').expect("colon").1.trim().to_owned()
    }

    fn mask(key: &str) -> u64 {
        u64::from_str_radix(&status(key), 16).expect("hexadecimal")
    }

    #[test]
    fn the_sets_are_what_proc_shows() {
        let sets = capget().expect("capget");
        assert_eq!(
            (sets.effective, sets.permitted, sets.inheritable),
            (mask("CapEff"), mask("CapPrm"), mask("CapInh"))
        );
    }

    #[test]
    fn bounding_and_ambient_are_what_proc_shows() {
        for capability in 0..=63 {
            let bit = |key| mask(key) >> capability & 1 == 1;
            match (capbset_read(capability), ambient_read(capability)) {
                (Ok(bounding), Ok(ambient)) => {
                    assert_eq!((bounding, ambient), (bit("CapBnd"), bit("CapAmb")))
                }
                (Err(a), Err(b)) => assert_eq!((a, b, capability > 37), (Errno::EINVAL, Errno::EINVAL, true)),
                other => panic!("capability {capability}: {other:?}"),
            }
        }
    }

    #[test]
    fn ids_and_groups_are_what_proc_shows() {
        let numbers =
            |key| status(key).split_whitespace().map(|n| n.parse().expect("id")).collect::<Vec<u32>>();
        assert_eq!(numbers("Uid")[..2], [getuid(), geteuid()]);
        assert_eq!(numbers("Gid")[..2], [getgid(), getegid()]);
        let mut groups = getgroups().expect("getgroups");
        groups.sort_unstable();
        assert_eq!(numbers("Groups"), groups);
    }

    #[test]
    fn the_kernel_stays_within_the_structures() {
        let (header, data) = (Guarded::new([VERSION_3, 0]), Guarded::new([0u32; 6]));
        // SAFETY: header and data are as large as version 3 has them, which the pages behind them put to the test.
        unsafe { syscall!(libc::SYS_capget, header.pointer(), data.pointer()) }
            .expect("capget within the page");
        // SAFETY: the same.
        unsafe { syscall!(libc::SYS_capset, header.pointer(), data.pointer()) }
            .expect("capset within the page");
    }
}
