//! Unpacking without privileges: in a user namespace with the caller's subordinate ids, or with one id.
//!
//! user_namespaces(7), subuid(5), newuidmap(1). The two set-id helpers are the only programs that this crate runs,
//! and only for a user without privileges.

use crate::config::{IdRange, Ids};
use crate::error::{Doing, Error, Kind, Result, fail};
use coracle_sys::process::{self, CloneArgs, Cloned};
use coracle_sys::{creds, fs, libc, mount, poll};
use serde::{Serialize, de::DeserializeOwned};
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::process::Command;

/// What the caller may use.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Privilege {
    /// Everything: root, here or in a user namespace that is set up already.
    Root,
    /// A range of subordinate ids.
    Subordinate(Ids),
    /// The own id alone, and why there are no others.
    Single(Ids, String),
}

impl Privilege {
    /// The caller's.
    pub fn of_caller() -> Self {
        let (uid, gid) = (creds::geteuid(), creds::getegid());
        if uid == 0 {
            let map = std::fs::read_to_string("/proc/self/uid_map").unwrap_or_default();
            return match has_one_id(&map) {
                true => Self::Single(only(uid, gid), "this user namespace has one id".into()),
                false => Self::Root,
            };
        }
        match subordinate(uid, gid) {
            Ok(ids) => Self::Subordinate(ids),
            Err(e) => Self::Single(only(uid, gid), e.to_string()),
        }
    }

    /// The ranges for a configuration; `None` for root.
    pub fn ids(&self) -> Option<&Ids> {
        match self {
            Self::Root => None,
            Self::Subordinate(ids) | Self::Single(ids, _) => Some(ids),
        }
    }
}

/// What a user namespace of the caller's own can map: its id as 0, and its subordinate ids from 1 on where it has some.
pub fn ids_of_caller() -> Ids {
    let (uid, gid) = (creds::geteuid(), creds::getegid());
    subordinate(uid, gid).unwrap_or_else(|_| only(uid, gid))
}

fn only(uid: u32, gid: u32) -> Ids {
    Ids { users: vec![own(uid)], groups: vec![own(gid)] }
}

/// Root of a namespace that `unshare --map-root-user` makes can give no file to anybody else.
fn has_one_id(map: &str) -> bool {
    map.split_whitespace().skip(2).step_by(3).eq(["1"])
}

fn own(outside: u32) -> IdRange {
    IdRange { inside: 0, outside, count: 1 }
}

/// The caller's own id as 0, and its ranges from 1 on. Errors: no range, with the line that is missing; no helper.
fn subordinate(uid: u32, gid: u32) -> Result<Ids> {
    helper("newuidmap").and(helper("newgidmap"))?;
    let passwd = std::fs::read("/etc/passwd").unwrap_or_default();
    let name = user_name(&passwd, uid);
    let ranges = |file: &str, first| -> Result<Vec<IdRange>> {
        let text = std::fs::read_to_string(file).unwrap_or_default();
        let found = ranges_of(&text, name.as_deref(), uid);
        if found.is_empty() {
            let who = name.clone().unwrap_or_else(|| uid.to_string());
            fail!(
                NotFound,
                "{file} gives you no ids; a line like \"{who}:{}:65536\" in it would",
                free_start(&text)
            );
        }
        let mut all = vec![own(first)];
        for (outside, count) in found {
            let inside = all.last().map_or(0, |r| r.inside + r.count);
            all.push(IdRange { inside, outside, count: count.min(u32::MAX - inside) });
        }
        Ok(all)
    };
    Ok(Ids { users: ranges("/etc/subuid", uid)?, groups: ranges("/etc/subgid", gid)? })
}

fn user_name(passwd: &[u8], uid: u32) -> Option<String> {
    let passwd = String::from_utf8_lossy(passwd);
    let mut lines = passwd.lines().map(|l| l.split(':').collect::<Vec<_>>());
    lines.find(|f| f.len() > 2 && f[2].parse() == Ok(uid)).map(|f| f[0].to_owned())
}

/// `name:start:count` lines for a user, by name or number.
fn ranges_of(text: &str, name: Option<&str>, uid: u32) -> Vec<(u32, u32)> {
    let number = uid.to_string();
    let parse = |line: &str| {
        let mut fields = line.split(':');
        let who = fields.next()?;
        let range = (fields.next()?.trim().parse().ok()?, fields.next()?.trim().parse().ok()?);
        (Some(who) == name || who == number).then_some(range)
    };
    text.lines().filter_map(parse).filter(|r| r.1 > 0).collect()
}

/// The first start, in steps of 65536 from 100000, that overlaps no line.
fn free_start(text: &str) -> u32 {
    let taken: Vec<(u64, u64)> = text
        .lines()
        .filter_map(|l| {
            let mut f = l.split(':').skip(1);
            let start: u64 = f.next()?.trim().parse().ok()?;
            Some((start, start + f.next()?.trim().parse::<u64>().ok()?))
        })
        .collect();
    let free = |s: &u64| taken.iter().all(|&(a, b)| s + 65536 <= a || *s >= b);
    (0u64..60_000).map(|i| 100_000 + i * 65_536).find(free).unwrap_or(100_000) as u32
}

fn helper(name: &str) -> Result<PathBuf> {
    let places = ["/usr/bin", "/bin", "/usr/sbin", "/usr/local/bin"];
    match places.iter().map(|d| Path::new(d).join(name)).find(|p| p.exists()) {
        Some(path) => Ok(path),
        None => fail!(NotFound, "{name} is not installed (Debian: package uidmap)"),
    }
}

/// Does some work in a child with a user namespace of these ids, as its root, and hands the result back.
/// The caller must have no threads yet. Errors: the work's; a namespace or a mapping that the kernel refuses.
pub fn inside<T: Serialize + DeserializeOwned>(ids: &Ids, work: impl FnOnce() -> Result<T>) -> Result<T> {
    in_child(libc::CLONE_NEWUSER, Some(ids), work)
}

/// Does some work in a child with a mount namespace of its own, from which nothing propagates; for a user without
/// privileges, as root of a user namespace of these ids. What is mounted there ends with the child. The caller must
/// have no threads yet. Errors: as of [`inside`].
pub fn workshop<T: Serialize + DeserializeOwned>(
    ids: Option<&Ids>,
    work: impl FnOnce() -> Result<T>,
) -> Result<T> {
    let flags = libc::CLONE_NEWNS | if ids.is_some() { libc::CLONE_NEWUSER } else { 0 };
    in_child(flags, ids, || {
        mount::mount(None, c"/", None, libc::MS_REC | libc::MS_PRIVATE, None).doing(|| "part the mounts")?;
        work()
    })
}

/// Does some work in a child without anything else of its own, so that this process does not grow and starts no
/// thread. Errors: the work's.
pub fn aside<T: Serialize + DeserializeOwned>(work: impl FnOnce() -> Result<T>) -> Result<T> {
    in_child(0, None, work)
}

fn in_child<T: Serialize + DeserializeOwned>(
    flags: i32,
    ids: Option<&Ids>,
    work: impl FnOnce() -> Result<T>,
) -> Result<T> {
    let (ready, go) = poll::pipe()?;
    let (answer, tell) = poll::pipe()?;
    let args = CloneArgs { flags: flags as u64, cgroup: None, sibling: false };
    match process::clone3(&args).doing(|| "make namespaces to work in")? {
        Cloned::Child => {
            drop((go, answer));
            child(&ready, &tell, work)
        }
        Cloned::Parent(pid, _) => {
            drop((ready, tell));
            parent(pid, ids, go, &answer)
        }
    }
}

fn parent<T: DeserializeOwned>(pid: i32, ids: Option<&Ids>, go: OwnedFd, answer: &OwnedFd) -> Result<T> {
    let mapped = ids.map_or(Ok(()), |ids| map_all(pid, ids));
    if mapped.is_ok() {
        fs::write_all(go.as_fd(), b"1")?;
    }
    drop(go);
    let bytes = fs::read_to_end(answer.as_fd(), 1 << 20)?;
    process::wait(pid, 0)?;
    mapped?;
    let result: std::result::Result<T, String> = serde_json::from_slice(&bytes)
        .map_err(|_| Error::new(Kind::Busy, "the unpacking process was killed"))?;
    result.map_err(|text| Error::new(Kind::Corrupt, text))
}

fn child<T: Serialize>(ready: &OwnedFd, tell: &OwnedFd, work: impl FnOnce() -> Result<T>) -> ! {
    // Dies with the parent, and does nothing if that could not map ids.
    let mut byte = [0];
    let mapped = process::set_pdeathsig(libc::SIGKILL).and_then(|()| fs::read(ready.as_fd(), &mut byte));
    let code = match mapped {
        Ok(1) => {
            let result = work().map_err(|e| e.to_string());
            let told = serde_json::to_vec(&result).map(|bytes| fs::write_all(tell.as_fd(), &bytes));
            i32::from(told.is_err())
        }
        _ => 1,
    };
    process::exit_now(code)
}

/// The own id alone needs no helper, once setgroups(2) is given up: user_namespaces(7).
fn map_all(pid: i32, ids: &Ids) -> Result<()> {
    if let ([user], [group]) = (&ids.users[..], &ids.groups[..])
        && (user.count, group.count) == (1, 1)
    {
        let lines = [
            ("setgroups", "deny".to_owned()),
            ("gid_map", format!("{} {} 1", group.inside, group.outside)),
            ("uid_map", format!("{} {} 1", user.inside, user.outside)),
        ];
        for (file, text) in lines {
            let path = format!("/proc/{pid}/{file}");
            std::fs::write(&path, text).doing(|| format!("write {path}"))?;
        }
        return Ok(());
    }
    map(pid, "newuidmap", &ids.users).and_then(|()| map(pid, "newgidmap", &ids.groups))
}

fn map(pid: i32, name: &str, ranges: &[IdRange]) -> Result<()> {
    let numbers = ranges.iter().flat_map(|r| [r.inside, r.outside, r.count]).map(|n| n.to_string());
    let run = Command::new(helper(name)?)
        .arg(pid.to_string())
        .args(numbers)
        .output()
        .doing(|| format!("run {name}"))?;
    if run.status.success() {
        return Ok(());
    }
    fail!(Unsupported, "{name}: {}", String::from_utf8_lossy(&run.stderr).trim().escape_debug())
}

/// What an image needs that the caller does not have: the message for it, with the line that would help.
pub fn too_few(ids: &Ids, highest: (u32, u32)) -> Option<String> {
    let lacks =
        |ranges: &[IdRange], id: u32| !ranges.iter().any(|r| id >= r.inside && id - r.inside < r.count);
    let (users, groups) = (lacks(&ids.users, highest.0), lacks(&ids.groups, highest.1));
    if !users && !groups {
        return None;
    }
    // Within their namespace the caller is root: who that is outside, the ids say.
    let own = ids.users.iter().find(|r| r.inside == 0).map_or_else(creds::geteuid, |r| r.outside);
    let name =
        user_name(&std::fs::read("/etc/passwd").unwrap_or_default(), own).unwrap_or_else(|| own.to_string());
    let wanted = highest.0.max(highest.1).max(65_535);
    let file = if users { "/etc/subuid" } else { "/etc/subgid" };
    let start = free_start(&std::fs::read_to_string(file).unwrap_or_default());
    Some(format!(
        "the image has files of user {} and group {}, for which {file} gives you no ids; with the line \"{name}:{start}:{wanted}\" it would",
        highest.0, highest.1
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_of_subuid() {
        let text = "# no\nann:100000:65536\n1000:300000:10\nbob:1:x\nann:500000:0\n";
        assert_eq!(ranges_of(text, Some("ann"), 1000), [(100000, 65536), (300000, 10)]);
        assert_eq!(ranges_of(text, None, 7), []);
        assert_eq!(free_start(text), 165536);
        assert_eq!(user_name(b"root:x:0:0\nann:x:1000:1\n", 1000).as_deref(), Some("ann"));
    }

    #[test]
    fn a_namespace_of_one_id() {
        assert!(has_one_id("         0       1000          1\n"));
        assert!(!has_one_id("         0          0 4294967295\n"));
        assert!(!has_one_id("         0       1000          1\n         1     100000      65536\n"));
    }

    #[test]
    fn ids_that_are_missing_are_named() {
        let ids = Ids {
            users: vec![own(4_000_000_000), IdRange { inside: 1, outside: 9, count: 10 }],
            groups: vec![own(5)],
        };
        assert_eq!(too_few(&ids, (10, 0)), None);
        let said = too_few(&ids, (11, 0)).unwrap();
        assert!(said.contains("/etc/subuid") && said.contains("\"4000000000:"), "{said}");
        assert!(too_few(&ids, (10, 70000)).unwrap().contains(":70000\""));
    }
}
