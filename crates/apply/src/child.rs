//! The container's init: walks the plan's steps, reports once, waits for the start, becomes the workload.

use crate::failure::{Doing, Failure, Result, crowded, inside, text};
use crate::step::{console, creds, devices, masks, mounts, path, program, root};
use crate::{hooks, network, probe, wire};
use coracle_plan::steps::{Act, Filter, Join, Listener, Mount, MountKind, Plan, Step};
use coracle_state::Record;
use coracle_sys::process::{CloneArgs, Cloned};
use coracle_sys::{
    Errno, fs, keyring, libc, limits, mount, namespace, net, poll, process, seccomp, signal, socket,
};
use std::ffi::{CStr, CString};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

/// What the parent prepared for the child.
pub(crate) struct Prepared<'a> {
    pub(crate) plan: &'a Plan,
    pub(crate) record: &'a Record,
    /// Whether the network namespace comes from the parent; else this process was born in it.
    pub(crate) network: bool,
    /// The child's end of the socket pair.
    pub(crate) wire: OwnedFd,
    /// Where a later `start` connects; `None`: the start comes over the wire.
    pub(crate) listener: Option<OwnedFd>,
    /// Holds the lock that says that init waits.
    pub(crate) waiting: Option<OwnedFd>,
    /// The namespaces to join, in the plan's order.
    pub(crate) joins: Vec<OwnedFd>,
    /// The root of the container's init (exec).
    pub(crate) root: Option<OwnedFd>,
    /// Sources that the parent opened, by step.
    pub(crate) opened: Vec<(usize, OwnedFd)>,
    /// Descriptors for the workload, from 3 on.
    pub(crate) preserve_fds: u32,
}

struct Child<'a> {
    p: Prepared<'a>,
    root: Option<OwnedFd>,
    labels: Vec<OwnedFd>,
    /// /proc/self/timens_offsets, where a step writes to it.
    offsets: Option<OwnedFd>,
    /// The host's /proc, where the process goes into a mount namespace before it is done with it.
    proc: Option<OwnedFd>,
    masks: masks::Masks,
    /// Mounts that become read-only once they are filled.
    sealed: Vec<OwnedFd>,
    /// Ids of the container's own mounts, and whether it also has a part of the host's tree.
    own: Vec<u64>,
    shares: bool,
    program: CString,
    home: Option<CString>,
    ambient_set: bool,
    entered: bool,
    done: usize,
}

/// Runs in the child; never returns.
pub(crate) fn run(prepared: Prepared) -> ! {
    let mut child = Child {
        p: prepared,
        root: None,
        labels: Vec::new(),
        offsets: None,
        proc: None,
        masks: masks::Masks::default(),
        sealed: Vec::new(),
        own: Vec::new(),
        shares: false,
        program: CString::default(),
        home: None,
        ambient_set: false,
        entered: false,
        done: 0,
    };
    if let Err(failure) = child.live() {
        wire::say_failed(child.p.wire.as_fd(), child.done, &failure);
    }
    process::exit_now(1)
}

impl Child<'_> {
    fn live(&mut self) -> Result<()> {
        self.settle()?;
        let plan = self.p.plan;
        for (i, step) in plan.setup.iter().enumerate() {
            self.done = i;
            self.act(step)?;
        }
        self.await_start()?;
        for (i, step) in plan.launch.iter().enumerate() {
            self.done = plan.setup.len() + i;
            self.act(step)?;
        }
        Ok(())
    }

    /// Ends with the parent until the parent has written down who this is; holds nothing of the parent's.
    fn settle(&mut self) -> Result<()> {
        process::set_pdeathsig(libc::SIGKILL).doing(|| "binding this process to the runtime".into())?;
        self.open_offsets()?;
        self.set_score()?;
        if self.p.plan.namespaces.maps.is_none() {
            hide()?;
        }
        let p = &self.p;
        // Podman passes numbers with gaps between them, which descriptors of the runtime may have filled.
        let mut keep: Vec<i32> = (3..3 + p.preserve_fds as i32).filter(|n| fs::is_passed(*n)).collect();
        keep.push(p.wire.as_raw_fd());
        keep.extend(
            p.listener
                .iter()
                .chain(&p.waiting)
                .chain(&p.joins)
                .chain(&p.root)
                .chain(p.opened.iter().map(|o| &o.1))
                .chain(&self.offsets)
                .map(AsRawFd::as_raw_fd),
        );
        fs::close_others(&mut keep).doing(|| "closing the runtime's descriptors".into())?;
        // The parent may have died before the signal was set: then its end is closed by now.
        let gone = poll::poll(&[(p.wire.as_fd(), 0)], 0).is_ok_and(|r| r[0] & libc::POLLHUP != 0);
        fs::umask(0);
        if gone { Err(Failure::says("the runtime ended")) } else { Ok(()) }
    }

    fn root(&self) -> Result<BorrowedFd<'_>> {
        self.root
            .as_ref()
            .map(AsFd::as_fd)
            .ok_or_else(|| Failure::says("the root file system is not open yet"))
    }

    fn opened(&mut self) -> Option<OwnedFd> {
        let at = self.p.opened.iter().position(|(step, _)| *step == self.done)?;
        Some(self.p.opened.swap_remove(at).1)
    }

    fn wait_for_parent(&self) -> Result<()> {
        wire::say(self.p.wire.as_fd(), b'A')?;
        wire::await_go(self.p.wire.as_fd())
    }

    fn receive_devices(&self) -> Result<()> {
        let namespace = network::current()?;
        wire::say_network(self.p.wire.as_fd(), namespace.as_fd())?;
        wire::await_go(self.p.wire.as_fd())
    }

    fn act(&mut self, step: &Step) -> Result<()> {
        match &step.act {
            Act::BecomeRoot | Act::AwaitCgroup | Act::Enter(_) | Act::Unshare(_) | Act::CloneAgain(_) => {
                self.enter(&step.act)
            }
            Act::ClockOffsets(offsets) => self.set_clocks(offsets),
            Act::NewSession => process::setsid().doing(|| "making a session".into()),
            Act::WriteProc(file, value) => write_proc(file, value),
            Act::NullStreams => {
                null_streams(self.root()?);
                Ok(())
            }
            // Done by set_score.
            Act::OomScore(_) => Ok(()),
            Act::KeepProc => {
                self.proc = Some(host_proc().doing(|| "opening /proc".into())?);
                Ok(())
            }
            Act::EnterNetwork if self.p.network => network::join(self.p.wire.as_fd()),
            Act::EnterNetwork | Act::LoopbackUp => {
                net::loopback_up().doing(|| "setting the loopback interface up".into())
            }
            Act::NetDevices(_) => self.receive_devices(),
            Act::Keyring(name) => join_keyring(name),
            Act::OpenLabel(file, probe) => self.open_label(file, probe.as_deref()),
            Act::Sever(flags) => root::sever(*flags),
            Act::Overlay(from, options, at) => root::overlay(from, options, at),
            Act::OpenRoot(place) => {
                let opened = self.opened();
                self.root = Some(root::open(place, opened)?);
                Ok(())
            }
            Act::BindRoot(place) => {
                self.root = Some(root::bind(place)?);
                Ok(())
            }
            Act::PlainRoot(place) => {
                self.root = Some(root::plain(place)?);
                Ok(())
            }
            Act::InitsRoot => {
                let root = self.p.root.take().ok_or_else(|| Failure::says("init's root is not open"))?;
                root::change(root.as_fd())?;
                self.root = Some(root);
                Ok(())
            }
            Act::Mount(what) => {
                let opened = self.opened();
                let map = |tree: BorrowedFd| {
                    wire::say_unmapped(self.p.wire.as_fd(), self.done, tree)?;
                    wire::await_go(self.p.wire.as_fd())
                };
                let made = mounts::mount(self.root()?, what, opened, &map)?;
                self.remember(what, made)
            }
            Act::SealMounts => {
                std::mem::take(&mut self.sealed).iter().try_for_each(|made| mounts::seal(made.as_fd()))
            }
            Act::Device(_) | Act::Link(..) | Act::Ptmx => self.fill_dev(&step.act),
            Act::WorkingDir(cwd) => path::directory(self.root()?, cwd)
                .map(drop)
                .doing(|| format!("making the working directory {}", inside(cwd))),
            Act::CreateContainerHooks => self.create_container(),
            Act::Console => {
                let size = self.p.plan.terminal.as_ref().and_then(|t| t.size);
                let own =
                    self.p.plan.setup.iter().any(|s| matches!(s.act, Act::OpenRoot(_) | Act::BindRoot(_)));
                console::open(self.root()?, self.p.wire.as_fd(), size, own)
            }
            Act::Pivot => root::pivot(self.root()?),
            Act::MoveRoot => root::move_over(self.root()?),
            Act::Chroot => root::change(self.root()?),
            Act::ReadonlyRoot => root::read_only(self.root()?),
            Act::RootPropagation(flags) => root::propagation(self.root()?, *flags),
            Act::Readonly(what) => masks::read_only(self.root()?, what),
            Act::Mask(what, label) => {
                let root = self
                    .root
                    .as_ref()
                    .ok_or_else(|| Failure::says("the root file system is not open yet"))?;
                self.masks.mask(root.as_fd(), what, label.as_deref())
            }
            Act::StartContainerHooks => self.start_container(),

            Act::FindProgram => self.find_program(),
            Act::Settle(_) => {
                // Not left to the exec: which descriptor that closes first is the kernel's affair, and a state right after
                // start, which waits for the end of the wire, would still say created.
                self.p.waiting = None;
                program::settle()
            }
            Act::Exec(what) => Err(program::exec(&self.program, what, self.home.take())),
            other => self.limit(other),
        }
    }

    fn remember(&mut self, what: &Mount, made: Option<OwnedFd>) -> Result<()> {
        let Some(made) = made else { return Ok(()) };
        match &what.what {
            MountKind::Bind(bind) => self.shares |= !bind.inside,
            _ => {
                let id = mount::mount_id(made.as_fd());
                self.own.push(id.doing(|| format!("looking at the mount on {}", inside(&what.target)))?);
            }
        }
        self.sealed.extend(Some(made).filter(|_| what.seal));
        Ok(())
    }

    fn fill_dev(&mut self, act: &Act) -> Result<()> {
        let root = self.root()?;
        if self.shares {
            devices::refuse_shared(root, &self.own)?;
            self.shares = false;
        }
        match act {
            Act::Device(what) => {
                let given = self.opened();
                devices::node(self.root()?, what, given)
            }
            Act::Link(at, target) => devices::link(self.root()?, at, target),
            _ => devices::ptmx(self.root()?),
        }
    }

    /// What this process is, has and may.
    fn limit(&mut self, act: &Act) -> Result<()> {
        match act {
            Act::Hostname(name) => namespace::sethostname(name).doing(|| "setting the host name".into()),
            Act::Domainname(name) => {
                namespace::setdomainname(name).doing(|| "setting the domain name".into())
            }
            Act::Rlimit(resource, soft, hard) => limit_resource(0, *resource, *soft, *hard),
            Act::Scheduler(what) => limits::sched_setattr(what).doing(|| scheduling(what)),
            Act::Cpus(set) => limits::sched_setaffinity(set)
                .doing(|| "choosing the CPUs to run on (sched_setaffinity)".into()),
            Act::IoPriority(class, level) => {
                limits::ioprio_set(*class, *level).doing(|| priority(*class, *level))
            }
            Act::Personality(domain) => {
                process::personality(*domain).doing(|| "setting the personality".into())
            }
            Act::MemoryPolicy(mode, nodes) => {
                limits::set_mempolicy(*mode, nodes).map_err(|e| Failure::errno(memory_policy(nodes, e), e))
            }
            Act::Umask(mask) => {
                fs::umask(*mask);
                Ok(())
            }
            Act::Bounding(keep) => creds::bounding(*keep),
            Act::Ids(uid, gid, groups) => {
                creds::ids(*uid, *gid, groups.as_deref())?;
                // Another user's memory is as traceable as the sysctl fs.suid_dumpable says.
                hide()
            }
            Act::Capabilities(sets) => {
                creds::capabilities(sets, !std::mem::replace(&mut self.ambient_set, true))
            }
            Act::NoNewPrivs => process::set_no_new_privs().doing(|| "setting no_new_privs".into()),
            Act::ChdirEarly(cwd) => match program::enter(cwd) {
                Err(f) if f.errno == Some(Errno::EACCES) => Ok(()),
                other => other.map(|()| self.entered = true),
            },
            Act::Chdir(cwd) => {
                if self.entered {
                    Ok(())
                } else {
                    program::enter(cwd)
                }
            }
            Act::Confine(label) => self.confine(label),
            Act::Listen(listener) => self.listen(listener),
            Act::Seccomp(filter) => load(filter).map(drop),
            other => Err(Failure::says(format!("{other:?} has no place here"))),
        }
    }

    fn enter(&mut self, act: &Act) -> Result<()> {
        match act {
            Act::BecomeRoot => {
                if self.p.plan.namespaces.maps.is_some() {
                    self.wait_for_parent()?;
                    // Only now: the map files of an untraceable process belong to root, and a user could not write them.
                    hide()?;
                }
                creds::become_root()?;
                hide()
            }
            Act::AwaitCgroup => self.wait_for_parent(),
            Act::Enter(i) => {
                let join = &self.p.plan.namespaces.join[*i];
                namespace::setns(self.p.joins[*i].as_fd(), join.kind)
                    .map_err(|e| Failure::errno(entering(join, e), e))
            }
            Act::Unshare(flags) => namespace::unshare(*flags)
                .doing(|| format!("making namespaces: {}", coracle_plan::show::namespaces(*flags as u64))),
            Act::CloneAgain(flags) => self.clone_again(*flags),
            _ => Ok(()),
        }
    }

    /// Before this process is untraceable or another user: root's file a user could not write. Whatever is cloned has it too.
    fn set_score(&mut self) -> Result<()> {
        for (i, step) in self.p.plan.setup.iter().enumerate() {
            if let Act::OomScore(score) = step.act {
                self.done = i;
                oom_score("self", score)?;
            }
        }
        Ok(())
    }

    /// Before this process is untraceable or another user: its file would belong to somebody else by then.
    fn open_offsets(&mut self) -> Result<()> {
        if self.p.plan.setup.iter().any(|s| matches!(s.act, Act::ClockOffsets(_))) {
            let opened = host_proc().and_then(|proc| open_below(proc.as_fd(), c"self/timens_offsets"));
            self.offsets = Some(
                opened
                    .doing(|| "opening /proc/self/timens_offsets".into())
                    .map_err(|f| f.at("linux.timeOffsets"))?,
            );
        }
        Ok(())
    }

    fn set_clocks(&mut self, offsets: &[u8]) -> Result<()> {
        let file = self.offsets.take().ok_or_else(|| Failure::says("no clock offsets are open"))?;
        fs::write_all(file.as_fd(), offsets).doing(|| {
            format!(
                "writing {:?} to /proc/self/timens_offsets (a clock must stay between 0 and 146 years)",
                String::from_utf8_lossy(offsets).trim_end()
            )
        })
    }

    fn clone_again(&self, flags: u64) -> Result<()> {
        let args = CloneArgs { flags, cgroup: None, sibling: true };
        let (told, tell) = poll::pipe().doing(|| "making a pipe".into())?;
        let cloned = process::clone3(&args)
            .map_err(|e| Failure::errno(format!("cloning the container's init{}", crowded(e)), e));
        match cloned? {
            Cloned::Child => {
                process::set_pdeathsig(libc::SIGKILL)
                    .doing(|| "binding this process to the runtime".into())?;
                // Not a word before the first process has said who speaks from now on: the runtime would take what
                // it hears for that one's, and write down a pid that is about to be nobody's.
                drop(tell);
                poll::poll(&[(told.as_fd(), 0)], -1)
                    .doing(|| "waiting for the first process".into())
                    .map(drop)
            }
            Cloned::Parent(pid, _) => {
                let told = wire::say_again(self.p.wire.as_fd(), pid);
                process::exit_now(if told.is_ok() { 0 } else { 1 })
            }
        }
    }

    fn create_container(&mut self) -> Result<()> {
        fs::umask(0o022);
        let hooks = &self.p.plan.hooks;
        if hooks.create_runtime.is_empty() && hooks.create_container.is_empty() {
            return Ok(());
        }
        wire::say(self.p.wire.as_fd(), b'H')?;
        wire::await_go(self.p.wire.as_fd())?;
        // Where the container's files are, which the hook is for; as with runc.
        fs::fchdir(self.root()?).doing(|| "entering the root file system".into())?;
        let state = self.p.record.state_json("creating", own_pid());
        let done = hooks::run(&hooks.create_container, &state, None);
        fs::chdir(c"/").doing(|| "leaving the root file system".into())?;
        done
    }

    /// A hook that names no environment has the program's.
    fn start_container(&self) -> Result<()> {
        let hooks = &self.p.plan.hooks.start_container;
        if hooks.is_empty() {
            return Ok(());
        }
        let program = self.p.plan.launch.last().map(|s| &s.act);
        let own = if let Some(Act::Exec(p)) = program { p.env.as_slice() } else { &[] };
        let env: Vec<CString> = own.iter().chain(&self.home).cloned().collect();
        let around = hooks::Around { env: &env, dir: None, filter: self.p.plan.filter() };
        hooks::run_in(&around, hooks, &self.p.record.state_json("created", own_pid()))
    }

    fn listen(&self, listener: &Listener) -> Result<()> {
        let wire = self.p.wire.as_fd();
        wire::say_agent(wire, &listener.path, &listener.metadata)?;
        wire::await_go(wire)?;
        if let Some(fd) = load(&listener.filter)? {
            wire::say_listener(wire, fd.as_fd(), listener.by_number)?;
            wire::await_go(wire)?;
        }
        Ok(())
    }

    fn open_label(&mut self, file: &CStr, probe: Option<&CStr>) -> Result<()> {
        let whole = CString::new([b"self/attr/", file.to_bytes()].concat()).unwrap_or_default();
        let open = |file: &CStr| match &self.proc {
            Some(kept) => open_below(kept.as_fd(), file),
            None => open_below(host_proc()?.as_fd(), file),
        };
        let opened = open(&whole).or_else(|_| open(c"self/attr/exec")).doing(|| {
            format!("opening the LSM attribute {} of this process (is the module enabled?)", text(file))
        })?;
        if let Some(label) = probe {
            // So that create tells of a label that is none; then nothing again, for the createContainer hooks.
            fs::write_all(opened.as_fd(), label.to_bytes())
                .and_then(|()| fs::write_all(opened.as_fd(), b"\n"))
                .doing(|| format!("trying the label {} (does the policy know it?)", text(label)))?;
        }
        self.labels.push(opened);
        let plan = self.p.plan;
        let later = plan.setup.iter().skip(self.done + 1).any(|s| matches!(s.act, Act::OpenLabel(..)));
        self.proc = self.proc.take().filter(|_| later);
        Ok(())
    }

    fn confine(&mut self, label: &[u8]) -> Result<()> {
        if self.labels.is_empty() {
            return Err(Failure::says("no LSM attribute is open"));
        }
        fs::write_all(self.labels.remove(0).as_fd(), label)
            .map_err(|e| Failure::errno(confining(label, e), e))
    }

    fn find_program(&mut self) -> Result<()> {
        if let Some(Act::Exec(what)) = self.p.plan.launch.last().map(|s| &s.act) {
            self.program = program::find(what)?;
            let uid = self
                .p
                .plan
                .setup
                .iter()
                .find_map(|s| if let Act::Ids(uid, ..) = s.act { Some(uid) } else { None });
            self.home = program::home(self.root()?, what, uid.unwrap_or(0));
        }
        Ok(())
    }

    /// Reports, then waits; the parent's death no longer matters, for it has written down who this is.
    fn await_start(&mut self) -> Result<()> {
        process::set_pdeathsig(0).doing(|| "letting go of the runtime".into())?;
        // A container may wait for long: it holds nothing of the file system meanwhile.
        self.root = None;
        self.masks = masks::Masks::default();
        if self.p.listener.is_some() && self.enterable() {
            process::set_dumpable(true).doing(|| "letting its user enter its namespaces".into())?;
        }
        wire::say(self.p.wire.as_fd(), b'R')?;
        match self.p.listener.take() {
            None => wire::await_go(self.p.wire.as_fd()),
            Some(listener) => {
                // Else a kill without a signal's name would not reach a created container.
                signal::end_on_sigterm();
                let _ = signal::set_mask(0);
                self.p.wire = socket::accept(listener.as_fd()).doing(|| "waiting for start".into())?;
                hide()
            }
        }
    }

    /// Whether this process may be traced while it waits. Only where its user, without rights over others' processes, could not
    /// enter its namespaces otherwise (exec in a created container: namespaces(7)), and all of these are new: then there
    /// is nobody in them to be kept away.
    fn enterable(&self) -> bool {
        let plan = self.p.plan;
        plan.cgroup.rootless && plan.namespaces.maps.is_some() && plan.namespaces.join.is_empty()
    }
}

/// What is being done, with runc's words for it. AppArmor alone has a command before the name.
fn confining(label: &[u8], errno: Errno) -> String {
    let label = String::from_utf8_lossy(label);
    let Some(profile) = label.strip_prefix("exec ") else {
        return format!("setting the label {label:?} (write /proc/self/attr/exec)");
    };
    let hint = match errno {
        Errno::ENOENT => "; it is not loaded: apparmor_parser loads a profile, aa-status lists them",
        Errno::EINVAL => {
            "; AppArmor is not in force on this host: remove process.apparmorProfile, or boot with it"
        }
        _ => "",
    };
    format!("setting the AppArmor profile {profile:?} (write /proc/self/attr/exec{hint})")
}

/// setns(2) says EINVAL of a file that is no such namespace.
fn entering(join: &Join, errno: Errno) -> String {
    let (path, kind) = (text(&join.path), coracle_plan::show::namespaces(join.kind as u64));
    match errno {
        Errno::EINVAL => {
            let own = if join.kind == libc::CLONE_NEWUSER { ", or the runtime's own" } else { "" };
            format!(
                "entering {path}: it is not a {kind} namespace{own}; name one, such as /proc/PID/ns/{}",
                nsfs(join.kind)
            )
        }
        Errno::EPERM => format!("entering the {kind} namespace {path} (this needs CAP_SYS_ADMIN in it)"),
        _ => format!("entering the {kind} namespace {path}"),
    }
}

/// The file below /proc/PID/ns that is a namespace of this kind: namespaces(7).
pub(crate) fn nsfs(kind: i32) -> &'static str {
    match kind {
        libc::CLONE_NEWNS => "mnt",
        libc::CLONE_NEWNET => "net",
        libc::CLONE_NEWPID => "pid",
        libc::CLONE_NEWUSER => "user",
        libc::CLONE_NEWIPC => "ipc",
        libc::CLONE_NEWUTS => "uts",
        libc::CLONE_NEWCGROUP => "cgroup",
        _ => "time",
    }
}

/// Returns the listener where the filter has one.
fn load(filter: &Filter) -> Result<Option<OwnedFd>> {
    seccomp::set_filter(&filter.program, filter.flags).doing(|| "loading the seccomp filter".into())
}

/// What hooks in the container's namespaces know init by: runtime.md, State.
fn own_pid() -> i32 {
    std::process::id() as i32
}

/// Keeps others of the same user away from this process's memory and descriptors (CVE-2016-9962).
fn hide() -> Result<()> {
    process::set_dumpable(false).doing(|| "making this process untraceable".into())
}

/// What is being done, for the message. On cgroup v1 a group has no real-time share before somebody gives it one.
fn scheduling(what: &limits::SchedAttr) -> String {
    const NAMES: [&str; 7] =
        ["SCHED_OTHER", "SCHED_FIFO", "SCHED_RR", "SCHED_BATCH", "SCHED_ISO", "SCHED_IDLE", "SCHED_DEADLINE"];
    let name = NAMES.get(what.policy as usize).copied().unwrap_or("unknown");
    let hint = match what.policy {
        0 | 3 if what.nice < 0 => " (a nice value below 0 wants CAP_SYS_NICE of the runtime)",
        1 | 2 => " (it wants CAP_SYS_NICE, and on cgroup v1 a group with cpu.rt_runtime_us)",
        4 => " (no Linux has it)",
        6 => {
            " (it wants CAP_SYS_NICE, all CPUs, and a runtime that they have left: this process scheduler can't be used together with AllowedCPUs, that is linux.resources.cpu.cpus)"
        }
        _ => "",
    };
    format!("setting the scheduling policy {name}{hint}")
}

/// The same of set_mempolicy(2), which says EINVAL of nodes that are not there.
fn memory_policy(nodes: &[u64], errno: Errno) -> String {
    let hint = match errno {
        Errno::EINVAL if nodes.iter().any(|word| *word != 0) => {
            " (linux.memoryPolicy.nodes must have a node with memory: /sys/devices/system/node/has_memory lists the host's)"
        }
        _ => "",
    };
    format!("setting the memory policy{hint}")
}

/// The same of ioprio_set(2).
fn priority(class: u32, level: u32) -> String {
    let (name, hint) = match class {
        1 => ("IOPRIO_CLASS_RT", " (it wants CAP_SYS_NICE or CAP_SYS_ADMIN of the runtime)"),
        2 => ("IOPRIO_CLASS_BE", ""),
        _ => ("IOPRIO_CLASS_IDLE", ""),
    };
    format!("setting the I/O priority {name} {level}{hint}")
}

/// What is mounted on /proc. Errors: ENOSYS where that is no procfs.
pub(crate) fn host_proc() -> coracle_sys::Result<OwnedFd> {
    let proc = fs::open(c"/proc", libc::O_PATH | libc::O_DIRECTORY, 0)?;
    if fs::file_system(proc.as_fd())? != fs::PROCFS {
        return Err(Errno::ENOSYS);
    }
    Ok(proc)
}

fn open_below(proc: BorrowedFd, file: &CStr) -> coracle_sys::Result<OwnedFd> {
    fs::openat2(
        proc,
        file,
        libc::O_WRONLY,
        0,
        fs::RESOLVE_BENEATH | fs::RESOLVE_NO_MAGICLINKS | fs::RESOLVE_NO_XDEV,
    )
}

fn write_proc(file: &CStr, value: &[u8]) -> Result<()> {
    let doing =
        || format!("writing {:?} to /proc/{}", String::from_utf8_lossy(value), file.to_string_lossy());
    let fd = host_proc().and_then(|proc| open_below(proc.as_fd(), file)).doing(doing)?;
    fs::write_all(fd.as_fd(), value).doing(doing)
}

/// Best done, and done without where the container has no null device.
fn null_streams(root: BorrowedFd) {
    let resolve = fs::RESOLVE_IN_ROOT | fs::RESOLVE_NO_MAGICLINKS;
    let is_null = |fd: BorrowedFd| {
        fs::fstat(fd).is_ok_and(|s| s.kind() == libc::S_IFCHR && (s.rdev_major, s.rdev_minor) == (1, 3))
    };
    for number in 0..3 {
        if !fs::inherited(number).is_ok_and(is_null) {
            continue;
        }
        // Looked at before it is opened for use: to open what an image has put there may do anything.
        let open = |flags| {
            let fd = fs::openat2(root, c"dev/null", flags | libc::O_NOFOLLOW, 0, resolve);
            fd.ok().filter(|fd| is_null(fd.as_fd()))
        };
        let Some(own) = open(libc::O_PATH).and_then(|_| open(libc::O_RDWR | libc::O_NOCTTY)) else { return };
        let _ = fs::dup_onto(own.as_fd(), number);
    }
}

fn oom_score(whose: &str, score: i32) -> Result<()> {
    let file = CString::new(format!("{whose}/oom_score_adj")).unwrap_or_default();
    write_proc(&file, score.to_string().as_bytes()).map_err(|f| match f.errno {
        Some(Errno::EACCES | Errno::EPERM) => {
            let now = CString::new(format!("/proc/{whose}/oom_score_adj")).unwrap_or_default();
            let now = probe::text(&now);
            let hint =
                format!(" (below {}, what it is now, it wants CAP_SYS_RESOURCE of the runtime)", now.trim());
            Failure { doing: f.doing + &hint, ..f }
        }
        _ => f,
    })
}

fn limit_resource(pid: i32, resource: u32, soft: u64, hard: u64) -> Result<()> {
    limits::prlimit(pid, resource, soft, hard).map_err(|e| {
        let hint = if e == Errno::EPERM { " (raising a hard limit needs CAP_SYS_RESOURCE)" } else { "" };
        Failure::errno(format!("limiting {} to {soft}:{hard}{hint}", coracle_plan::rlimit_name(resource)), e)
    })
}

/// Does to the process, which is ready, what the plan leaves to its parent.
pub(crate) fn impose(plan: &Plan, pid: i32) -> Result<()> {
    plan.imposed.iter().try_for_each(|step| {
        match &step.act {
            Act::Rlimit(resource, soft, hard) => limit_resource(pid, *resource, *soft, *hard),
            Act::OomScore(score) => oom_score(&pid.to_string(), *score),
            other => Err(Failure::says(format!("{other:?} has no place here"))),
        }
        .map_err(|f| f.at(&step.origin))
    })
}

/// A session keyring of the container's own. A kernel without keyrings has none of the caller's to share either.
fn join_keyring(name: &CStr) -> Result<()> {
    match keyring::join_session(name) {
        Ok(serial) => {
            // Owner and possessor: all; what runc gives: the possessor may also search and link.
            let _ = keyring::set_permissions(serial, 0x3f3f_0000);
            Ok(())
        }
        Err(Errno::ENOSYS) => Ok(()),
        Err(e) => Err(Failure::errno(
            "joining a session keyring (--no-new-keyring keeps the caller's; /proc/sys/kernel/keys says how many a user may have)",
            e,
        )),
    }
}
