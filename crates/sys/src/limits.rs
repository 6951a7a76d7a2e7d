//! Limits, scheduling and placement of a process: getrlimit(2), sched(7), ioprio_set(2), set_mempolicy(2).

use crate::{Result, syscall};

/// `int prlimit(pid_t pid, int resource, const struct rlimit *new, struct rlimit *old)`, getrlimit(2): sets soft and hard
/// limit (RLIM_INFINITY is `u64::MAX`); pid 0 is this process.
/// Errors: EINVAL when soft is above hard, EPERM to raise a hard limit without CAP_SYS_RESOURCE.
pub fn prlimit(pid: i32, resource: u32, soft: u64, hard: u64) -> Result<()> {
    let new = [soft, hard];
    // SAFETY: new is a struct rlimit64 (two u64) that lives through the call; the old value is not asked for.
    unsafe { syscall!(libc::SYS_prlimit64, pid, resource, new.as_ptr(), 0) }.map(drop)
}

/// The same syscall, reading: soft and hard limit. Pid 0 is this process.
pub fn rlimit(pid: i32, resource: u32) -> Result<(u64, u64)> {
    let mut old = [0u64; 2];
    // SAFETY: old is room for a struct rlimit64 (two u64); a null new value changes nothing.
    unsafe { syscall!(libc::SYS_prlimit64, pid, resource, 0, old.as_mut_ptr()) }?;
    Ok((old[0], old[1]))
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

/// `int sched_setattr(pid_t pid, struct sched_attr *attr, unsigned int flags)`, sched_setattr(2), of this process.
/// Errors: EPERM without CAP_SYS_NICE, EINVAL for values that the policy does not take, EBUSY when the machine
/// cannot promise the deadline.
pub fn sched_setattr(attributes: &SchedAttr) -> Result<()> {
    let whole = SchedAttr { size: size_of::<SchedAttr>() as u32, ..*attributes };
    // SAFETY: whole has the layout and size of sched_attr version 0 (48 bytes), and says so.
    unsafe { syscall!(libc::SYS_sched_setattr, 0, &raw const whole, 0) }.map(drop)
}

/// `int sched_getattr(pid_t pid, struct sched_attr *attr, unsigned int size, unsigned int flags)`, sched_setattr(2).
/// Pid 0 is this process.
pub fn sched_getattr(pid: i32) -> Result<SchedAttr> {
    let mut out = SchedAttr::default();
    // SAFETY: out is room for sched_attr version 0, which the size tells the kernel; every bit pattern is a value.
    unsafe { syscall!(libc::SYS_sched_getattr, pid, &raw mut out, size_of::<SchedAttr>(), 0) }?;
    Ok(out)
}

/// `int sched_setaffinity(pid_t pid, size_t size, const cpu_set_t *mask)`, sched_setaffinity(2), of this process; a bit per
/// CPU. Errors: EINVAL when none of them is there and allowed.
pub fn sched_setaffinity(mask: &[u64]) -> Result<()> {
    // SAFETY: the slice is readable for the bytes given.
    unsafe { syscall!(libc::SYS_sched_setaffinity, 0, size_of_val(mask), mask.as_ptr()) }.map(drop)
}

/// `int sched_getaffinity(pid_t pid, size_t size, cpu_set_t *mask)`, sched_setaffinity(2): a bit per CPU, up to 8192 CPUs.
/// Pid 0 is this process.
pub fn sched_getaffinity(pid: i32) -> Result<Vec<u64>> {
    let mut mask = [0u64; 128];
    // SAFETY: mask is writable for the bytes given; the result is how many the kernel wrote.
    let n = unsafe { syscall!(libc::SYS_sched_getaffinity, pid, size_of_val(&mask), mask.as_mut_ptr()) }?;
    Ok(mask[..n.div_ceil(8)].to_vec())
}

/// IOPRIO_WHO_PROCESS.
const PROCESS: i32 = 1;

/// `int ioprio_set(int which, int who, int ioprio)`, ioprio_set(2), of this process: class 1 real time, 2 best effort,
/// 3 idle; level 0 to 7. Errors: EPERM for real time without CAP_SYS_ADMIN or CAP_SYS_NICE.
pub fn ioprio_set(class: u32, level: u32) -> Result<()> {
    // SAFETY: integers only.
    unsafe { syscall!(libc::SYS_ioprio_set, PROCESS, 0, class << 13 | level) }.map(drop)
}

/// `int ioprio_get(int which, int who)`, ioprio_set(2): class and level of a process; pid 0 is this one. Class 0: none was set.
pub fn ioprio_get(pid: i32) -> Result<(u32, u32)> {
    // SAFETY: integers only.
    let both = unsafe { syscall!(libc::SYS_ioprio_get, PROCESS, pid) }? as u32;
    Ok((both >> 13, both & 0x1fff))
}

/// `long set_mempolicy(int mode, const unsigned long *nodemask, unsigned long maxnode)`, set_mempolicy(2); a bit per node,
/// none for an empty slice. Errors: EINVAL for nodes that are not there or that the mode does not take.
pub fn set_mempolicy(mode: u32, nodes: &[u64]) -> Result<()> {
    let (pointer, bits) =
        if nodes.is_empty() { (std::ptr::null(), 0) } else { (nodes.as_ptr(), nodes.len() * 64 + 1) };
    // SAFETY: the kernel reads maxnode - 1 bits, which the slice holds; null with 0 is allowed.
    unsafe { syscall!(libc::SYS_set_mempolicy, mode, pointer, bits) }.map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Errno;
    use crate::guard::{Guarded, skip};

    #[test]
    fn a_limit_is_what_proc_shows() {
        let (soft, hard) = rlimit(0, libc::RLIMIT_NOFILE).expect("limit");
        let text = std::fs::read_to_string("/proc/self/limits").expect("limits");
        let line = text.lines().find(|l| l.starts_with("Max open files")).expect("line");
        let shown = line.split_whitespace().skip(3).take(2).collect::<Vec<_>>().join(" ");
        assert_eq!(shown, format!("{soft} {hard}"));
    }

    #[test]
    fn soft_above_hard_is_refused() {
        assert_eq!(prlimit(0, libc::RLIMIT_CORE, 2, 1), Err(Errno::EINVAL));
    }

    #[test]
    fn the_kernel_stays_within_the_structures() {
        assert_eq!(size_of::<SchedAttr>(), 48);
        let attr = Guarded::new(SchedAttr::default());
        // SAFETY: 48 bytes are there, which the size says and the page behind them puts to the test.
        unsafe { syscall!(libc::SYS_sched_getattr, 0, attr.pointer(), 48, 0) }
            .expect("sched_getattr within the page");
        assert_eq!(attr.get(), sched_getattr(0).expect("sched_getattr"));
        let mut same = attr.get();
        same.size = 48;
        let attr = Guarded::new(same);
        // SAFETY: the same, read.
        unsafe { syscall!(libc::SYS_sched_setattr, 0, attr.pointer(), 0) }
            .expect("sched_setattr within the page");
        let limit = Guarded::new([0u64; 2]);
        // SAFETY: room for one rlimit64.
        unsafe { syscall!(libc::SYS_prlimit64, 0, libc::RLIMIT_CORE, 0, limit.pointer()) }
            .expect("prlimit64");
    }

    #[test]
    fn affinity_of_the_thread_can_be_set_to_what_it_is() {
        let mask = sched_getaffinity(0).expect("affinity");
        assert!(mask.iter().any(|word| *word != 0));
        assert_eq!(sched_setaffinity(&mask), Ok(()));
        assert_eq!(sched_setaffinity(&[0]), Err(Errno::EINVAL));
    }

    #[test]
    fn io_priority_reads_back() {
        // Of this test's thread alone.
        ioprio_set(2, 6).expect("best effort needs no right");
        assert_eq!(ioprio_get(0), Ok((2, 6)));
        assert_eq!(ioprio_set(7, 0), Err(Errno::EINVAL));
    }

    #[test]
    fn memory_policy_reads_the_words_given_and_no_more() {
        let nodes = Guarded::new([1u64; 1]);
        // SAFETY: the guarded word stays mapped until the end of the test.
        let slice = unsafe { std::slice::from_raw_parts(nodes.pointer().cast::<u64>(), 1) };
        match set_mempolicy(libc::MPOL_PREFERRED as u32, slice) {
            Ok(()) => assert_eq!(set_mempolicy(libc::MPOL_DEFAULT as u32, &[]), Ok(())),
            Err(Errno::ENOSYS) => skip("limits memory policy", "this kernel has no NUMA"),
            Err(e) => panic!("{e}"),
        }
    }
}
