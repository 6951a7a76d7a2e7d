//! Who a container runs as: the image's `User`, looked up in the image's own passwd and group. passwd(5), group(5).
//!
//! These files are the image's, so they may be links, FIFOs, devices or a gibibyte long (CVE-2026-61801,
//! CVE-2024-9676): opened inside the root, regular files of at most 1 MiB. A number is a number and never a name
//! (CVE-2024-40635, CVE-2026-46680: too large a number became root).

use crate::error::{Kind, Result, fail, shown};
use crate::rootfs;
use coracle_sys::Errno;
use std::os::fd::BorrowedFd;

/// The most bytes of passwd and group.
const MOST: u64 = 1 << 20;

/// A user with groups.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct User {
    /// User id.
    pub uid: u32,
    /// Group id.
    pub gid: u32,
    /// Further groups.
    pub groups: Vec<u32>,
    /// Home directory; `/` where none is known.
    pub home: String,
}

/// Looks up `user[:group]`, names or numbers; empty is root. Reads passwd and group of this root file system.
/// Errors: an unknown name; a number beyond 2^32-2; a file that is no file.
pub fn lookup(root: BorrowedFd, wanted: &str) -> Result<User> {
    let read = |path| match rootfs::read_file(root, path, MOST) {
        Err(e) if matches!(e.kind(), Kind::Os(Errno::ENOENT | Errno::ENOTDIR)) => Ok(Vec::new()),
        other => other,
    };
    parse(wanted, &read("/etc/passwd")?, &read("/etc/group")?)
}

/// The same, of these files' contents. config.md: without a group, the user's own and all that list it; with one, that
/// one only.
pub fn parse(wanted: &str, passwd: &[u8], group: &[u8]) -> Result<User> {
    let (user, wanted_group) = match wanted.split_once(':') {
        Some((user, group)) if !user.is_empty() && !group.is_empty() => (user, Some(group)),
        None => (if wanted.is_empty() { "0" } else { wanted }, None),
        _ => fail!(Corrupt, "user {} is not user[:group]", shown(wanted.as_bytes())),
    };
    let number = id(user)?;
    let line = find(passwd, 7, |f| {
        f[0] == user.as_bytes() && number.is_none() || number.is_some() && as_id(f[2]) == number
    });
    let (uid, own_gid) = match (&line, number) {
        (Some(fields), _) => match (as_id(fields[2]), as_id(fields[3])) {
            (Some(uid), Some(gid)) => (uid, gid),
            _ => fail!(
                Corrupt,
                "/etc/passwd of the image: the line of {} is malformed",
                shown(user.as_bytes())
            ),
        },
        (None, Some(uid)) => (uid, 0),
        (None, None) => fail!(
            NotFound,
            "the image's /etc/passwd has no user {}; --user chooses another",
            shown(user.as_bytes())
        ),
    };
    let name = line.as_ref().map(|f| f[0]);
    let (gid, groups) = match wanted_group {
        Some(group_name) => (find_group(group_name, group)?, Vec::new()),
        None => (own_gid, name.map_or_else(Vec::new, |name| memberships(name, own_gid, group))),
    };
    let home = line
        .map(|f| String::from_utf8_lossy(f[5]).into_owned())
        .filter(|h| h.starts_with('/') && !h.contains('\0'));
    Ok(User { uid, gid, groups, home: home.unwrap_or_else(|| "/".into()) })
}

/// A number, if it looks like one at all; then it must be one that Linux has.
fn id(word: &str) -> Result<Option<u32>> {
    if !word.bytes().all(|b| b.is_ascii_digit()) {
        return Ok(None);
    }
    match word.parse() {
        Ok(n) if n != u32::MAX => Ok(Some(n)),
        _ => fail!(Corrupt, "user or group {} is more than Linux has", shown(word.as_bytes())),
    }
}

fn as_id(field: &[u8]) -> Option<u32> {
    id(std::str::from_utf8(field).ok()?).ok().flatten().filter(|_| !field.is_empty())
}

/// The first line of so many fields that fits.
fn find<'a>(file: &'a [u8], fields: usize, fits: impl Fn(&[&'a [u8]]) -> bool) -> Option<Vec<&'a [u8]>> {
    file.split(|&b| b == b'\n')
        .map(|line| line.split(|&b| b == b':').collect::<Vec<_>>())
        .find(|f| f.len() >= fields && fits(f))
}

fn find_group(name: &str, file: &[u8]) -> Result<u32> {
    if let Some(gid) = id(name)? {
        return Ok(gid);
    }
    match find(file, 3, |f| f[0] == name.as_bytes()).and_then(|f| as_id(f[2])) {
        Some(gid) => Ok(gid),
        None => fail!(
            NotFound,
            "the image's /etc/group has no group {}; --user chooses another",
            shown(name.as_bytes())
        ),
    }
}

/// Groups that list a user as a member, but its own.
fn memberships(name: &[u8], own: u32, file: &[u8]) -> Vec<u32> {
    let mut all = Vec::new();
    for line in file.split(|&b| b == b'\n') {
        let fields: Vec<&[u8]> = line.split(|&b| b == b':').collect();
        let [_, _, gid, members, ..] = fields[..] else { continue };
        let is_member = members.split(|&b| b == b',').any(|m| m == name);
        if let Some(gid) = as_id(gid).filter(|&g| is_member && g != own && !all.contains(&g)) {
            all.push(gid);
        }
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    const PASSWD: &[u8] = b"root:x:0:0:root:/root:/bin/sh\nbad line\nann:x:1000:100::/home/ann:/bin/sh\n4294967296:x:5:5::/:\nbig:x:4294967296:0::/:\n";
    const GROUP: &[u8] = b"root:x:0:\nusers:x:100:ann\nwheel:x:10:root,ann\nbin:x:1:root\n";

    fn of(wanted: &str) -> Option<(u32, u32, Vec<u32>)> {
        parse(wanted, PASSWD, GROUP).ok().map(|u| (u.uid, u.gid, u.groups))
    }

    #[test]
    fn users_by_name_and_number() {
        assert_eq!(of(""), Some((0, 0, vec![10, 1])));
        assert_eq!(of("ann"), Some((1000, 100, vec![10])));
        assert_eq!(of("1000"), Some((1000, 100, vec![10])));
        assert_eq!(of("ann:wheel"), Some((1000, 10, vec![])));
        assert_eq!(of("12:34"), Some((12, 34, vec![])));
        assert_eq!(of("4294967294"), Some((4294967294, 0, vec![])));
        assert_eq!(parse("ann", PASSWD, GROUP).unwrap().home, "/home/ann");
    }

    /// CVE-2016-3697, CVE-2026-30892, CVE-2024-40635, CVE-2026-46680.
    #[test]
    fn no_number_becomes_a_name_and_none_becomes_root() {
        for bad in [
            "4294967295",
            "4294967296",
            "-1",
            "1:",
            ":1",
            "1a",
            " 1",
            "nobody",
            "ann:none",
            "big",
            "ann:4294967295",
            "a:b:c",
        ] {
            assert_eq!(of(bad), None, "{bad}");
        }
    }
}
