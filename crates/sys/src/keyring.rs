//! Session keyrings: keyrings(7), keyctl(2).

use crate::{Result, syscall};
use std::ffi::CStr;

/// KEYCTL_JOIN_SESSION_KEYRING, keyctl(2): makes or joins the named session keyring; returns its serial number.
/// Errors: EDQUOT when the user has too many keys, ENOSYS for a kernel without keys, EACCES for one of that name that is
/// not ours to join.
pub fn join_session(name: &CStr) -> Result<i32> {
    // SAFETY: name is terminated and outlives the call.
    unsafe { syscall!(libc::SYS_keyctl, libc::KEYCTL_JOIN_SESSION_KEYRING, name.as_ptr()) }.map(|s| s as i32)
}

/// KEYCTL_DESCRIBE, keyctl(2): `type;uid;gid;permissions;description`, permissions in hexadecimal.
/// Errors: EMSGSIZE for one longer than 511 bytes, ENOKEY, EACCES.
pub fn describe(serial: i32) -> Result<Vec<u8>> {
    let mut buffer = [0u8; 512];
    let room = buffer.len();
    // SAFETY: the buffer is writable for the length given.
    let n = unsafe { syscall!(libc::SYS_keyctl, libc::KEYCTL_DESCRIBE, serial, buffer.as_mut_ptr(), room) }?;
    // The kernel gives the whole length, its NUL included, and writes nothing when that does not fit.
    if n > room {
        return Err(crate::Errno::EMSGSIZE);
    }
    Ok(buffer[..n.saturating_sub(1)].to_vec())
}

/// KEYCTL_SETPERM, keyctl(2): four bytes of rights, for possessor, user, group and others.
pub fn set_permissions(serial: i32, permissions: u32) -> Result<()> {
    // SAFETY: integers only.
    unsafe { syscall!(libc::SYS_keyctl, libc::KEYCTL_SETPERM, serial, permissions) }.map(drop)
}
