//! Control groups: made before the clone (or by systemd, around the first process), found again by path, killed and
//! removed. v2 here and in `v2`, v1 in `v1`, scopes in `scope`, the writing of limits in `limits`.

mod limits;
pub mod oom;
pub mod scope;
mod stats;
mod tree;
mod v1;
mod v2;

use crate::failure::{Doing, Failure, Result};
use crate::probe;
use coracle_plan::inputs::CgroupMode;
use coracle_plan::steps::{Cgroup as Plan, NO_DEVICE_RULES, Update};
use coracle_state::Unit;
use coracle_sys::{Errno, fs, libc};
use std::ffi::CString;
use std::os::fd::{AsFd, OwnedFd};
use std::time::{Duration, Instant};

pub(crate) use stats::nothing as nothing_counted;
pub(crate) use v1::hierarchies;

/// What failed, by the name that callers know it by.
const UNABLE: &str = "unable to apply cgroup configuration";

/// How long a group may take to become empty after its processes were killed.
const EMPTY: Duration = Duration::from_secs(10);

/// A control group of a container.
pub struct Cgroup {
    /// From the mount's root.
    pub path: String,
    /// Its directories: one of v2, or one a v1 hierarchy.
    dirs: Vec<String>,
    v2: bool,
    /// The scope that systemd made it for, and where below that it is.
    unit: Option<Unit>,
    below: String,
}

pub(crate) fn c(path: &str) -> CString {
    CString::new(path).unwrap_or_default()
}

/// Writes a value into a file of a group in one write.
pub(crate) fn write(dir: &str, file: &str, value: &str) -> coracle_sys::Result<()> {
    let fd = fs::open(&c(&format!("{dir}/{file}")), libc::O_WRONLY, 0)?;
    fs::write(fd.as_fd(), value.as_bytes()).map(drop)
}

/// Reads a file of a group, without the newline at its end.
pub(crate) fn read(dir: &str, file: &str) -> coracle_sys::Result<String> {
    let fd = fs::open(&c(&format!("{dir}/{file}")), libc::O_RDONLY, 0)?;
    fs::read_to_end(fd.as_fd(), 1 << 20).map(|b| String::from_utf8_lossy(&b).trim_end().to_owned())
}

/// The same where it matters that it cannot be read: `None` where the group, or the file in it, is not there.
fn told(dir: &str, file: &str) -> Result<Option<String>> {
    match read(dir, file) {
        Ok(text) => Ok(Some(text)),
        Err(Errno::ENOENT | Errno::ENODEV) => Ok(None),
        Err(e) => Err(Failure::errno(format!("reading {dir}/{file}"), e)),
    }
}

impl Cgroup {
    /// Finds a container's group by what its record says.
    pub fn known(path: &str, legacy: bool, unit: Option<Unit>) -> Cgroup {
        let dirs = match legacy {
            false => vec![format!("{}{path}", v2::ROOT)],
            true => v1::dirs(path),
        };
        Cgroup { path: path.to_owned(), dirs, v2: !legacy, unit, below: String::new() }
    }

    /// Whether the group may be taken. Asked before anything is written down: else a death at once, and the delete after it,
    /// would end those who are in it.
    /// Errors: somebody is in it, or it is frozen.
    pub fn check(plan: &Plan) -> Result<()> {
        let Some(cgroup) = Cgroup::planned(plan) else { return Ok(()) };
        let there = cgroup.dirs.iter().any(|dir| exists(dir));
        if there && cgroup.of_others(plan).is_none() { cgroup.fit() } else { Ok(()) }
    }

    /// The directory that shows that a group which nobody asked for by name is somebody else's, who gave a container the same
    /// name: to a caller without rights, it is as if none could be had.
    fn of_others(&self, plan: &Plan) -> Option<&String> {
        if !(plan.optional && plan.rootless) {
            return None;
        }
        self.dirs.iter().find(|dir| closed(dir))
    }

    fn planned(plan: &Plan) -> Option<Cgroup> {
        let unit = plan.unit.as_ref().map(|u| Unit { name: u.name.clone(), user: u.user });
        plan.path.as_ref().map(|path| Cgroup::known(path, plan.mode == CgroupMode::Legacy, unit))
    }

    /// Makes the group and sets its limits; one that systemd is to make waits for [`Cgroup::adopt`]. `None` when none is
    /// asked for, or none can be had and none is needed.
    pub fn create(plan: &Plan) -> Result<Option<Cgroup>> {
        let Some(cgroup) = Cgroup::planned(plan) else { return Ok(None) };
        if cgroup.unit.is_some() {
            return Ok(Some(cgroup));
        }
        let made = match cgroup.of_others(plan) {
            Some(dir) => Err(Failure::errno(format!("{UNABLE}: {dir} is not this user's"), Errno::EACCES)),
            None => cgroup.make().and_then(|()| {
                cgroup.settle(plan).inspect_err(|_| {
                    let _ = cgroup.remove();
                })
            }),
        };
        match made {
            Ok(()) => Ok(Some(cgroup)),
            Err(failure) => without(plan, failure).map(|()| None),
        }
    }

    /// That there are no directories is true: a host may mount no hierarchy, and its containers go without.
    /// Errors: there are some, or nobody can tell.
    fn found(&self) -> Result<()> {
        if self.dirs.is_empty() && !hierarchies()?.is_empty() {
            return Err(Failure::says("finding the control groups: /proc/self/mountinfo could not be read"));
        }
        Ok(())
    }

    /// The directories, with those above them. One that is there already is nobody's to remove when the rest fails.
    fn make(&self) -> Result<()> {
        self.found().map_err(|f| f.at("linux.cgroupsPath"))?;
        let mut made = Vec::new();
        let all = self.dirs.iter().try_for_each(|dir| {
            let there = if self.v2 { v2::make(dir) } else { v1::make(dir) }
                .map_err(|e| Failure::errno(format!("{UNABLE}: making {dir}"), e))
                .map_err(|f| f.at("linux.cgroupsPath"))?;
            if there {
                self.fit()?;
                return if self.v2 { v2::withdraw(dir) } else { Ok(()) };
            }
            made.push(dir);
            Ok(())
        });
        all.inspect_err(|_| {
            for dir in made {
                let _ = tree::remove(dir);
            }
        })
    }

    /// A group that exists may be used when nobody is in it, and it is not frozen: the container would be neither alone nor
    /// ever begin. config-linux.md, Control groups.
    fn fit(&self) -> Result<()> {
        let (dir, processes) = (&self.dirs[0], self.processes()?.len());
        let says = |what: String| Err(Failure::says(what).at("linux.cgroupsPath"));
        if processes > 0 {
            return says(format!(
                "container's cgroup is not empty: {processes} process(es) found in {dir}; choose another cgroupsPath, or end them"
            ));
        }
        if self.frozen()? {
            return says(format!(
                "container's cgroup unexpectedly frozen: {dir}; thaw it, or choose another cgroupsPath"
            ));
        }
        Ok(())
    }

    /// Owner and limits of a group that is there.
    fn settle(&self, plan: &Plan) -> Result<()> {
        if !self.v2 {
            return limits::write_all(&plan.writes, self.homes()?);
        }
        let settle = |again| {
            v2::hand_over(plan, &self.dirs[0], again)?;
            limits::write_all(&plan.writes, self.homes()?)
        };
        // Once more: systemd takes back, at any time, a controller that no unit of its own has a use for.
        settle(false).or_else(|_| self.join_threads().and_then(|()| settle(true)))
    }

    /// Makes a group that takes no process, because it lies below a threaded one, threaded itself.
    pub fn join_threads(&self) -> Result<()> {
        if self.v2 { v2::join_threads(&self.dirs[0]) } else { Ok(()) }
    }

    /// Device rules of a group that is there; called when the child is at work, for the kernel takes its time over a
    /// program, and before it is answered. No rules forbid mknod(2), which the child does meanwhile.
    pub fn restrict(&self, plan: &Plan, warnings: &mut Vec<String>) -> Result<()> {
        let rules = match &plan.devices {
            Some(program) if self.v2 => v2::set_filter(&self.dirs[0], program),
            _ => v1::set_devices(&plan.device_lines, self.homes()?("devices")),
        };
        match rules {
            Err(f) if f.errno == Some(Errno::EPERM) && (plan.rootless || probe::in_user_namespace()) => {
                warnings.extend(plan.devices_asked.then(|| NO_DEVICE_RULES.into()));
                Ok(())
            }
            other => other.map_err(|f| f.at("linux.resources.devices")),
        }
    }

    /// Where the files of a controller are, in the hierarchies as they are mounted now.
    fn homes(&self) -> Result<impl Fn(&str) -> Option<String> + use<>> {
        let mounted = if self.v2 { Vec::new() } else { hierarchies()? };
        let (only, path) = (self.v2.then(|| self.dirs[0].clone()), self.path.clone());
        Ok(move |controller: &str| only.clone().or_else(|| v1::home(&mounted, &path, controller)))
    }

    /// Has systemd make the group around a process, and sets what systemd does not know of.
    pub fn adopt(
        &self,
        plan: &Plan,
        bus: &mut scope::Manager,
        pid: i32,
        warnings: &mut Vec<String>,
    ) -> Result<()> {
        let Some(unit) = &plan.unit else { return self.attach(pid) };
        scope::start(bus, unit, pid)?;
        if self.v2 && !exists(&self.dirs[0]) {
            return Err(Failure::says(format!(
                "systemd made {} elsewhere than {}: is this its own cgroup namespace?",
                unit.name, self.dirs[0]
            )));
        }
        if !self.v2 {
            // systemd makes the directories of the controllers that it knows and needs, not all.
            for dir in &self.dirs {
                v1::make(dir).doing(|| format!("making {dir}"))?;
            }
            self.attach(pid)?;
        }
        self.settle(plan)?;
        self.descend(plan, &plan.subgroup, pid)
            .map_err(|f| f.at("annotations[\"run.oci.systemd.subgroup\"]"))?;
        self.restrict(plan, warnings)
    }

    /// Moves init into the group that is the container's to manage, where one was asked for; when it has its namespaces, for
    /// the root of its cgroup namespace is above that.
    pub fn delegate(&self, plan: &Plan, pid: i32) -> Result<()> {
        let below =
            if plan.delegated.is_empty() { "" } else { &format!("{}{}", plan.subgroup, plan.delegated) };
        self.descend(plan, below, pid).map_err(|f| f.at("annotations[\"run.oci.delegate-cgroup\"]"))
    }

    /// Makes the group `below` this one, moves the process there, and then, for a group with processes gives none, hands
    /// controllers down.
    fn descend(&self, plan: &Plan, below: &str, pid: i32) -> Result<()> {
        if below.is_empty() {
            return Ok(());
        }
        let dir = format!("{}{below}", self.dirs[0]);
        v2::make(&dir).doing(|| format!("making {dir}"))?;
        write(&dir, "cgroup.procs", &pid.to_string()).doing(|| format!("moving process {pid} into {dir}"))?;
        v2::hand_over(plan, &dir, false)
    }

    /// Changes limits, and has them noted down by `keep`; `bus` leads to the systemd that has the scope, if one has.
    /// Errors: what was refused; then all are what they were.
    pub fn update(
        &self,
        update: &Update,
        bus: Option<&mut scope::Manager>,
        keep: &dyn Fn() -> Result<()>,
    ) -> Result<()> {
        let home = self.homes()?;
        limits::unused(home("memory").as_deref().unwrap_or_default(), update)?;
        let before = limits::Before::read(&update.writes, &home);
        let scope = bus.zip(self.unit.as_ref()).filter(|_| !update.properties.is_empty());
        let (told, was) = match scope {
            Some((bus, unit)) => {
                let was = scope::before(bus, unit, &update.properties)?;
                (scope::set(bus, unit, &update.properties), Some((unit, was)))
            }
            None => (Ok(()), None),
        };
        // Device rules come last: only they cannot be put back.
        let changed = told
            .and_then(|()| limits::write_all(&update.writes, &home))
            .and_then(|()| keep())
            .and_then(|()| self.change_devices(update, &home));
        changed.inspect_err(|_| {
            if let Some((unit, was)) = was {
                let _ = scope::restore(unit, &was);
            }
            before.restore();
        })
    }

    fn change_devices(&self, update: &Update, home: &impl Fn(&str) -> Option<String>) -> Result<()> {
        let changed = if self.v2 {
            update.devices.as_ref().map_or(Ok(()), |program| v2::replace_filter(&self.dirs[0], program))
        } else {
            v1::replace_devices(&update.device_lines, home)
        };
        changed.map_err(|f| f.at("linux.resources.devices"))
    }

    /// The directory to clone into, of v2.
    pub fn clone_into(&self) -> Result<Option<OwnedFd>> {
        if !self.v2 {
            return Ok(None);
        }
        let dir = &self.dirs[0];
        fs::open(&c(dir), libc::O_DIRECTORY | libc::O_RDONLY, 0).doing(|| format!("opening {dir}")).map(Some)
    }

    /// What clone3(2) says of the group alone; `None`: something else was refused.
    pub fn bars(&self, errno: Errno) -> Option<Failure> {
        let why = match errno {
            Errno::EBUSY => {
                ": it hands controllers to groups below, and so has no processes itself (cgroup-v2.rst, No Internal Process Constraint); name one below it"
            }
            Errno::EACCES | Errno::ENODEV | Errno::ENOENT | Errno::EOPNOTSUPP => "",
            _ => return None,
        };
        Some(Failure::errno(
            format!("adding pid of a new process to cgroups at {}{why}", self.dirs[0]),
            errno,
        ))
    }

    /// Moves a process in, where it could not be born in. A user's systemd may where the user may not: out of the group
    /// of the login session, which the machine's systemd owns.
    pub fn attach(&self, pid: i32) -> Result<()> {
        self.found()?;
        for dir in &self.dirs {
            match (write(dir, "cgroup.procs", &pid.to_string()), &self.unit) {
                // A hierarchy in which the container has no group.
                (Err(Errno::ENOENT), _) => {}
                (Err(Errno::EACCES | Errno::EPERM), Some(unit)) => scope::attach(unit, &self.below, pid)?,
                (other, _) => other.doing(|| format!("moving process {pid} into {dir}"))?,
            }
        }
        Ok(())
    }

    /// The group below this one that `exec --cgroup` names: `path`, or on v1 `controller,controller:path`, each for its
    /// hierarchies. Errors: one that is not there, or leads out.
    pub fn below(&self, wanted: &[String]) -> Result<Cgroup> {
        let unit = self.unit.clone().filter(|_| self.v2);
        let mut out = Cgroup::known(&self.path, !self.v2, unit);
        out.dirs.clone_from(&self.dirs);
        for one in wanted {
            let (controllers, sub) = match one.split_once(':') {
                Some((controllers, sub)) => (Some(controllers), sub),
                None => (None, one.as_str()),
            };
            let words: Vec<&str> = sub.split('/').filter(|w| !w.is_empty() && *w != ".").collect();
            let tail: String = words.iter().map(|w| format!("/{w}")).collect();
            let refused =
                |why: &str| Failure::says(format!("--cgroup {one:?}: {why} (below {})", self.dirs[0]));
            if words.contains(&"..") {
                return Err(refused("bad sub cgroup path: `..` components are not allowed"));
            }
            if self.v2 && (controllers.is_some() || wanted.len() > 1) {
                return Err(refused("cgroup v2 has one hierarchy: give one path, without controllers"));
            }
            let chosen = match self.v2 {
                true => self.dirs.clone(),
                false => v1::chosen(&hierarchies()?, &self.path, controllers)
                    .map_err(|unknown| refused(&format!("unknown controller {unknown}")))?,
            };
            for (dir, own) in out.dirs.iter_mut().zip(&self.dirs) {
                if chosen.contains(own) {
                    *dir = format!("{own}{tail}");
                    if !exists(dir) {
                        return Err(refused(&format!(
                            "adding pid to {dir}: no such cgroup: no such file or directory"
                        )));
                    }
                }
            }
            if self.v2 {
                out.path = format!("{}{tail}", self.path);
                out.below.clone_from(&tail);
            }
        }
        Ok(out)
    }

    /// The group that init is in now, of v2: this one or one below, where another process can join when the container has moved
    /// its own down and turned controllers on above them (cgroup-v2.rst, No Internal Process Constraint).
    pub fn of_init(&self, pid: i32) -> Option<Cgroup> {
        let text = std::fs::read_to_string(format!("/proc/{pid}/cgroup")).ok()?;
        let path = text.lines().find_map(|l| l.strip_prefix("0::"))?;
        let below = path.strip_prefix(&self.path);
        let unit = self.unit.clone().filter(|_| below.is_some());
        Some(Cgroup { below: below.unwrap_or_default().to_owned(), ..Cgroup::known(path, false, unit) })
    }

    /// All processes of the group and of those below it. Errors: they could not be listed.
    pub fn processes(&self) -> Result<Vec<i32>> {
        self.found()?;
        let mut all = Vec::new();
        for dir in &self.dirs {
            all.extend(tree::processes(dir).doing(|| format!("listing the processes of {dir}"))?);
        }
        all.sort_unstable();
        all.dedup();
        Ok(all)
    }

    /// Sends a signal to every process. Errors: the last of those that it could not be sent to.
    pub fn signal_all(&self, signal: i32) -> Result<()> {
        if signal == libc::SIGKILL && self.v2 && write(&self.dirs[0], "cgroup.kill", "1").is_ok() {
            return Ok(());
        }
        let mut sent = Ok(());
        for pid in self.processes()? {
            match coracle_sys::process::kill(pid, signal) {
                Ok(()) | Err(Errno::ESRCH) => {}
                refused => sent = refused.doing(|| format!("sending signal {signal} to process {pid}")),
            }
        }
        sent
    }

    /// Whether it is frozen. Errors: nobody can tell.
    pub fn frozen(&self) -> Result<bool> {
        if self.v2 {
            return told(&self.dirs[0], "cgroup.freeze").map(|state| state.is_some_and(|t| t == "1"));
        }
        self.freezer()?.map_or(Ok(false), |dir| v1::frozen(&dir))
    }

    /// Errors: it is a group below the container's that somebody has frozen, or nobody can tell. What is born there does not
    /// move, and whoever waits for it waits for ever.
    pub fn moves(&self) -> Result<()> {
        let Some(dir) = self.dirs.first().filter(|_| !self.below.is_empty()) else { return Ok(()) };
        let events = told(dir, "cgroup.events")?.unwrap_or_default();
        if events.lines().any(|line| line == "frozen 1") {
            return Err(Failure::says(format!(
                "{dir} is frozen, and what joins it would never begin: write 0 to its cgroup.freeze, or to that of a group above it"
            )));
        }
        Ok(())
    }

    /// The directory by which it is frozen, where there is one.
    pub fn freezer(&self) -> Result<Option<String>> {
        self.homes().map(|home| home("freezer"))
    }

    /// Freezes or thaws; returns when it is done.
    pub fn freeze(&self, on: bool) -> Result<()> {
        if !self.v2 {
            return v1::freeze(self.freezer()?, on);
        }
        let dir = &self.dirs[0];
        write(dir, "cgroup.freeze", if on { "1" } else { "0" })
            .doing(|| format!("writing {dir}/cgroup.freeze"))?;
        let wanted = if on { "frozen 1" } else { "frozen 0" };
        v2::await_event(dir, wanted, EMPTY).inspect_err(|_| {
            // Who hears that it was not paused would not resume it.
            let _ = if on { write(dir, "cgroup.freeze", "0") } else { Ok(()) };
        })
    }

    /// Kills what is in it, waits until it is empty, removes it and all below, and has systemd forget its scope.
    /// Fine when it is gone already.
    pub fn remove(&self) -> Result<()> {
        self.found()?;
        // Without processes or groups below, as after the end of init, it goes at once. A scope's is systemd's to look at first.
        if self.unit.is_none() && self.dirs.iter().all(|dir| tree::rmdir(dir).is_ok()) {
            return Ok(());
        }
        if self.dirs.iter().any(|d| exists(d)) {
            self.kill();
        }
        let stopped = self.unit.as_ref().map_or(Ok(()), scope::stop);
        self.remove_directories()?;
        // Without its group the scope ends by itself; what is left is at most a note that it failed.
        stopped.or_else(|f| if self.unit.is_some() && self.v2 { Ok(()) } else { Err(f) })
    }

    /// Who does not die shows when the directories are removed.
    fn kill(&self) {
        let _ = self.signal_all(libc::SIGKILL);
        if self.v2 {
            let _ = write(&self.dirs[0], "cgroup.freeze", "0");
        } else {
            let _ = self.freezer().and_then(|dir| v1::freeze(dir, false));
        }
    }

    fn remove_directories(&self) -> Result<()> {
        let end = Instant::now() + EMPTY;
        loop {
            let left = self.dirs.iter().find_map(|dir| tree::remove(dir).err().map(|e| (dir, e)));
            match left {
                None => return Ok(()),
                Some((_, Errno::EBUSY)) if Instant::now() < end => self.empty(),
                Some((dir, errno)) => return Err(Failure::errno(format!("removing {dir}"), errno)),
            }
        }
    }

    fn empty(&self) {
        self.kill();
        if self.v2 {
            let _ = v2::await_event(&self.dirs[0], "populated 0", Duration::from_millis(100));
        } else {
            // v1 has no event to wait for.
            std::thread::sleep(Duration::from_millis(1));
        }
    }
}

/// Whether a caller without rights may go on without a group. Only one that asked for none, and for no limit.
fn without(plan: &Plan, failure: Failure) -> Result<()> {
    let refused = matches!(failure.errno, Some(Errno::EACCES | Errno::EPERM | Errno::EROFS));
    if !(refused && plan.optional && (plan.rootless || probe::in_user_namespace())) {
        return Err(failure);
    }
    if let Some(w) = plan.writes.first() {
        let what = format!(
            "{failure}: a limit needs a control group, which this user may not make here (give --systemd-cgroup, name a group in linux.cgroupsPath that is yours, or remove the limit): rootless needs no limits + no cgrouppath when no permission is granted for cgroups"
        );
        return Err(Failure::says(what).at(&w.origin));
    }
    Ok(())
}

/// Whether the caller may make nothing in a directory. One of which nobody can tell is not passed over: what becomes of it shows
/// when it is used.
fn closed(dir: &str) -> bool {
    let access = fs::faccessat2(fs::cwd(), &c(dir), libc::W_OK, libc::AT_EACCESS);
    matches!(access, Err(Errno::EACCES | Errno::EROFS))
}

fn exists(dir: &str) -> bool {
    fs::fstatat(fs::cwd(), &c(dir), 0).is_ok()
}
