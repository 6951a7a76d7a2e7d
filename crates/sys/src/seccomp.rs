//! seccomp(2): loading a finished filter, and asking what the kernel can do.

use crate::{Errno, Result, own, syscall};
use std::os::fd::OwnedFd;

/// SECCOMP_FILTER_FLAG_NEW_LISTENER.
pub const NEW_LISTENER: u64 = 8;

/// struct sock_fprog; the compiler pads it as C does.
#[derive(Clone, Copy)]
#[repr(C)]
struct Program {
    length: u16,
    filter: *const u8,
}

const SET_MODE_FILTER: u32 = 1;
const GET_ACTION_AVAIL: u32 = 2;

/// The kernel reads 32 bits of flags and would pass over the others: what does not fit is refused here, as unknown.
fn narrow(flags: u64) -> Result<u32> {
    u32::try_from(flags).map_err(|_| Errno::EINVAL)
}

/// SECCOMP_SET_MODE_FILTER with a program of 8-byte sock_filter records; with [`NEW_LISTENER`] the notification
/// descriptor comes back (close-on-exec). Errors: EINVAL for a program whose length is no multiple of 8 or over 4096
/// records, or an unknown flag; EACCES without no_new_privs or CAP_SYS_ADMIN; EBUSY when a listener is wanted and there is one already.
pub fn set_filter(program: &[u8], flags: u64) -> Result<Option<OwnedFd>> {
    let flags = narrow(flags)?;
    let records = program.len() / 8;
    if program.len() % 8 != 0 || records == 0 || records > 4096 {
        return Err(Errno::EINVAL);
    }
    let p = Program { length: records as u16, filter: program.as_ptr() };
    // SAFETY: p has the layout of sock_fprog and points at that many records; the kernel copies them, at any alignment.
    let r = unsafe { syscall!(libc::SYS_seccomp, SET_MODE_FILTER, flags, &raw const p) }?;
    Ok((u64::from(flags) & NEW_LISTENER != 0).then(|| own(r)))
}

/// SECCOMP_GET_ACTION_AVAIL (Linux 4.14).
pub fn action_available(action: u32) -> bool {
    // SAFETY: the kernel reads one u32, which lives through the call.
    unsafe { syscall!(libc::SYS_seccomp, GET_ACTION_AVAIL, 0, &raw const action) }.is_ok()
}

/// Whether the kernel knows a set of filter flags: with no program, EFAULT says yes and EINVAL no (seccomp(2)).
/// SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV is valid only together with [`NEW_LISTENER`]: ask for both at once.
pub fn flag_known(flag: u64) -> bool {
    // SAFETY: a null program is refused before anything is read.
    let ask = |flags: u32| unsafe { syscall!(libc::SYS_seccomp, SET_MODE_FILTER, flags, 0) };
    narrow(flag).and_then(ask) == Err(Errno::EFAULT)
}

/// PR_GET_SECCOMP, prctl(2): 0 no filter, 2 a filter. Errors: EINVAL for a kernel without seccomp.
pub fn mode() -> Result<i32> {
    // SAFETY: integers only.
    unsafe { syscall!(libc::SYS_prctl, libc::PR_GET_SECCOMP) }.map(|m| m as i32)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_of_the_wrong_length_is_refused_here() {
        for length in [0, 7, 9, 8 * 4097] {
            assert_eq!(set_filter(&vec![0; length], 0).err(), Some(Errno::EINVAL), "{length} bytes");
        }
    }

    #[test]
    fn what_the_kernel_knows() {
        assert!(action_available(libc::SECCOMP_RET_ERRNO) && action_available(libc::SECCOMP_RET_ALLOW));
        assert!(!action_available(0x1234_0000));
        assert!(flag_known(libc::SECCOMP_FILTER_FLAG_LOG) && flag_known(NEW_LISTENER));
        for unknown in [1 << 31, 1 << 40, NEW_LISTENER | 1 << 40] {
            assert!(!flag_known(unknown), "{unknown:#x}");
            assert_eq!(set_filter(&[0; 8], unknown).err(), Some(Errno::EINVAL), "{unknown:#x}");
        }
    }

    #[test]
    fn mode_is_what_proc_shows() {
        let status = std::fs::read_to_string("/proc/thread-self/status").expect("status");
        let shown =
            status.lines().find_map(|l| l.strip_prefix("Seccomp:")).expect("Seccomp").trim().to_owned();
        assert_eq!(mode().expect("mode").to_string(), shown);
    }
}
