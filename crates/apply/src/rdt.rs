//! Groups of the resctrl file system: config-linux.md, IntelRdt; the kernel's filesystems/resctrl.rst.

use crate::failure::{Doing, Failure, Result};
use coracle_plan::steps::{Class, Rdt as Plan};
use coracle_state::Rdt as Record;
use coracle_sys::{Errno, fs, libc};
use std::ffi::CString;
use std::os::fd::{AsFd, OwnedFd};

/// RDTGROUP_SUPER_MAGIC, statfs(2).
const MAGIC: i64 = 0x0765_5821;
const ORIGIN: &str = "linux.intelRdt";

/// The root of the file system.
pub(crate) struct Resctrl(OwnedFd);

/// What the record is to say of a plan.
pub(crate) fn record(plan: &Plan) -> Record {
    Record { class: plan.directory.clone(), own: plan.class == Class::Own, monitor: plan.monitor.clone() }
}

fn path(parts: &[&str]) -> CString {
    let words: Vec<&str> = parts.iter().copied().filter(|p| !p.is_empty()).collect();
    CString::new(words.join("/")).unwrap_or_default()
}

impl Resctrl {
    /// Opens it. Errors: this host has none.
    pub(crate) fn open() -> Result<Resctrl> {
        let opened = fs::open(c"/sys/fs/resctrl", libc::O_RDONLY | libc::O_DIRECTORY, 0);
        match opened.map(|root| (fs::file_system(root.as_fd()), root)) {
            Ok((Ok(MAGIC), root)) => Ok(Resctrl(root)),
            _ => Err(Failure::says(
                "no resctrl file system is mounted at /sys/fs/resctrl; remove linux.intelRdt, or mount it \
                 (mount -t resctrl resctrl /sys/fs/resctrl) where processor and kernel have it",
            )
            .at(ORIGIN)),
        }
    }

    /// Makes the groups, and writes what is asked of them. Errors: what failed; then nothing that is new is left.
    pub(crate) fn make(&self, plan: &Plan) -> Result<()> {
        let there = match plan.class {
            _ if plan.directory.is_empty() => true,
            Class::Existing => self.file(&[&plan.directory, "tasks"], libc::O_WRONLY).map(|_| true)?,
            Class::Own => self.directory(&[&plan.directory]).map(|()| false)?,
            Class::Shared => match self.directory(&[&plan.directory]) {
                Err(f) if f.errno == Some(Errno::EEXIST) => true,
                other => other.map(|()| false)?,
            },
        };
        let filled = self.fill(plan, there);
        if filled.is_err() && !there {
            let _ = fs::unlinkat(self.0.as_fd(), &path(&[&plan.directory]), libc::AT_REMOVEDIR);
        }
        filled
    }

    fn fill(&self, plan: &Plan, there: bool) -> Result<()> {
        if there {
            self.compare(plan)?
        } else {
            self.schemata(&plan.directory, &plan.first)?
        }
        self.schemata(&plan.directory, &plan.schemata)?;
        match &plan.monitor {
            Some(name) => self.directory(&[&plan.directory, "mon_groups", name]),
            None => Ok(()),
        }
    }

    /// Changes the schemata of a container's class. Errors: the kernel's; what was written before it stays.
    pub(crate) fn update(&self, groups: &Record, lines: &[String]) -> Result<()> {
        self.schemata(&groups.class, lines)
    }

    /// Puts a process into the groups; its children follow.
    pub(crate) fn join(&self, groups: &Record, pid: i32) -> Result<()> {
        let monitor =
            groups.monitor.iter().map(|name| vec![groups.class.as_str(), "mon_groups", name, "tasks"]);
        // The class first: a monitoring group takes only processes of its own.
        for file in [vec![groups.class.as_str(), "tasks"]].into_iter().chain(monitor) {
            let fd = self.file(&file, libc::O_WRONLY)?;
            let written = fs::write_all(fd.as_fd(), pid.to_string().as_bytes());
            written.map_err(|e| self.failed(format!("writing process {pid} to {}", file.join("/")), e))?;
        }
        Ok(())
    }

    /// Removes what ends with the container. Errors: what is still there.
    pub(crate) fn remove(&self, groups: &Record) -> Result<()> {
        let monitor = groups.monitor.iter().map(|name| vec![groups.class.as_str(), "mon_groups", name]);
        let class = groups.own.then(|| vec![groups.class.as_str()]);
        for directory in monitor.chain(class) {
            match fs::unlinkat(self.0.as_fd(), &path(&directory), libc::AT_REMOVEDIR) {
                Ok(()) | Err(Errno::ENOENT) => {}
                Err(e) => return Err(self.failed(format!("removing the group {}", directory.join("/")), e)),
            }
        }
        Ok(())
    }

    fn directory(&self, parts: &[&str]) -> Result<()> {
        fs::mkdirat(self.0.as_fd(), &path(parts), 0o755)
            .map_err(|e| self.failed(format!("making the resctrl group {}", parts.join("/")), e))
    }

    fn file(&self, parts: &[&str], flags: i32) -> Result<OwnedFd> {
        let beneath = fs::RESOLVE_BENEATH | fs::RESOLVE_NO_MAGICLINKS;
        fs::openat2(self.0.as_fd(), &path(parts), flags, 0, beneath)
            .map_err(|e| self.failed(format!("opening {} of resctrl", parts.join("/")), e))
    }

    fn schemata(&self, class: &str, lines: &[String]) -> Result<()> {
        for line in lines {
            let fd = self.file(&[class, "schemata"], libc::O_WRONLY)?;
            fs::write_all(fd.as_fd(), format!("{line}\n").as_bytes())
                .map_err(|e| self.failed(format!("writing {line:?} to the schemata"), e))?;
        }
        Ok(())
    }

    fn compare(&self, plan: &Plan) -> Result<()> {
        if plan.first.is_empty() {
            return Ok(());
        }
        let fd = self.file(&[&plan.directory, "schemata"], libc::O_RDONLY)?;
        let bytes = fs::read_to_end(fd.as_fd(), 1 << 20).doing(|| "reading the schemata".into())?;
        let text = String::from_utf8_lossy(&bytes);
        match plan.first.iter().find(|line| !holds(&text, line)) {
            None => Ok(()),
            Some(line) => Err(Failure::says(format!(
                "the class of service /{} is there already and does not have {line:?}; choose another closID, or its schemata",
                plan.directory
            ))
            .at(ORIGIN)),
        }
    }

    /// With the sentence that the kernel has for it.
    fn failed(&self, doing: String, errno: Errno) -> Failure {
        let why = fs::openat(self.0.as_fd(), c"info/last_cmd_status", libc::O_RDONLY, 0)
            .and_then(|fd| fs::read_to_end(fd.as_fd(), 4096))
            .map(|bytes| String::from_utf8_lossy(&bytes).trim().to_owned())
            .unwrap_or_default();
        let why =
            if why.is_empty() || why == "ok" { String::new() } else { format!(" (the kernel says: {why})") };
        Failure::errno(doing + &why, errno).at(ORIGIN)
    }
}

/// Whether schemata have what a line says: `L3:0=ff;1=f0` of a resource, in any order, numbers with or without zeros before.
fn holds(schemata: &str, line: &str) -> bool {
    fn parts(line: &str) -> Option<(&str, Vec<(&str, String)>)> {
        let (resource, rest) = line.trim().split_once(':')?;
        let value = |v: &str| v.trim().trim_start_matches('0').to_lowercase();
        let one = |part| str::split_once(part, '=').map(|(id, v)| (id.trim(), value(v)));
        Some((resource, rest.split(';').filter_map(one).collect()))
    }
    let Some((resource, wanted)) = parts(line) else { return false };
    let there = schemata.lines().filter_map(parts).find(|(r, _)| *r == resource);
    there.is_some_and(|(_, has)| wanted.iter().all(|one| has.contains(one)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn schemata_are_compared_by_meaning() {
        let text = "    MB:0=100;1=100\n    L3:0=00ff;1=fffff\n";
        for line in ["L3:0=ff;1=FFFFF", "L3:1=fffff", "MB:0=100", " MB: 1 = 100"] {
            assert!(holds(text, line), "{line}");
        }
        for line in ["L3:0=f", "L3:2=ff", "MB:0=10", "L2:0=1", "nonsense"] {
            assert!(!holds(text, line), "{line}");
        }
    }

    /// A directory in place of the file system: what is opened, compared and written in a class that is there.
    #[test]
    fn a_class_that_is_there_must_match_and_takes_the_process() {
        let at = std::env::temp_dir().join(format!("coracle-resctrl-{}", std::process::id()));
        std::fs::create_dir_all(at.join("gold/mon_groups")).expect("directory");
        for (file, text) in [("tasks", ""), ("schemata", "MB:0=50\nL3:0=f\n")] {
            std::fs::write(at.join("gold").join(file), text).expect("file");
        }
        let name = CString::new(at.as_os_str().as_encoded_bytes()).expect("path");
        let root = Resctrl(fs::open(&name, libc::O_RDONLY | libc::O_DIRECTORY, 0).expect("open"));
        let mut plan = Plan {
            directory: "gold".into(),
            class: Class::Shared,
            first: vec!["MB:0=70".into()],
            schemata: Vec::new(),
            monitor: Some("c1".into()),
        };
        assert!(root.make(&plan).expect_err("differs").doing.contains("does not have"));
        plan.first = vec!["MB:0=50".into()];
        plan.schemata = vec!["MB:0=20".into()];
        root.make(&plan).expect("matches");
        let schemata = || std::fs::read_to_string(at.join("gold/schemata")).expect("read");
        assert_eq!(schemata(), "MB:0=20\nL3:0=f\n");
        root.update(&record(&plan), &["MB:0=30".into()]).expect("update");
        assert_eq!(schemata(), "MB:0=30\nL3:0=f\n");
        std::fs::write(at.join("gold/mon_groups/c1/tasks"), "").expect("file");
        root.join(&record(&plan), 7).expect("join");
        for file in ["gold/tasks", "gold/mon_groups/c1/tasks"] {
            assert_eq!(std::fs::read_to_string(at.join(file)).expect("read"), "7");
        }
        std::fs::remove_file(at.join("gold/mon_groups/c1/tasks")).expect("remove");
        root.remove(&record(&plan)).expect("remove");
        assert!(at.join("gold").is_dir() && !at.join("gold/mon_groups/c1").exists());
        let missing = Plan { directory: "silver".into(), class: Class::Existing, first: Vec::new(), ..plan };
        assert_eq!(root.make(&missing).expect_err("missing").errno, Some(Errno::ENOENT));
        std::fs::remove_dir_all(&at).expect("remove");
    }
}
