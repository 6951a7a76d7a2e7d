//! Create: reserve, write the intent down, make the control group, clone, answer the child, write down what became of it.
//! Whatever fails on the way is undone; whatever dies on the way, `delete --force` undoes from the record.

use crate::agent::{self, Agent, Asking};
use crate::cgroup::{self, Cgroup, scope};
use crate::child::{self, Prepared};
use crate::failure::{Doing, Failure, Result, crowded, text};
use crate::net_devices::Moved;
use crate::network::Home;
use crate::notify;
use crate::rdt::{self, Resctrl};
use crate::step::root;
use crate::wire::{self, Said};
use crate::{hooks, idmap, lifecycle, pid_file, relay, sources, starting};
use coracle_plan::steps::{Act, IdMaps, Plan};
use coracle_state::{Entry, Lock, Record, Stage};
use coracle_sys::process::{CloneArgs, Cloned, Status};
use coracle_sys::{Errno, fs, libc, process, socket};
use std::ffi::{CStr, CString};
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

/// Said of a container that nothing holds together.
const UNBOUNDED: &str = "a rootless container with no cgroup and no private pid namespace. Such configuration is strongly discouraged: \
    nothing tells which processes are the container's, and not all of them can be killed; give it a pid namespace, or a \
    linux.cgroupsPath that is yours";

/// A container whose init waits for the start.
pub struct Created {
    /// Its directory.
    pub entry: Entry,
    /// Held until the command ends, or lets go.
    pub lock: Option<Lock>,
    /// Its record.
    pub record: Record,
    /// Init.
    pub pidfd: OwnedFd,
    /// Init's end of the conversation.
    wire: OwnedFd,
    /// The terminal's master side, when this process relays it.
    pub master: Option<OwnedFd>,
    /// Init's user and network namespaces, when they were asked for.
    pub namespaces: Option<[OwnedFd; 2]>,
    cgroup: Option<Cgroup>,
    /// Whether init was told to start already.
    started: bool,
    poststart: Vec<coracle_plan::steps::Hook>,
}

/// How create was asked for.
pub struct How<'a> {
    /// State root.
    pub root: &'a Path,
    /// config.json, as read.
    pub config: &'a [u8],
    /// Where to write init's pid.
    pub pid_file: Option<&'a Path>,
    /// Whether this process starts the container itself, over the wire.
    pub foreground: bool,
    /// Descriptors for the workload, from 3 on.
    pub preserve_fds: u32,
    /// A Unix socket that takes a pidfd of init.
    pub pidfd_socket: Option<&'a Path>,
    /// Whether the caller wants init's user and network namespaces.
    pub namespaces: bool,
    /// Whether the caller does nothing between create and start.
    pub at_once: bool,
}

impl How<'_> {
    /// Whether init can be told to start before it is ready: it goes on then without waiting for the runtime to wake up.
    fn starts_at_once(&self, plan: &Plan) -> bool {
        let nothing_between = self.at_once && self.pid_file.is_none() && self.pidfd_socket.is_none();
        nothing_between
            && plan.hooks.poststart.is_empty()
            && plan.cgroup.delegated.is_empty()
            && plan.silent()
    }
}

/// The mount that the root file system lies on, where the plan mounts onto it in the runtime's own mount namespace.
pub fn root_mount(plan: &Plan) -> Option<u64> {
    let elsewhere = plan.namespaces.join.iter().any(|j| j.kind == libc::CLONE_NEWNS);
    let place = plan.setup.iter().find_map(|s| if let Act::BindRoot(p) = &s.act { Some(p) } else { None })?;
    if elsewhere { None } else { root::mount_of(place) }
}

/// Creates the container. `systemd` is asked for the control group where the plan says so. Warnings are added to the list.
/// Errors: what failed; then nothing is left of it.
pub fn create(
    plan: &Plan,
    mut record: Record,
    how: &How,
    systemd: Option<scope::Manager>,
    warnings: &mut Vec<String>,
) -> Result<Created> {
    let joins = open_joins(plan)?;
    spare_host(plan, &joins)?;
    let console = plan.terminal.as_ref().and_then(|t| t.socket.as_ref()).map(|path| {
        socket::connect_stream(path).doing(|| format!("connecting to the console socket {}", text(path)))
    });
    let console = console.transpose()?;
    let pidfd_socket = how.pidfd_socket.map(connect_pidfd_socket).transpose()?;
    let opened = sources::open(plan)?;
    let resctrl = plan.rdt.as_ref().map(|_| Resctrl::open()).transpose()?;
    record.rdt = plan.rdt.as_ref().map(rdt::record);
    let (entry, lock) = Entry::reserve(how.root, &record.id).map_err(|e| Failure::says(e.to_string()))?;
    let made = begin(plan, &mut record, how, &entry, (joins, resctrl), opened, warnings);
    let mut making = match made {
        Ok(making) => making,
        Err(failure) => {
            let _ = entry.remove();
            return Err(failure);
        }
    };
    making.systemd = systemd;
    let ready =
        making.converse(plan, &entry, &mut record, console.as_ref(), how, warnings).and_then(|master| {
            pidfd_socket.map_or(Ok(()), |socket| send_pidfd(&socket, &making.pidfd))?;
            Ok(master)
        });
    match ready {
        Ok(master) => Ok(Created {
            entry,
            lock: Some(lock),
            record,
            pidfd: making.pidfd,
            wire: making.wire,
            master,
            namespaces: making.namespaces,
            cgroup: making.cgroup,
            started: making.started,
            poststart: plan.hooks.poststart.clone(),
        }),
        Err(failure) => Err(making.undo(plan, &entry, &record, failure)),
    }
}

/// Connects to the socket that is to take a pidfd.
pub(crate) fn connect_pidfd_socket(path: &Path) -> Result<OwnedFd> {
    let name = CString::new(path.as_os_str().as_encoded_bytes()).unwrap_or_default();
    socket::connect_stream(&name).doing(|| format!("connecting to the pidfd socket {}", text(&name)))
}

/// Sends a pidfd as the console socket's protocol sends a terminal: a name, and the descriptor beside it.
pub(crate) fn send_pidfd(socket: &OwnedFd, pidfd: &OwnedFd) -> Result<()> {
    socket::send_fd(socket.as_fd(), b"pidfd", pidfd.as_fd())
        .doing(|| "sending the pidfd to its socket".into())
}

pub(crate) fn open_joins(plan: &Plan) -> Result<Vec<OwnedFd>> {
    let open = |j: &coracle_plan::steps::Join| {
        // It may be anything: one that waits for a writer is not waited for.
        fs::open(&j.path, libc::O_RDONLY | libc::O_NONBLOCK | libc::O_NOCTTY, 0)
            .doing(|| format!("opening the namespace {}", text(&j.path)))
            .map_err(|f| f.at(&j.origin))
    };
    plan.namespaces.join.iter().map(open).collect()
}

/// A namespace by path may be the host's own, which nothing of the container may change. Errors: it is, and something would.
fn spare_host(plan: &Plan, joins: &[OwnedFd]) -> Result<()> {
    for (join, namespace) in plan.namespaces.join.iter().zip(joins) {
        let Some(place) = &join.changed_by else { continue };
        let file = child::nsfs(join.kind);
        let own = fs::fstatat(fs::cwd(), &cgroup::c(&format!("/proc/self/ns/{file}")), 0);
        if own
            .is_ok_and(|own| fs::fstat(namespace.as_fd()).is_ok_and(|s| (s.dev, s.ino) == (own.dev, own.ino)))
        {
            let what = format!(
                "{} is the {file} namespace of the host, and {place} would change the host; name another, or leave the path out",
                text(&join.path)
            );
            return Err(Failure::says(what).at(&join.origin));
        }
    }
    Ok(())
}

/// A child at work.
struct Making {
    pid: i32,
    pidfd: OwnedFd,
    wire: OwnedFd,
    cgroup: Option<Cgroup>,
    systemd: Option<scope::Manager>,
    maps_written: bool,
    resctrl: Option<Resctrl>,
    devices: Option<Moved>,
    namespaces: Option<[OwnedFd; 2]>,
    /// Whether it was told to start already.
    started: bool,
}

fn begin(
    plan: &Plan,
    record: &mut Record,
    how: &How,
    entry: &Entry,
    (joins, resctrl): (Vec<OwnedFd>, Option<Resctrl>),
    mut opened: Vec<(usize, OwnedFd)>,
    warnings: &mut Vec<String>,
) -> Result<Making> {
    let state = |e: coracle_state::Error| Failure::says(e.to_string());
    Cgroup::check(&plan.cgroup)?;
    entry.save(record).map_err(state)?;
    entry.write("config.json", how.config).map_err(state)?;
    opened.extend(notify::make(plan, entry)?);
    let waiting = entry.waiting().map_err(state)?;
    let listener = match how.foreground {
        true => None,
        false => Some(
            socket::listen_seqpacket(entry.dir(), "start")
                .doing(|| "making the socket that start connects to".into())?,
        ),
    };
    let (ours, theirs) = socket::seqpacket_pair().doing(|| "making a socket pair".into())?;
    let mut flags = plan.namespaces.new;
    let home = if plan.namespaces.network { Home::to_return_to()? } else { None };
    if plan.namespaces.network && home.is_none() {
        flags |= libc::CLONE_NEWNET as u64;
    }
    let cgroup = Cgroup::create(&plan.cgroup)?;
    if cgroup.is_none() {
        (record.cgroup, record.unit) = (None, None);
        warnings.extend((plan.cgroup.rootless && record.shared_pids).then(|| UNBOUNDED.into()));
    }
    let prepared = Prepared {
        plan,
        record,
        network: home.is_some(),
        wire: theirs,
        listener,
        waiting: Some(waiting),
        joins,
        root: None,
        opened,
        preserve_fds: how.preserve_fds,
    };
    let mut cloned = clone(plan, cgroup.as_ref(), flags);
    if let (Err(Failure { errno: Some(Errno::EOPNOTSUPP), .. }), Some(group)) = (&cloned, &cgroup) {
        cloned = group.join_threads().and_then(|()| clone(plan, cgroup.as_ref(), flags));
    }
    let (pid, pidfd) = match cloned {
        Ok(Cloned::Child) => child::run(prepared),
        Ok(Cloned::Parent(pid, pidfd)) => (pid, pidfd),
        Err(failure) => {
            if let Some(group) = &cgroup {
                let _ = group.remove();
            }
            return Err(failure);
        }
    };
    drop(prepared);
    let mut making = Making {
        pid,
        pidfd,
        wire: ours,
        cgroup,
        systemd: None,
        maps_written: false,
        resctrl,
        devices: None,
        namespaces: None,
        started: how.starts_at_once(plan),
    };
    if making.started {
        record.stage = Stage::Created;
    }
    // First: init will soon wait for it.
    let network = home.map(|home| home.make(making.wire.as_fd())).transpose();
    let noted = network.map_err(|f| f.at("linux.namespaces")).and_then(|network| {
        making.note(entry, record)?;
        if let Some(group) = making.cgroup.as_ref().filter(|_| plan.cgroup.unit.is_none()) {
            group.restrict(&plan.cgroup, warnings)?;
        }
        making.enter_rdt(plan, record)?;
        // A user can do this only now: once its ids are mapped, init is untraceable.
        making.namespaces = how.namespaces.then(|| namespaces(pid, network)).transpose()?;
        Ok(())
    });
    noted.map_err(|f| making.undo(plan, entry, record, f))?;
    Ok(making)
}

/// `network`: the one that init will enter.
fn namespaces(pid: i32, network: Option<OwnedFd>) -> Result<[OwnedFd; 2]> {
    let open = |kind: &str| {
        let path = CString::new(format!("/proc/{pid}/ns/{kind}")).unwrap_or_default();
        fs::open(&path, libc::O_RDONLY, 0).doing(|| format!("opening the namespace {}", text(&path)))
    };
    Ok([open("user")?, network.map_or_else(|| open("net"), Ok)?])
}

pub(crate) fn clone(plan: &Plan, cgroup: Option<&Cgroup>, flags: u64) -> Result<Cloned> {
    let into = cgroup.filter(|_| plan.born_in_cgroup()).map(Cgroup::clone_into).transpose()?.flatten();
    let args = CloneArgs { flags, cgroup: into.as_ref().map(AsFd::as_fd), sibling: false };
    process::clone3(&args).map_err(|e| {
        if let Some(failure) = cgroup.filter(|_| into.is_some()).and_then(|group| group.bars(e)) {
            return failure;
        }
        let why = match e {
            Errno::EPERM if flags & libc::CLONE_NEWUSER as u64 == 0 => " (this needs CAP_SYS_ADMIN, which the runtime does not have here: add a namespace of type user, or run it with that capability)",
            Errno::EPERM => " (the host, or a filter around the runtime, lets it make no user namespace: sysctl user.max_user_namespaces, kernel.unprivileged_userns_clone, kernel.apparmor_restrict_unprivileged_userns)",
            Errno::ENOSPC => " (a limit below /proc/sys/user is reached)",
            other => crowded(other),
        };
        let kinds = coracle_plan::show::namespaces(flags);
        Failure::errno(format!("cloning the container's init with new namespaces: {kinds}{why}"), e).at("linux.namespaces")
    })
}

impl Making {
    /// Writes down who init is, while it works.
    fn note(&self, entry: &Entry, record: &mut Record) -> Result<()> {
        record.set_init(self.pid).and_then(|()| entry.save(record)).map_err(|e| Failure::says(e.to_string()))
    }

    /// The child waits for a word, or does what needs no limit yet.
    fn enter_rdt(&mut self, plan: &Plan, record: &mut Record) -> Result<()> {
        let (Some(resctrl), Some(rdt), Some(groups)) = (&self.resctrl, &plan.rdt, &record.rdt) else {
            return Ok(());
        };
        let entered = resctrl.make(rdt).map(|()| resctrl.join(groups, self.pid));
        entered.unwrap_or_else(|failure| {
            // Nothing was made, and what was there before is not to be undone.
            record.rdt = None;
            Err(failure)
        })
    }

    /// Answers the child until it is ready. Returns the terminal's master, when nobody else took it.
    fn converse(
        &mut self,
        plan: &Plan,
        entry: &Entry,
        record: &mut Record,
        console: Option<&OwnedFd>,
        how: &How,
        warnings: &mut Vec<String>,
    ) -> Result<Option<OwnedFd>> {
        if self.started {
            // Of one that has failed already, the reason comes next.
            let _ = self.answer();
        }
        let (mut master, mut agent) = (None, None);
        loop {
            match wire::hear(self.wire.as_fd())? {
                Said::Ready => break,
                Said::Waits => self.serve(plan, warnings)?,
                Said::Hooks => self.run_hooks(plan, record)?,
                Said::Network(namespace) => self.move_devices(plan, namespace)?,
                Said::Unmapped(step, tree) => self.map_ids(plan, step, &tree)?,
                Said::Again(pid) => {
                    process::wait(self.pid, 0).doing(|| "waiting for the first process".into())?;
                    self.pidfd = process::pidfd_open(pid).doing(|| format!("opening process {pid}"))?;
                    self.pid = pid;
                    self.note(entry, record)?;
                }
                Said::Terminal(fd) => match console {
                    Some(socket) => socket::send_fd(socket.as_fd(), b"/dev/ptmx", fd.as_fd())
                        .doing(|| "sending the terminal to the console socket".into())?,
                    None => master = Some(relay::own(fd)),
                },
                Said::Agent(path, metadata) => {
                    agent = Some(Agent::connect(&path, metadata)?);
                    self.answer()?;
                }
                Said::Listener(fd) => {
                    let (pid, pidfd) = (self.pid, self.pidfd.as_fd());
                    agent::give(agent.take(), fd, &Asking { pid, pidfd, record, status: "creating" })?;
                    self.answer()?;
                }
                Said::Failed(step, failure) => return Err(during_init(at_step(plan, step, failure))),
                Said::Nothing => return Err(self.died()),
            }
        }
        if self.started {
            return Ok(master);
        }
        child::impose(plan, self.pid)?;
        if let Some(group) = &self.cgroup {
            group.delegate(&plan.cgroup, self.pid)?;
        }
        if let Some(file) = how.pid_file {
            pid_file::write(file, self.pid)?;
        }
        record.stage = Stage::Created;
        entry.save(record).map_err(|e| Failure::says(e.to_string()))?;
        Ok(master)
    }

    fn answer(&self) -> Result<()> {
        socket::send(self.wire.as_fd(), wire::GO).doing(|| "answering the container's init".into())
    }

    fn serve(&mut self, plan: &Plan, warnings: &mut Vec<String>) -> Result<()> {
        if let Some(maps) = plan.namespaces.maps.as_ref().filter(|_| !self.maps_written) {
            write_maps(self.pid, maps)?;
            self.maps_written = true;
        } else if let (Some(group), Some(systemd)) = (&self.cgroup, &mut self.systemd) {
            group.adopt(&plan.cgroup, systemd, self.pid, warnings)?;
        } else if let Some(group) = &self.cgroup {
            group.attach(self.pid)?;
        }
        self.answer()
    }

    fn move_devices(&mut self, plan: &Plan, namespace: OwnedFd) -> Result<()> {
        self.devices.insert(Moved::into(namespace)?).all(plan.net_devices())?;
        self.answer()
    }

    fn map_ids(&self, plan: &Plan, step: usize, tree: &OwnedFd) -> Result<()> {
        if let Some(Act::Mount(mount)) = plan.setup.get(step).map(|s| &s.act) {
            let map = mount.idmap.as_ref().map(|map| idmap::apply(plan, tree.as_fd(), map));
            map.unwrap_or(Ok(())).map_err(|f| at_step(plan, step, f))?;
        }
        self.answer()
    }

    fn run_hooks(&self, plan: &Plan, record: &Record) -> Result<()> {
        hooks::run(
            &plan.hooks.create_runtime,
            &record.state_json("creating", self.pid),
            Some(&record.bundle),
        )?;
        self.answer()
    }

    fn died(&self) -> Failure {
        let how = match process::wait(self.pid, 0) {
            Ok(Some((_, Status::Signaled(9)))) => {
                "it was killed by signal 9 (SIGKILL; the memory limit may be too low for it to begin)"
                    .to_owned()
            }
            Ok(Some((_, Status::Signaled(n)))) => format!("it was killed by signal {n}"),
            Ok(Some((_, Status::Exited(code)))) => format!("it ended with status {code}"),
            _ => "it is gone".to_owned(),
        };
        Failure::says(format!("the container's init died before it was ready: {how}"))
    }

    /// Takes everything back; the failure that led here is returned.
    fn undo(&mut self, plan: &Plan, entry: &Entry, record: &Record, mut failure: Failure) -> Failure {
        let _ = process::pidfd_send_signal(self.pidfd.as_fd(), libc::SIGKILL);
        let _ = process::wait(self.pid, 0);
        if let Some(Err(stuck)) = self.devices.as_mut().map(Moved::take_back) {
            failure.doing += &format!(" (and then, of {}: {stuck})", stuck.origin);
        }
        let classes = self.resctrl.as_ref().zip(record.rdt.as_ref());
        for undone in [
            self.cgroup.as_ref().map_or(Ok(()), Cgroup::remove),
            lifecycle::detach(record),
            classes.map_or(Ok(()), |(resctrl, groups)| resctrl.remove(groups)),
        ] {
            if let Err(stuck) = undone {
                failure.doing += &format!(" (and then: {stuck})");
            }
        }
        if failure.origin.starts_with("hooks.") {
            // runtime.md, Lifecycle: a failed hook leads to the poststop hooks.
            let _ = hooks::poststop(&plan.hooks.poststop, record);
        }
        if let Err(stuck) = entry.remove() {
            failure.doing += &format!(" (and then: {stuck})");
        }
        failure
    }
}

/// In the words by which callers know that the container's init failed, and not the runtime.
fn during_init(failure: Failure) -> Failure {
    Failure { doing: format!("error during container init: {}", failure.doing), ..failure }
}

/// Names the place that asked for the step which failed, where the failure does not.
pub(crate) fn at_step(plan: &Plan, step: usize, failure: Failure) -> Failure {
    if failure.origin.is_empty() {
        failure.at(wire::origin(&plan.setup, &plan.launch, step))
    } else {
        failure
    }
}

/// Writes the id maps; a caller who may not write them itself has newuidmap(1) and newgidmap(1) do it.
pub(crate) fn write_maps(pid: i32, maps: &IdMaps) -> Result<()> {
    let write = |file: &str, value: &str| {
        let path = CString::new(format!("/proc/{pid}/{file}")).unwrap_or_default();
        fs::open(&path, libc::O_WRONLY, 0).and_then(|fd| fs::write(fd.as_fd(), value.as_bytes())).map(drop)
    };
    if maps.deny_setgroups {
        write("setgroups", "deny").doing(|| "forbidding setgroups in the user namespace".into())?;
    }
    for (file, map, helper, origin) in [
        ("gid_map", &maps.gids, c"newgidmap", "linux.gidMappings"),
        ("uid_map", &maps.uids, c"newuidmap", "linux.uidMappings"),
    ] {
        match write(file, map) {
            Ok(()) => {}
            Err(Errno::EPERM) => map_by_helper(helper, pid, map).map_err(|f| f.at(origin))?,
            Err(e) => {
                return Err(Failure::errno(format!("writing {map:?} to /proc/{pid}/{file}"), e).at(origin));
            }
        }
    }
    Ok(())
}

fn map_by_helper(helper: &CStr, pid: i32, map: &str) -> Result<()> {
    let name = helper.to_string_lossy().into_owned();
    let whole = ["/usr/bin", "/bin", "/usr/local/bin"]
        .iter()
        .map(|d| format!("{d}/{name}"))
        .find(|p| Path::new(p).exists());
    let Some(whole) = whole else {
        return Err(Failure::says(format!(
            "these ids need {name} (Debian package uidmap), which is not installed; map only your own id, or install it"
        )));
    };
    let words = [name.clone(), pid.to_string()].into_iter().chain(map.split_whitespace().map(str::to_owned));
    let argv: Vec<CString> = words.filter_map(|w| CString::new(w).ok()).collect();
    match process::clone3(&CloneArgs { flags: 0, cgroup: None, sibling: false })
        .doing(|| format!("starting {name}"))?
    {
        Cloned::Child => {
            let errno = process::execve(&CString::new(whole).unwrap_or_default(), &argv, &[]);
            process::exit_now(errno as i32)
        }
        Cloned::Parent(child, _) => match process::wait(child, 0).doing(|| format!("waiting for {name}"))? {
            Some((_, Status::Exited(0))) => Ok(()),
            _ => Err(Failure::says(format!(
                "{name} refused the map {:?}; see /etc/subuid and /etc/subgid",
                map.trim()
            ))),
        },
    }
}

impl Created {
    /// Lets the workload go (after a foreground create); returns when it has begun.
    /// Errors: the failed step; the container is stopped then.
    pub fn start(&self, plan: &Plan) -> Result<()> {
        if !self.started {
            socket::send(self.wire.as_fd(), wire::GO).doing(|| "starting the container".into())?;
        }
        starting::wait(self.wire.as_fd(), Some(plan))?;
        hooks::run(
            &self.poststart,
            &self.record.state_json("running", self.record.pid),
            Some(&self.record.bundle),
        )
    }

    /// Removes everything after a failure, or after the end of a foreground run.
    pub fn destroy(self, poststop: &[coracle_plan::steps::Hook]) -> Result<()> {
        let _ = process::pidfd_send_signal(self.pidfd.as_fd(), libc::SIGKILL);
        let _ = process::wait(self.record.pid, 0);
        if let Some(group) = &self.cgroup {
            group.remove()?;
        }
        lifecycle::release(&self.record)?;
        let hooked = hooks::poststop(poststop, &self.record);
        self.entry.remove().map_err(|e| Failure::says(e.to_string()))?;
        hooked
    }
}
