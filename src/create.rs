//! create, run and plan.

use crate::bundle::{self, Bundle};
use crate::cli::{Global, Outcome};
use crate::{clock, log, usage};
use clap::Args;
use coracle_apply::cgroup::scope;
use coracle_apply::{Failure, How, lifecycle, notify, probe, relay, seal};
use coracle_plan::inputs::{CgroupMode, Host, Overlay, Request};
use coracle_plan::oci::{LinuxNamespaceType, Spec};
use coracle_plan::problem::Refusal;
use coracle_plan::steps::{NOTIFY, PROGRAM, Plan};
use coracle_state::{Record, Stage, Unit, kept};
use coracle_sys::{Errno, signal};
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};

/// Create a container: everything up to the start of its program
#[derive(Args, Default)]
pub(crate) struct CreateArgs {
    /// Bundle directory
    #[arg(short, long, value_name = "DIR", default_value = ".")]
    pub(crate) bundle: PathBuf,
    /// Configuration file, from the bundle directory
    #[arg(short = 'f', long, value_name = "FILE", default_value = "config.json")]
    pub(crate) config: PathBuf,
    /// Unix socket that takes the terminal
    #[arg(long, value_name = "SOCKET")]
    pub(crate) console_socket: Option<PathBuf>,
    /// Unix socket that takes a pidfd of the container's init
    #[arg(long, value_name = "SOCKET")]
    pub(crate) pidfd_socket: Option<PathBuf>,
    /// File to write the pid of the container's init to
    #[arg(long, value_name = "FILE")]
    pub(crate) pid_file: Option<PathBuf>,
    /// Do not use pivot_root (for an initramfs)
    #[arg(long)]
    pub(crate) no_pivot: bool,
    /// Keep the caller's session keyring
    #[arg(long)]
    pub(crate) no_new_keyring: bool,
    /// Pass this many descriptors beyond the first three
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub(crate) preserve_fds: u32,
    /// Accepted for callers that pass it: the runtime never becomes a subreaper
    #[arg(long, hide = true)]
    pub(crate) no_subreaper: bool,
    /// Name of the container
    pub(crate) id: String,
}

/// `coracle create`.
pub(crate) fn create(global: &Global, args: &CreateArgs) -> Outcome {
    make(global, args, false, true, &Image::default()).map(|_| 0)
}

/// Connects a network namespace, which stands second, behind its user namespace.
pub(crate) type Connect<'a> = dyn Fn(&[OwnedFd; 2]) -> Result<(), String> + 'a;

/// What running an image adds to running a bundle.
#[derive(Default)]
pub(crate) struct Image<'a> {
    /// The union of its layers.
    pub(crate) overlay: Option<Overlay>,
    /// Called with init's user and network namespaces before the program begins.
    pub(crate) network: Option<&'a Connect<'a>>,
    /// Where the program's output goes, if not where this command's does.
    pub(crate) output: Option<std::fs::File>,
    /// With the exit codes of engines for a program that does not begin: see [`UNKNOWN`] and [`UNRUNNABLE`].
    pub(crate) codes: bool,
}

/// What engines end with when there is no such program, nor what is to interpret it.
pub(crate) const UNKNOWN: u8 = 127;
/// What they end with when the program cannot be run.
pub(crate) const UNRUNNABLE: u8 = 126;

/// Create and start a container, and wait for its end (from an image: run --image, see run-image --help)
#[derive(Args)]
pub(crate) struct RunArgs {
    #[command(flatten)]
    pub(crate) create: CreateArgs,
    /// Return when it has started
    #[arg(short, long)]
    pub(crate) detach: bool,
    /// Keep the container after its end
    #[arg(long)]
    pub(crate) keep: bool,
}

/// `coracle run`.
pub(crate) fn run(global: &Global, args: &RunArgs) -> Outcome {
    run_image(global, &args.create, args.detach, args.keep, &Image::default())
}

/// The same, with what an image adds.
pub(crate) fn run_image(
    global: &Global,
    args: &CreateArgs,
    detach: bool,
    keep: bool,
    image: &Image,
) -> Outcome {
    // Blocked before the clone: a signal that comes early waits for the relay.
    let signals = if detach {
        None
    } else {
        Some(
            signal::block_all()
                .and_then(|_| signal::signalfd())
                .map_err(|e| format!("blocking signals: {e}"))?,
        )
    };
    let (mut created, plan) = make(global, args, true, detach, image)?;
    let connected = match (image.network, &created.namespaces) {
        (Some(connect), Some(namespaces)) => connect(namespaces),
        _ => Ok(()),
    };
    let started = connected.map_err(Failure::says).and_then(|()| {
        let listening = notify::listen(&created.entry)?;
        log::debug(global, || log::reached::START.into());
        created.start(&plan)?;
        Ok(listening)
    });
    let listening = match started {
        Ok(listening) => listening,
        Err(failure) => {
            if let Err(stuck) = created.destroy(&plan.hooks.poststop) {
                log::warnings(global, &[stuck.to_string()]);
            }
            return not_started(global, failure, image.codes);
        }
    };
    // Others may work on the container from here on.
    created.lock = None;
    let ready = listening.zip(notify_socket());
    let Some(signals) = signals else {
        let told = ready.map(|(socket, service)| {
            notify::relay(&socket, &service, created.pidfd.as_fd(), created.record.pid)
        });
        return told.unwrap_or(Ok(())).map(|()| 0).map_err(|f| f.to_string());
    };
    if let Some((socket, service)) = ready {
        let init =
            created.pidfd.try_clone().map_err(|e| format!("waiting for the container to be ready: {e}"))?;
        let pid = created.record.pid;
        // Beside the relay of signals and the terminal. What it cannot tell, nobody waits for but the manager, in vain.
        std::thread::spawn(move || notify::relay(&socket, &service, init.as_fd(), pid));
    }
    let workload =
        relay::Workload { pidfd: &created.pidfd, pid: created.record.pid, master: created.master.take() };
    // Of a workload that cannot be waited for any more, nobody would pass signals on, or tell the end.
    let status = relay::wait(workload, &signals).map_err(|f| f.to_string());
    if !keep {
        match image.overlay {
            Some(_) => drop(crate::lifecycle::remove(global, &created.entry, true)?),
            None => {
                let deleted = lifecycle::delete(&created.entry, true, &|_, _| Ok(plan.hooks.clone()));
                crate::lifecycle::told(global, deleted)?;
            }
        }
    }
    status.map(|status| status.code() as u8)
}

/// What of a container that is set up kept its program from beginning.
fn not_started(global: &Global, failure: Failure, codes: bool) -> Outcome {
    if failure.origin != PROGRAM {
        return Err(failure.to_string());
    }
    let code = match (codes, failure.errno) {
        (false, _) => 1,
        (true, Some(Errno::ENOENT)) => UNKNOWN,
        (true, _) => UNRUNNABLE,
    };
    log::last_words(global, &failure.at("").to_string());
    Ok(code)
}

/// Print what create would do with a bundle on this host, without doing it
#[derive(Args)]
pub(crate) struct PlanArgs {
    /// Bundle directory (also as --bundle)
    #[arg(value_name = "BUNDLE")]
    directory: Option<PathBuf>,
    /// Bundle directory
    #[arg(short, long, value_name = "DIR", conflicts_with = "directory")]
    bundle: Option<PathBuf>,
}

/// `coracle plan`.
pub(crate) fn plan(global: &Global, args: &PlanArgs) -> Outcome {
    let here = PathBuf::from(".");
    let directory = args.bundle.as_ref().or(args.directory.as_ref()).unwrap_or(&here);
    let bundle = bundle::read(directory, Path::new("config.json"))?;
    let mut host = probe::host();
    systemd(global, &bundle.spec, &mut host)?;
    let request = Request {
        id: "ID".into(),
        bundle: bundle.path.clone(),
        rootless: global.rootless_cgroups(),
        no_cgroups: global.no_cgroups(),
        ..Request::default()
    };
    let plan = coracle_plan::plan(&bundle.spec, &host, &request).map_err(|r| refused(global, &bundle, &r))?;
    let warnings: String = bundle.warnings.iter().map(|w| format!("warning: {w}\n")).collect();
    crate::inspect::answer(&format!("{}{warnings}", coracle_plan::show::show(&plan)))?;
    bundle.check_rootfs().map(|()| 0)
}

/// The mistakes as one error. What was left out before them is said first: it can be why.
fn refused(global: &Global, bundle: &Bundle, refusal: &Refusal) -> String {
    log::warnings(global, &bundle.warnings);
    format!("{}: {refusal}", bundle.file.display())
}

/// What create, run and restore begin with: everything read, everything decided, nothing done.
pub(crate) struct Prepared {
    pub(crate) bundle: Bundle,
    pub(crate) plan: Plan,
    pub(crate) record: Record,
    request: Request,
    /// Under which the compiled seccomp program is kept.
    key: Option<String>,
    /// Who makes the control group, if systemd does.
    pub(crate) systemd: Option<scope::Manager>,
}

impl Prepared {
    /// What had to be left out.
    pub(crate) fn warnings(&self) -> Vec<String> {
        self.bundle.warnings.iter().chain(&self.plan.warnings).cloned().collect()
    }
}

/// Reads and decides.
pub(crate) fn prepare(
    global: &Global,
    args: &CreateArgs,
    detached: bool,
    image: &Image,
) -> Result<Prepared, String> {
    coracle_state::check_id(&args.id).map_err(|e| e.to_string())?;
    seal::protect().map_err(|f| f.to_string())?;
    let bundle = bundle::read(&args.bundle, &args.config)?;
    let mut host = probe::host();
    if global.no_cgroups() {
        host.cgroup = CgroupMode::None;
    }
    let systemd = systemd(global, &bundle.spec, &mut host)?;
    let root = global.state_root();
    let mut request = request(global, args, &bundle, detached);
    request.overlay = image.overlay.clone();
    if notify_socket().is_some() {
        request.notify = Some(notify::place(&root.join(&args.id)));
        request.environment.push(format!("{NOTIFY}={}", notify::SEEN_AS));
    }
    let profile = bundle.spec.linux().as_ref().and_then(|l| l.seccomp().as_ref());
    let key = profile.map(coracle_plan::seccomp_key);
    request.compiled = key.as_ref().and_then(|key| kept::get(&root, key));
    let plan = coracle_plan::plan(&bundle.spec, &host, &request).map_err(|r| refused(global, &bundle, &r))?;
    bundle.check_rootfs()?;
    log::debug(global, || coracle_plan::show::show(&plan));
    if let Some(filter) = plan.filter() {
        log::debug(global, || format!("seccomp filter flags: {}", filter.flags));
    }
    let record = record(&bundle, &plan, &host, &args.id);
    Ok(Prepared { bundle, plan, record, request, key, systemd })
}

fn make(
    global: &Global,
    args: &CreateArgs,
    foreground: bool,
    detached: bool,
    image: &Image,
) -> Result<(coracle_apply::Created, Plan), String> {
    let prepared = prepare(global, args, detached, image)?;
    if foreground {
        let startable = coracle_plan::startable(&prepared.bundle.spec);
        startable.map_err(|r| refused(global, &prepared.bundle, &r))?;
    }
    let root = global.state_root();
    let mut warnings = prepared.warnings();
    let Prepared { bundle, plan, record, request, key, systemd } = prepared;
    let receiver = coracle_plan::pidfd_receiver(&bundle.spec).map(Path::new);
    let how = How {
        root: &root,
        config: &bundle.bytes,
        pid_file: args.pid_file.as_deref(),
        foreground,
        preserve_fds: request.preserve_fds,
        pidfd_socket: args.pidfd_socket.as_deref().or(receiver),
        namespaces: image.network.is_some(),
        at_once: foreground && image.network.is_none() && request.notify.is_none(),
    };
    log::debug(global, || log::reached::CLONE.into());
    let aside = image.output.as_ref().map(crate::image::Aside::put).transpose()?;
    let created = coracle_apply::create(&plan, record, &how, systemd, &mut warnings);
    drop(aside);
    // Also of one that failed: what was left out may be why.
    log::warnings(global, &warnings);
    let created = created.map_err(|f| {
        let command = if foreground { "run" } else { "create" };
        format!("{} {command} failed: unable to start container process: {f}", usage::name())
    })?;
    log::debug(global, || log::reached::READY.into());
    if let (Some(key), None, Some(filter)) = (&key, &request.compiled, plan.filter()) {
        kept::put(&root, key, &filter.program);
    }
    Ok((created, plan))
}

fn request(global: &Global, args: &CreateArgs, bundle: &Bundle, detached: bool) -> Request {
    Request {
        id: args.id.clone(),
        bundle: bundle.path.clone(),
        preserve_fds: args.preserve_fds + listen_fds(),
        environment: listen_environment(),
        notify: None,
        console_socket: args.console_socket.clone(),
        no_pivot: args.no_pivot,
        no_new_keyring: args.no_new_keyring,
        foreground: !detached,
        detached,
        compiled: None,
        overlay: None,
        own_clocks: false,
        rootless: global.rootless_cgroups(),
        no_cgroups: global.no_cgroups(),
        moved_into_cgroup: false,
    }
}

/// The systemd that is to make the control group, if one is: the caller's own, where the caller has no rights.
fn systemd(global: &Global, spec: &Spec, host: &mut Host) -> Result<Option<scope::Manager>, String> {
    if !global.systemd() || host.cgroup == CgroupMode::None {
        return Ok(None);
    }
    let nested = || probe::in_user_namespace() && probe::outer_uid() != 0;
    let user = global.rootless_cgroups() || global.rootless == "auto" && nested();
    let resources = spec.linux().as_ref().and_then(|linux| linux.resources().as_ref());
    let weighs = resources.is_some_and(|r| r.block_io().is_some() || r.unified().is_some());
    let (manager, facts) = scope::connect(user, weighs).map_err(|f| format!("--systemd-cgroup: {f}"))?;
    host.systemd = Some(facts);
    Ok(Some(manager))
}

/// Socket activation: descriptors that were passed to this very process, or by a caller that named none. sd_listen_fds(3).
pub(crate) fn listen_fds() -> u32 {
    let number = |name: &str| std::env::var(name).ok()?.parse::<u32>().ok();
    let own = std::env::var_os("LISTEN_PID").is_none() || number("LISTEN_PID") == Some(std::process::id());
    match number("LISTEN_FDS") {
        Some(n) if own => n,
        _ => 0,
    }
}

/// The same for the workload, which is the first process that there is.
pub(crate) fn listen_environment() -> Vec<String> {
    match listen_fds() {
        0 => Vec::new(),
        n => vec![format!("LISTEN_FDS={n}"), "LISTEN_PID=1".into()],
    }
}

/// The service manager that wants to know when the container is ready: sd_notify(3).
pub(crate) fn notify_socket() -> Option<std::ffi::OsString> {
    std::env::var_os(NOTIFY).filter(|path| !path.is_empty())
}

fn record(bundle: &Bundle, plan: &Plan, host: &Host, id: &str) -> Record {
    let namespaces = bundle.spec.linux().as_ref().and_then(|l| l.namespaces().as_ref());
    let own_pids =
        namespaces.into_iter().flatten().any(|n| n.typ() == LinuxNamespaceType::Pid && n.path().is_none());
    Record {
        oci_version: bundle.spec.version().clone(),
        id: id.to_owned(),
        bundle: bundle.path.clone(),
        rootfs: bundle.rootfs.clone(),
        created: clock::now(),
        stage: Stage::Creating,
        pid: 0,
        start_time: 0,
        cgroup: plan.cgroup.path.clone(),
        cgroup_v1: host.cgroup == CgroupMode::Legacy,
        unit: plan.cgroup.unit.as_ref().map(|u| Unit { name: u.name.clone(), user: u.user }),
        rdt: None,
        shared_pids: !own_pids,
        own_clocks: false,
        root_mount: coracle_apply::root_mount(plan),
        annotations: bundle
            .spec
            .annotations()
            .iter()
            .flatten()
            .map(|(k, v)| (k.clone(), v.clone()))
            .collect(),
        owner: host.euid,
    }
}
