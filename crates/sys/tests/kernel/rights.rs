//! Ids, capabilities, filters, keyrings, user namespaces.

use crate::Needs::{Nothing, Root};
use crate::{Check, Doing, Outcome, Test, child, equal, forbidden, status};
use coracle_sys::creds::{self, CapSets};
use coracle_sys::process::{self, CloneArgs, Cloned};
use coracle_sys::{Errno, fs, keyring, libc, namespace, seccomp};
use std::os::fd::AsFd;

pub(crate) const TESTS: &[Test] = &[
    ("creds: sets, bounding set, ambient set read back outside", Root, capabilities),
    ("creds: ids change for good, groups with them", Root, ids),
    ("creds: keepcaps and securebits decide what a change of ids takes", Root, keeping),
    ("namespace: a user namespace is root inside and mapped outside", Nothing, user_namespace),
    ("seccomp: a filter refuses what it says and stays", Nothing, filter),
    ("seccomp: a listener comes back", Nothing, listener),
    ("keyring: a session of its own, with rights", Nothing, session_keyring),
];

const CHOWN: u64 = 1 << 0;
const KILL: u64 = 1 << 5;
const SETPCAP: u64 = 1 << 8;

fn mask(key: &str) -> Result<u64, String> {
    u64::from_str_radix(&status(key)?, 16).map_err(|e| e.to_string())
}

fn capabilities() -> Check {
    child(0, || {
        let before = mask("CapBnd")?;
        creds::capbset_drop(5).doing("bounding")?;
        equal("bounding", mask("CapBnd")?, before & !KILL)?;
        equal("read", creds::capbset_read(5), Ok(false))?;
        let sets = CapSets { effective: CHOWN, permitted: CHOWN | SETPCAP, inheritable: CHOWN };
        creds::capset(&sets).doing("capset")?;
        equal("sets", (mask("CapEff")?, mask("CapPrm")?, mask("CapInh")?), (CHOWN, CHOWN | SETPCAP, CHOWN))?;
        equal("ambient needs both", creds::ambient_raise(8), Err(Errno::EPERM))?;
        creds::ambient_raise(0).doing("ambient")?;
        equal("ambient", mask("CapAmb")?, CHOWN)?;
        creds::ambient_clear_all().doing("ambient")?;
        equal("ambient", mask("CapAmb")?, 0)?;
        equal("no way back", creds::capset(&CapSets { permitted: u64::MAX >> 24, ..sets }), Err(Errno::EPERM))
    })?;
    Ok(Outcome::Fine)
}

fn ids() -> Check {
    child(0, || {
        creds::setgroups(&[7, 70_000]).doing("setgroups")?;
        equal("groups", creds::getgroups(), Ok(vec![7, 70_000]))?;
        creds::setgid_all(1001).doing("setresgid")?;
        creds::setuid_all(4_294_967_294).doing("setresuid")?;
        equal("uid", status("Uid")?.as_str(), "4294967294\t4294967294\t4294967294\t4294967294")?;
        equal("gid", status("Gid")?.as_str(), "1001\t1001\t1001\t1001")?;
        equal("groups", status("Groups")?.as_str(), "7 70000")?;
        equal("capabilities", mask("CapPrm")?, 0)?;
        equal("no way back", creds::setuid_all(0), Err(Errno::EPERM))
    })?;
    Ok(Outcome::Fine)
}

fn keeping() -> Check {
    const NO_SETUID_FIXUP: u32 = 1 << 2;
    child(0, || {
        creds::set_keepcaps(true).doing("keepcaps")?;
        creds::setuid_all(1000).doing("setresuid")?;
        equal("kept, but not effective", (mask("CapPrm")? != 0, mask("CapEff")?), (true, 0))
    })?;
    child(0, || {
        creds::set_securebits(NO_SETUID_FIXUP).doing("securebits")?;
        equal("securebits", creds::securebits(), Ok(NO_SETUID_FIXUP))?;
        creds::setuid_all(1000).doing("setresuid")?;
        equal("kept, and effective", mask("CapEff")? != 0, true)
    })?;
    Ok(Outcome::Fine)
}

fn user_namespace() -> Check {
    let (uid, gid) = (creds::geteuid(), creds::getegid());
    let work = || {
        let write = |file: &std::ffi::CStr, text: String| {
            let fd = fs::open(file, libc::O_WRONLY, 0).doing("opening a map")?;
            fs::write_all(fd.as_fd(), text.as_bytes()).doing("writing a map")
        };
        equal("before it is mapped", creds::geteuid(), 65534)?;
        write(c"/proc/self/setgroups", "deny".into())?;
        write(c"/proc/self/uid_map", format!("0 {uid} 1"))?;
        write(c"/proc/self/gid_map", format!("0 {gid} 1"))?;
        equal("inside", (creds::geteuid(), creds::getegid()), (0, 0))?;
        equal("groups are denied", creds::setgroups(&[]), Err(Errno::EPERM))?;
        equal("another id is not mapped", creds::setuid_all(1), Err(Errno::EINVAL))?;
        namespace::unshare(libc::CLONE_NEWUTS).doing("unshare")?;
        namespace::sethostname(b"inside").doing("sethostname")?;
        namespace::setdomainname(b"domain").doing("setdomainname")?;
        let name = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
        equal("name", name.trim(), "inside")?;
        equal("a long name", namespace::sethostname(&[b'x'; 65]), Err(Errno::EINVAL))
    };
    // Whether the host allows it is asked first.
    match process::clone3(&CloneArgs { flags: libc::CLONE_NEWUSER as u64, cgroup: None, sibling: false }) {
        Ok(Cloned::Child) => process::exit_now(0),
        Ok(Cloned::Parent(pid, _)) => process::wait(pid, 0).map(drop).doing("wait")?,
        Err(e) if forbidden(e) => {
            return Ok(Outcome::Skip(format!("this host forbids user namespaces: {e}")));
        }
        Err(e) => return Err(format!("clone3: {e}")),
    }
    child(libc::CLONE_NEWUSER as u64, work)?;
    Ok(Outcome::Fine)
}

/// A filter that answers one syscall with `answer` and lets all others pass. struct sock_filter: code 2, jt 1, jf 1, k 4.
fn program(number: i64, answer: u32) -> Vec<u8> {
    let insn = |code: u16, jt: u8, jf: u8, k: u32| {
        [code.to_ne_bytes().as_slice(), &[jt, jf], &k.to_ne_bytes()].concat()
    };
    [
        insn(0x20, 0, 0, 0),                       // load the syscall's number
        insn(0x15, 0, 1, number as u32),           // equal: go on, else skip one
        insn(0x06, 0, 0, answer),                  // return
        insn(0x06, 0, 0, libc::SECCOMP_RET_ALLOW), // return
    ]
    .concat()
}

fn filter() -> Check {
    child(0, || {
        let refuse = program(libc::SYS_personality, libc::SECCOMP_RET_ERRNO | libc::EPROTO as u32);
        if creds::geteuid() != 0 {
            equal("without no_new_privs", seccomp::set_filter(&refuse, 0).err(), Some(Errno::EACCES))?;
        }
        process::set_no_new_privs().doing("no_new_privs")?;
        equal("no_new_privs", process::no_new_privs(), Ok(true))?;
        equal(
            "a filter that never returns",
            seccomp::set_filter(&refuse[..8], 0).err(),
            Some(Errno::EINVAL),
        )?;
        equal("no listener", seccomp::set_filter(&refuse, 0).doing("filter")?.is_none(), true)?;
        equal("mode", (seccomp::mode(), status("Seccomp")?.as_str()), (Ok(2), "2"))?;
        equal("refused", process::personality(0), Err(Errno::EPROTO))?;
        child(0, || equal("in a child too", process::personality(0), Err(Errno::EPROTO)))
    })?;
    Ok(Outcome::Fine)
}

fn listener() -> Check {
    child(0, || {
        process::set_no_new_privs().doing("no_new_privs")?;
        let notify = program(libc::SYS_personality, libc::SECCOMP_RET_USER_NOTIF);
        let fd = seccomp::set_filter(&notify, seccomp::NEW_LISTENER).doing("filter")?.ok_or("no listener")?;
        let name = fs::readlinkat(fs::cwd(), &fs::proc_fd_path(&fd)).doing("readlink")?;
        equal("it is a listener", String::from_utf8_lossy(&name).as_ref(), "anon_inode:seccomp notify")?;
        equal("a second one", seccomp::set_filter(&notify, seccomp::NEW_LISTENER).err(), Some(Errno::EBUSY))
    })?;
    Ok(Outcome::Fine)
}

fn session_keyring() -> Check {
    let mut none = false;
    if let Err(Errno::ENOSYS | Errno::EPERM) = keyring::describe(-3) {
        none = true;
    }
    if none {
        return Ok(Outcome::Skip("this kernel or its filter has no keyrings".into()));
    }
    child(0, || {
        let name = std::ffi::CString::new(format!("coracle-test-{}", process::getpid())).unwrap_or_default();
        let serial = keyring::join_session(&name).doing("join")?;
        let told = || {
            Ok::<_, String>(
                String::from_utf8_lossy(&keyring::describe(serial).doing("describe")?).into_owned(),
            )
        };
        let (first, uid) = (told()?, creds::geteuid());
        equal("what it is", first.starts_with(&format!("keyring;{uid};")), true)?;
        equal("its name", first.split(';').nth(4), name.to_str().ok())?;
        keyring::set_permissions(serial, 0x3f13_0000).doing("permissions")?;
        equal("permissions", told()?.split(';').nth(3), Some("3f130000"))?;
        equal("no such key", keyring::describe(i32::MAX).err(), Some(Errno::ENOKEY))
    })?;
    Ok(Outcome::Fine)
}
