//! create, run and plan.

use crate::bundle::{self, Bundle};
use crate::cli::{CreateArgs, Global, Outcome};
use crate::{clock, log};
use coracle_apply::{How, lifecycle, probe, relay, seal};
use coracle_plan::inputs::{CgroupMode, Host, Request};
use coracle_plan::oci::LinuxNamespaceType;
use coracle_plan::steps::Plan;
use coracle_state::{Record, Stage, kept};
use coracle_sys::signal;
use std::path::Path;

/// `coracle create`.
pub(crate) fn create(global: &Global, args: &CreateArgs) -> Outcome {
    make(global, args, false, true).map(|_| 0)
}

/// `coracle run`.
pub(crate) fn run(global: &Global, args: &CreateArgs, detach: bool, keep: bool) -> Outcome {
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
    let (mut created, plan) = make(global, args, true, detach)?;
    if let Err(failure) = created.start(&plan) {
        let _ = created.destroy(&plan.hooks.poststop);
        return Err(failure.to_string());
    }
    // Others may work on the container from here on.
    created.lock = None;
    let Some(signals) = signals else { return Ok(0) };
    let workload =
        relay::Workload { pidfd: &created.pidfd, pid: created.record.pid, master: created.master.as_ref() };
    let status = relay::wait(&workload, &signals).map_err(|f| f.to_string())?;
    if !keep {
        lifecycle::delete(&created.entry, true, &|_| plan.hooks.clone()).map_err(|f| f.to_string())?;
    }
    Ok(status.code() as u8)
}

/// `coracle plan`.
pub(crate) fn plan(global: &Global, directory: &Path) -> Outcome {
    let bundle = bundle::read(directory)?;
    let host = probe::host();
    let request = Request {
        id: "ID".into(),
        bundle: bundle.path.clone(),
        rootless: global.rootless == "true",
        ..Request::default()
    };
    let plan = coracle_plan::plan(&bundle.spec, &host, &request)
        .map_err(|refusal| refused(&bundle, &refusal.to_string()))?;
    let warnings: String = bundle.warnings.iter().map(|w| format!("warning: {w}\n")).collect();
    crate::inspect::print(&format!("{}{warnings}", coracle_plan::show::show(&plan)));
    bundle.check_rootfs().map(|()| 0)
}

fn refused(bundle: &Bundle, what: &str) -> String {
    format!("{}: {what}", bundle.path.join("config.json").display())
}

fn make(
    global: &Global,
    args: &CreateArgs,
    foreground: bool,
    detached: bool,
) -> Result<(coracle_apply::Created, Plan), String> {
    coracle_state::check_id(&args.id).map_err(|e| e.to_string())?;
    if global.systemd_cgroup {
        return Err(
            "--systemd-cgroup: control groups through systemd are not built yet; leave the option out".into(),
        );
    }
    seal::protect().map_err(|f| f.to_string())?;
    let bundle = bundle::read(&args.bundle)?;
    bundle.check_rootfs()?;
    let host = probe::host();
    let root = global.state_root();
    let mut request = request(global, args, &bundle, detached);
    let profile = bundle.spec.linux().as_ref().and_then(|l| l.seccomp().as_ref());
    let key = profile.map(coracle_plan::seccomp_key);
    request.compiled = key.as_ref().and_then(|key| kept::get(&root, key));
    let plan =
        coracle_plan::plan(&bundle.spec, &host, &request).map_err(|r| refused(&bundle, &r.to_string()))?;
    let mut warnings = bundle.warnings.clone();
    warnings.extend(plan.warnings.iter().cloned());
    let how = How {
        root: &root,
        config: &bundle.bytes,
        pid_file: args.pid_file.as_deref(),
        foreground,
        preserve_fds: request.preserve_fds,
    };
    let created = coracle_apply::create(&plan, record(&bundle, &plan, &host, &args.id), &how, &mut warnings)
        .map_err(|f| f.to_string())?;
    if let (Some(key), None, Some(program)) = (&key, &request.compiled, plan.seccomp_program()) {
        kept::put(&root, key, program);
    }
    log::warnings(global, &warnings);
    Ok((created, plan))
}

fn request(global: &Global, args: &CreateArgs, bundle: &Bundle, detached: bool) -> Request {
    Request {
        id: args.id.clone(),
        bundle: bundle.path.clone(),
        preserve_fds: args.preserve_fds + listen_fds(),
        console_socket: args.console_socket.clone(),
        no_pivot: args.no_pivot,
        no_new_keyring: args.no_new_keyring,
        foreground: !detached,
        detached,
        compiled: None,
        rootless: global.rootless == "true",
    }
}

/// Socket activation: descriptors that were passed to this very process. sd_listen_fds(3).
pub(crate) fn listen_fds() -> u32 {
    let number = |name: &str| std::env::var(name).ok()?.parse::<u32>().ok();
    match (number("LISTEN_FDS"), number("LISTEN_PID")) {
        (Some(n), Some(pid)) if pid == std::process::id() => n,
        _ => 0,
    }
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
        shared_pids: !own_pids,
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
