//! Making a container of a picture: what create does around its child (record, control group, hooks, pid file) is done around
//! criu, whose sibling the restored init becomes.

use super::mounts::{self, External};
use super::protobuf::Message;
use super::swrk::{Criu, Notice, SOCKET, kind};
use super::{DESCRIPTORS, Options, config, directory, explained, open};
use crate::cgroup::{Cgroup, scope};

use crate::failure::{Doing, Failure, Result, text};
use crate::{hooks, pid_file, relay};
use coracle_plan::steps::Plan;
use coracle_state::{Entry, Lock, Record, Stage};
use coracle_sys::{fs, libc, process, socket};
use std::ffi::CString;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

/// How restore was asked for.
pub struct RestoreHow<'a> {
    /// State root.
    pub root: &'a Path,
    /// config.json, as read.
    pub config: &'a [u8],
    /// Where to write init's pid.
    pub pid_file: Option<&'a Path>,
    /// What criu is told.
    pub options: &'a Options,
}

/// A container that runs again.
pub struct Restored {
    /// Its directory.
    pub entry: Entry,
    /// Held until the command ends, or lets go.
    pub lock: Option<Lock>,
    /// Init.
    pub pidfd: OwnedFd,
    /// Its pid.
    pub pid: i32,
    /// The terminal's master side, when nobody else took it.
    pub master: Option<OwnedFd>,
}

/// A namespace that the container was put into: criu leaves it alone, and restores into it.
pub(super) struct Outside {
    pub(super) name: &'static str,
    pub(super) inode: u64,
    path: CString,
}

impl Outside {
    /// The name that image and restore know it by; runc's, so that each can restore what the other dumped.
    pub(super) fn key(&self) -> &'static str {
        if self.name == "net" { "extRootNetNS" } else { "extRootPidNS" }
    }
}

/// Namespaces joined by path, of the kinds that criu can leave out.
pub(super) fn external_namespaces(plan: &Plan) -> Result<Vec<Outside>> {
    let mut out = Vec::new();
    for join in &plan.namespaces.join {
        let name = match join.kind {
            libc::CLONE_NEWNET => "net",
            libc::CLONE_NEWPID => "pid",
            _ => continue,
        };
        let doing = || format!("looking at the namespace {}", text(&join.path));
        let stat = fs::fstatat(fs::cwd(), &join.path, 0).doing(doing).map_err(|f| f.at(&join.origin))?;
        out.push(Outside { name, inode: stat.ino, path: join.path.clone() });
    }
    Ok(out)
}

/// Restores the container. Errors: what failed; then nothing is left of it.
pub fn restore(
    plan: &Plan,
    mut record: Record,
    how: &RestoreHow,
    systemd: Option<scope::Manager>,
    warnings: &mut Vec<String>,
) -> Result<Restored> {
    open(&how.options.image)?;
    directory(how.options.work())?;
    let console = plan.terminal.as_ref().and_then(|t| t.socket.as_ref());
    let console = console
        .map(|path| {
            socket::connect_stream(path).doing(|| format!("connecting to the console socket {}", text(path)))
        })
        .transpose()?;
    let outside = external_namespaces(plan)?;
    let given: Vec<OwnedFd> = outside
        .iter()
        .map(|ns| {
            fs::open(&ns.path, libc::O_RDONLY, 0)
                .doing(|| format!("opening the namespace {}", text(&ns.path)))
        })
        .collect::<Result<_>>()?;
    let (entry, lock) = Entry::reserve(how.root, &record.id).map_err(says)?;
    let mut making = Making { plan, console, pidfd: None, pid: 0, master: None, cgroup: None, systemd };
    match making.run(&entry, &mut record, how, (&outside, &given), warnings) {
        Ok(pidfd) => Ok(Restored { entry, lock: Some(lock), pidfd, pid: making.pid, master: making.master }),
        Err(failure) => {
            making.undo(&record);
            let _ = entry.remove();
            Err(failure)
        }
    }
}

fn says(e: coracle_state::Error) -> Failure {
    Failure::says(e.to_string())
}

/// A directory by way of criu, which goes there and mounts below: only in its own mount namespace may it. proc_pid_root(5).
fn seen_by(criu: &Criu, path: &Path) -> Result<OwnedFd> {
    let whole = std::fs::canonicalize(path)
        .map_err(|e| Failure::says(format!("looking for {}: {e}", path.display())))?;
    open(&Path::new(&format!("/proc/{}/root", criu.pid)).join(whole.strip_prefix("/").unwrap_or(&whole)))
}

/// message criu_opts of rpc.proto, by number, but for the root and the control groups.
fn opts(
    plan: &Plan,
    record: &Record,
    options: &Options,
    dirs: (&OwnedFd, &OwnedFd),
    outside: &[Outside],
) -> Message {
    let mut opts = options
        .common(dirs.0, dirs.1, "restore.log", config(&record.annotations))
        .switch(6, true) // evasive_devices: a device node may have got another name
        .switch(26, true) // rst_sibling: init becomes this process's child
        .switch(52, options.tcp_close)
        .text(53, options.lsm_profile.as_deref())
        .text(63, options.lsm_mount_context.as_deref());
    if let Some(method) = options.network_lock {
        opts = opts.number(64, method);
    }
    for (ns, number) in outside.iter().zip(SOCKET + 1..) {
        opts = opts.message(27, &Message::default().bytes(1, ns.key()).number(2, number));
    }
    for (key, number) in pipes(options) {
        opts = opts.message(27, &Message::default().bytes(1, key).number(2, number));
    }
    for join in &plan.namespaces.join {
        let Some(name) = joined(join.kind) else { continue };
        opts = opts.message(39, &Message::default().bytes(1, name).bytes(2, join.path.to_bytes()));
    }
    opts
}

/// criu's names of the namespaces that it can join by path.
fn joined(kind: i32) -> Option<&'static str> {
    match kind {
        libc::CLONE_NEWIPC => Some("ipc"),
        libc::CLONE_NEWUTS => Some("uts"),
        libc::CLONE_NEWUSER => Some("user"),
        libc::CLONE_NEWNS => Some("mnt"),
        coracle_sys::namespace::CLONE_NEWTIME => Some("time"),
        _ => None,
    }
}

/// Pipes that init's standard descriptors led to: those of this process take their places.
fn pipes(options: &Options) -> Vec<(String, i32)> {
    let bytes = std::fs::read(options.image.join(DESCRIPTORS)).unwrap_or_default();
    let list: Vec<String> = serde_json::from_slice(&bytes).unwrap_or_default();
    list.into_iter().zip(0..).filter(|(key, _)| key.starts_with("pipe:")).collect()
}

/// A container that is being restored.
struct Making<'a> {
    plan: &'a Plan,
    console: Option<OwnedFd>,
    pidfd: Option<OwnedFd>,
    pid: i32,
    master: Option<OwnedFd>,
    cgroup: Option<Cgroup>,
    systemd: Option<scope::Manager>,
}

impl Making<'_> {
    fn run(
        &mut self,
        entry: &Entry,
        record: &mut Record,
        how: &RestoreHow,
        (outside, given): (&[Outside], &[OwnedFd]),
        warnings: &mut Vec<String>,
    ) -> Result<OwnedFd> {
        entry.save(record).map_err(says)?;
        entry.write("config.json", how.config).map_err(says)?;
        self.cgroup = Cgroup::create(&self.plan.cgroup)?;
        if self.cgroup.is_none() {
            (record.cgroup, record.unit) = (None, None);
        }
        let c = |path: &Path| CString::new(path.as_os_str().as_encoded_bytes()).unwrap_or_default();
        let (rootfs, over, at) = (c(&record.rootfs), c(&entry.path), entry.path.join("root"));
        let (plan, name) = (self.plan, c(&at));
        // systemd makes a scope's group only around a process that is there.
        let born = self.cgroup.as_ref().filter(|_| self.systemd.is_none());
        let into = born.map(Cgroup::clone_into).transpose()?.flatten();
        born.map_or(Ok(()), |group| group.restrict(&plan.cgroup, warnings))?;
        let criu = Criu::start(into.as_ref().map(AsFd::as_fd), given, &|| {
            mounts::prepare(plan, &rootfs, &over, &name)
        })?;
        match (&self.cgroup, &mut self.systemd) {
            (Some(group), Some(systemd)) => group.adopt(&plan.cgroup, systemd, criu.pid, warnings)?,
            (Some(group), None) if into.is_none() => group.attach(criu.pid)?,
            _ => {}
        }
        let dirs = (seen_by(&criu, &how.options.image)?, seen_by(&criu, how.options.work())?);
        let request = opts(plan, record, how.options, (&dirs.0, &dirs.1), outside)
            .bytes(13, at.as_os_str().as_encoded_bytes());
        let request = groups(criu.pid, self.external(request, &rootfs)?);
        let asked = criu
            .ask(kind::RESTORE, Message::default().message(2, &request), |n| self.answer(n, entry, record));
        let ended = criu.end();
        let log = how.options.work().join("restore.log");
        asked.map_err(|f| explained(f, &log))?;
        let pidfd = self.pidfd.take().filter(|_| ended.is_ok_and(|well| well));
        let pidfd =
            pidfd.ok_or_else(|| explained(Failure::says("criu did not restore the container"), &log))?;
        how.pid_file.map_or(Ok(()), |file| pid_file::write(file, self.pid))?;
        Ok(pidfd)
    }

    fn external(&self, mut opts: Message, rootfs: &CString) -> Result<Message> {
        let root = fs::open(rootfs, libc::O_PATH | libc::O_DIRECTORY, 0)
            .doing(|| format!("opening the root file system {}", text(rootfs)))?;
        for External { target, source } in
            mounts::external(self.plan, root.as_fd())?.into_iter().chain(mounts::masks(self.plan))
        {
            opts = opts.message(23, &Message::default().bytes(1, target).bytes(2, source));
        }
        Ok(opts)
    }

    fn answer(&mut self, notice: Notice, entry: &Entry, record: &mut Record) -> Result<()> {
        match (notice.script.as_str(), notice.passed) {
            ("setup-namespaces", _) => hooks::run(
                &self.plan.hooks.create_runtime,
                &record.state_json("creating", notice.pid),
                Some(&record.bundle),
            ),
            ("post-restore", _) => self.note(notice.pid, entry, record),
            ("orphan-pts-master", Some(master)) => match &self.console {
                Some(socket) => socket::send_fd(socket.as_fd(), b"/dev/ptmx", master.as_fd())
                    .doing(|| "sending the terminal to the console socket".into()),
                None => {
                    self.master = Some(relay::own(master));
                    Ok(())
                }
            },
            _ => Ok(()),
        }
    }

    /// Init is there, still stopped.
    fn note(&mut self, pid: i32, entry: &Entry, record: &mut Record) -> Result<()> {
        self.pidfd = Some(process::pidfd_open(pid).doing(|| format!("opening process {pid}"))?);
        self.pid = pid;
        record.set_init(pid).map_err(says)?;
        record.stage = Stage::Created;
        // criu gives what it restores the clocks that it knew: a time namespace that config.json does not ask for.
        record.own_clocks = time_namespace("self") != time_namespace(&pid.to_string());
        entry.save(record).map_err(says)
    }

    fn undo(&self, record: &Record) {
        if let Some(pidfd) = &self.pidfd {
            let _ = process::pidfd_send_signal(pidfd.as_fd(), libc::SIGKILL);
            let _ = process::wait(self.pid, 0);
        }
        if let Some(group) = &self.cgroup {
            let _ = group.remove();
        }
        let _ = hooks::poststop(&self.plan.hooks.poststop, record);
    }
}

fn time_namespace(pid: &str) -> Option<Vec<u8>> {
    let path = CString::new(format!("/proc/{pid}/ns/time")).ok()?;
    fs::readlinkat(fs::cwd(), &path).ok()
}

/// Where criu is, the container is to be: proc_pid_cgroup(5), a `cg_root` for each hierarchy.
fn groups(criu: i32, opts: Message) -> Message {
    let path = CString::new(format!("/proc/{criu}/cgroup")).unwrap_or_default();
    crate::probe::text(&path).lines().fold(opts, |opts, line| {
        let mut parts = line.splitn(3, ':').skip(1);
        let (controllers, path) = (parts.next().unwrap_or_default(), parts.next().unwrap_or("/"));
        opts.message(25, &Message::default().bytes(1, controllers).bytes(2, path))
    })
}
