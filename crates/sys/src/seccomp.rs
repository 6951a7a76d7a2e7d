//! seccomp(2): loading a finished filter.

use crate::{Errno, Result, own, syscall};
use std::os::fd::OwnedFd;

/// SECCOMP_FILTER_FLAG_NEW_LISTENER.
pub const NEW_LISTENER: u64 = 8;

#[repr(C)]
struct Program {
    length: u16,
    filter: *const u8,
}

/// SECCOMP_SET_MODE_FILTER with a program of 8-byte sock_filter records; with [`NEW_LISTENER`] the notification
/// descriptor comes back. Errors: EINVAL for a program whose length is no multiple of 8 or over 4096 records.
pub fn set_filter(program: &[u8], flags: u64) -> Result<Option<OwnedFd>> {
    let records = program.len() / 8;
    if program.len() % 8 != 0 || records == 0 || records > 4096 {
        return Err(Errno::EINVAL);
    }
    let p = Program { length: records as u16, filter: program.as_ptr() };
    // SAFETY: p has the layout of sock_fprog and points at that many records, alive for the call.
    let r = unsafe { syscall!(libc::SYS_seccomp, 1, flags, &p as *const Program) }?;
    Ok((flags & NEW_LISTENER != 0).then(|| own(r)))
}

/// SECCOMP_GET_ACTION_AVAIL.
pub fn action_available(action: u32) -> bool {
    // SAFETY: the kernel reads one u32.
    unsafe { syscall!(libc::SYS_seccomp, 2, 0, &action as *const u32) }.is_ok()
}

/// Whether the kernel knows a filter flag: with no program, EFAULT says yes and EINVAL no (seccomp(2)).
pub fn flag_known(flag: u64) -> bool {
    // SAFETY: a null program is refused before anything is read.
    let refusal = unsafe { syscall!(libc::SYS_seccomp, 1, flag, 0) };
    refusal == Err(Errno::EFAULT)
}
