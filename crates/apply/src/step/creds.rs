//! Ids and capabilities: capabilities(7), credentials(7).

use crate::failure::{Doing, Failure, Result};
use coracle_plan::steps::Capabilities;
use coracle_sys::creds::{self, CapSets};
use coracle_sys::{Errno, fs, libc};

/// Root of a new user namespace. Where no id 0 is mapped the process keeps its id, and has all capabilities all the same.
pub(crate) fn become_root() -> Result<()> {
    let unmapped = |e: Errno| if e == Errno::EINVAL { Ok(()) } else { Err(e) };
    creds::setgid_all(0).or_else(unmapped).doing(|| "becoming group 0 of the user namespace".into())?;
    creds::setuid_all(0).or_else(unmapped).doing(|| "becoming user 0 of the user namespace".into())
}

/// Drops from the bounding set all but `keep`.
pub(crate) fn bounding(keep: u64) -> Result<()> {
    for n in (0..63).filter(|n| keep >> n & 1 == 0) {
        match creds::capbset_drop(n) {
            Ok(()) => {}
            Err(Errno::EINVAL) => return Ok(()), // past the last one
            Err(Errno::EPERM) if creds::capbset_read(n) == Ok(false) => {}
            Err(e) => {
                return Err(Failure::errno(format!("dropping capability {n} from the bounding set"), e));
            }
        }
    }
    Ok(())
}

/// Becomes the user, keeping capabilities for the step that sets them.
pub(crate) fn ids(uid: u32, gid: u32, groups: Option<&[u32]>) -> Result<()> {
    own_streams(uid, gid);
    creds::set_keepcaps(true).doing(|| "keeping capabilities".into())?;
    if let Some(groups) = groups {
        match creds::setgroups(groups) {
            Err(Errno::EPERM) if groups.is_empty() && setgroups_is_denied() => {}
            other => {
                let hint = match other {
                    Err(Errno::EPERM) => {
                        " (this wants CAP_SETGID, and a user namespace whose setgroups file does not say deny)"
                    }
                    _ => "",
                };
                other.doing(|| format!("setting the supplementary groups {groups:?}{hint}"))?;
            }
        }
    }
    creds::setgid_all(gid).doing(|| format!("becoming group {gid}"))?;
    creds::setuid_all(uid).doing(|| format!("becoming user {uid}"))
}

/// A user namespace that the runtime was called in may have given setgroups(2) up for good: a group can be there to take rights
/// away, and stays. user_namespaces(7).
fn setgroups_is_denied() -> bool {
    crate::probe::text(c"/proc/self/setgroups").trim() == "deny"
}

/// The workload must be able to open its own standard streams through /proc/self/fd: pipes and terminals become its own. A
/// terminal keeps its group, by which others write to it: tty(4). The host's null device stays, and what the kernel refuses.
fn own_streams(uid: u32, gid: u32) {
    for number in 0..3 {
        let Ok(fd) = fs::inherited(number) else { continue };
        let Ok(stat) = fs::fstat(fd) else { continue };
        let stream = matches!(stat.kind(), libc::S_IFIFO | libc::S_IFCHR | libc::S_IFSOCK);
        if stream && stat.uid != uid && (stat.rdev_major, stat.rdev_minor) != (1, 3) {
            let group = if stat.kind() == libc::S_IFCHR { u32::MAX } else { gid };
            let _ = fs::fchownat(fd, c"", uid, group, libc::AT_EMPTY_PATH);
        }
    }
}

/// Sets effective, permitted, inheritable and (once) ambient.
pub(crate) fn capabilities(sets: &Capabilities, ambient: bool) -> Result<()> {
    let now = CapSets {
        effective: sets.effective | sets.meanwhile,
        permitted: sets.permitted | sets.meanwhile,
        inheritable: sets.inheritable,
    };
    creds::capset(&now).doing(|| format!("setting capabilities (permitted {:#x})", now.permitted))?;
    if ambient {
        creds::ambient_clear_all().doing(|| "clearing the ambient capabilities".into())?;
        for n in (0..63).filter(|n| sets.ambient >> n & 1 == 1) {
            creds::ambient_raise(n).doing(|| format!("raising ambient capability {n}"))?;
        }
    }
    Ok(())
}
