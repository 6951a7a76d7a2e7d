//! Births in a cgroup, and device programs: in a cgroup v2 file system mounted where only this program sees it.

use crate::Needs::Root;
use crate::{Check, Doing, Outcome, Test, begin, end, equal};
use coracle_sys::bpf::{self, Insn};
use coracle_sys::process::CloneArgs;
use coracle_sys::{Errno, fs, libc, mount, process};
use std::ffi::CString;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

pub(crate) const TESTS: &[Test] = &[
    ("process: a child is born into its cgroup", Root, born),
    ("bpf: a device program decides, beside another too, is taken away", Root, devices),
    ("bpf: the verifier says why", Root, verifier),
];

/// A cgroup of the test's own, removed at its end.
struct Group {
    parent: OwnedFd,
    name: CString,
    dir: OwnedFd,
}

impl Group {
    fn new(what: &str) -> Result<Group, String> {
        let context = mount::fsopen(c"cgroup2").doing("fsopen cgroup2")?;
        mount::fsconfig_create(context.as_fd()).doing("cgroup2")?;
        let parent = mount::fsmount(context.as_fd(), 0).doing("fsmount cgroup2")?;
        let name = CString::new(format!("coracle-sys-{what}-{}", process::getpid())).unwrap_or_default();
        fs::mkdirat(parent.as_fd(), &name, 0o755).doing("making a cgroup")?;
        let dir =
            fs::openat(parent.as_fd(), &name, libc::O_DIRECTORY | libc::O_RDONLY, 0).doing("opening it")?;
        Ok(Group { parent, name, dir })
    }

    /// Work by a child of this cgroup.
    fn within(&self, work: impl FnOnce() -> Result<(), String>) -> Result<(), String> {
        let (pid, said) =
            begin(&CloneArgs { flags: 0, cgroup: Some(self.dir.as_fd()), sibling: false }, work)?;
        end(pid, said)
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        // Who has just been waited for may still be leaving.
        for _ in 0..100 {
            match fs::unlinkat(self.parent.as_fd(), &self.name, libc::AT_REMOVEDIR) {
                Err(Errno::EBUSY) => std::thread::sleep(std::time::Duration::from_millis(10)),
                _ => return,
            }
        }
    }
}

fn born() -> Check {
    let group = Group::new("born")?;
    let name = group.name.to_string_lossy().into_owned();
    group.within(|| {
        let own = std::fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
        let line = own.lines().find_map(|l| l.strip_prefix("0::")).unwrap_or_default().to_owned();
        equal("its cgroup", line.rsplit('/').next(), Some(name.as_str()))
    })?;
    let not_one = fs::open(c"/", libc::O_RDONLY, 0).doing("/")?;
    let args = CloneArgs { flags: 0, cgroup: Some(not_one.as_fd()), sibling: false };
    equal("what is no cgroup", process::clone3(&args).err(), Some(Errno::EBADF))?;
    Ok(Outcome::Fine)
}

/// mov r0, verdict; exit
fn verdict(allow: bool) -> [Insn; 2] {
    [
        Insn { code: 0xb7, regs: 0, off: 0, imm: i32::from(allow) },
        Insn { code: 0x95, regs: 0, off: 0, imm: 0 },
    ]
}

fn devices() -> Check {
    let group = Group::new("devices")?;
    let deny = match bpf::load_device_program(&verdict(false)) {
        Err(Errno::ENOSYS | Errno::EINVAL) => {
            return Ok(Outcome::Skip("this kernel has no device programs (CONFIG_CGROUP_BPF)".into()));
        }
        other => other.doing("load")?,
    };
    let allow = bpf::load_device_program(&verdict(true)).doing("load")?;
    let opens = |wanted: Result<(), Errno>| {
        group.within(|| equal("/dev/null", fs::open(c"/dev/null", libc::O_RDWR, 0).map(drop), wanted))
    };
    let dir: BorrowedFd = group.dir.as_fd();
    equal("none at first", bpf::device_programs(dir), Ok(vec![]))?;
    opens(Ok(()))?;
    bpf::attach_device_program(dir, allow.as_fd()).doing("attach")?;
    opens(Ok(()))?;
    bpf::attach_device_program(dir, deny.as_fd()).doing("attach beside it")?;
    opens(Err(Errno::EPERM))?;
    let ids = bpf::device_programs(dir).doing("query")?;
    equal("both", ids.len(), 2)?;
    bpf::detach_device_program(dir, deny.as_fd()).doing("detach")?;
    opens(Ok(()))?;
    let only = bpf::device_programs(dir).doing("query")?;
    equal("one is left", (only.len(), ids.contains(&only[0])), (1, true))?;
    let found = bpf::program_by_id(only[0]).doing("by id")?;
    bpf::detach_device_program(dir, found.as_fd()).doing("detach by id")?;
    equal("none", bpf::device_programs(dir), Ok(vec![]))?;
    equal("gone", bpf::detach_device_program(dir, allow.as_fd()), Err(Errno::ENOENT))?;
    equal("no such id", bpf::program_by_id(u32::MAX).err(), Some(Errno::ENOENT))?;
    Ok(Outcome::Fine)
}

fn verifier() -> Check {
    // Returns without ever having set r0.
    let bad = &verdict(true)[1..];
    match bpf::load_device_program(bad).err() {
        Some(Errno::EACCES) => {}
        Some(Errno::ENOSYS | Errno::EINVAL) => {
            return Ok(Outcome::Skip("this kernel has no device programs".into()));
        }
        other => return Err(format!("load: {other:?}")),
    }
    let said = bpf::verifier_log(bad);
    if !said.contains("R0 !read_ok") {
        return Err(format!("log: {said:?}"));
    }
    Ok(Outcome::Fine)
}
