//! Session keyrings: keyctl(2).

use crate::{Result, syscall};
use std::ffi::CStr;

/// KEYCTL_JOIN_SESSION_KEYRING: makes or joins the named session keyring; returns its serial number.
pub fn join_session(name: &CStr) -> Result<i32> {
    // SAFETY: name is a terminated string that outlives the call.
    unsafe { syscall!(libc::SYS_keyctl, libc::KEYCTL_JOIN_SESSION_KEYRING, name.as_ptr()) }.map(|s| s as i32)
}

/// KEYCTL_SETPERM.
pub fn set_permissions(serial: i32, permissions: u32) -> Result<()> {
    // SAFETY: plain integers.
    unsafe { syscall!(libc::SYS_keyctl, libc::KEYCTL_SETPERM, serial, permissions) }.map(drop)
}
