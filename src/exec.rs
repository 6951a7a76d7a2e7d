//! exec: another process in a running container, from a process.json or from flags.

use crate::cli::{Global, Outcome};
use crate::lifecycle::entry;
use crate::log;
use clap::Args;
use coracle_apply::relay::{self, Workload};
use coracle_apply::{exec, lifecycle, probe, seal};
use coracle_plan::inputs::Request;
use coracle_plan::oci::{Capabilities, Process, Spec, User};
use coracle_state::Record;
use coracle_sys::signal;
use std::path::PathBuf;

/// Run another program in a running container
#[derive(Args)]
pub(crate) struct ExecArgs {
    /// File with the process as JSON
    #[arg(short, long, value_name = "FILE")]
    process: Option<PathBuf>,
    /// Return when the process has started
    #[arg(short, long)]
    detach: bool,
    /// File to write the process's pid to
    #[arg(long, value_name = "FILE")]
    pid_file: Option<PathBuf>,
    /// Unix socket that takes the terminal
    #[arg(long, value_name = "SOCKET")]
    console_socket: Option<PathBuf>,
    /// Unix socket that takes a pidfd of the process
    #[arg(long, value_name = "SOCKET")]
    pidfd_socket: Option<PathBuf>,
    /// Give it a terminal
    #[arg(short, long)]
    tty: bool,
    /// Working directory
    #[arg(long, value_name = "DIR")]
    cwd: Option<PathBuf>,
    /// Add to the environment: NAME=VALUE
    #[arg(short, long, value_name = "NAME=VALUE")]
    env: Vec<String>,
    /// User as uid or uid:gid
    #[arg(short, long, value_name = "UID[:GID]")]
    user: Option<String>,
    /// Further groups
    #[arg(short = 'g', long, value_name = "GID")]
    additional_gids: Vec<u32>,
    /// Add a capability
    #[arg(short, long, value_name = "CAP")]
    cap: Vec<String>,
    /// AppArmor profile
    #[arg(long, value_name = "PROFILE")]
    apparmor: Option<String>,
    /// SELinux label
    #[arg(long, value_name = "LABEL")]
    process_label: Option<String>,
    /// No new privileges
    #[arg(long)]
    no_new_privs: bool,
    /// Pass this many descriptors beyond the first three
    #[arg(long, value_name = "N", default_value_t = 0)]
    preserve_fds: u32,
    /// Join a group below the container's control group: PATH (on v1 also CONTROLLER,...:PATH)
    #[arg(long, value_name = "PATH")]
    cgroup: Vec<String>,
    /// Even if the container is paused
    #[arg(long)]
    ignore_paused: bool,
    /// Name of the container
    id: String,
    /// The program and its arguments
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    command: Vec<String>,
}

/// `coracle exec`. A failure of the runtime itself gives 255, as with runc, so that it is told from the program's own codes.
pub(crate) fn run(global: &Global, args: &ExecArgs) -> Outcome {
    inner(global, args).or_else(|message| {
        log::error(global, &message);
        Ok(255)
    })
}

fn inner(global: &Global, args: &ExecArgs) -> Outcome {
    coracle_state::check_id(&args.id).map_err(|e| e.to_string())?;
    seal::protect().map_err(|f| f.to_string())?;
    let signals = if args.detach {
        None
    } else {
        Some(
            signal::block_all()
                .and_then(|_| signal::signalfd())
                .map_err(|e| format!("blocking signals: {e}"))?,
        )
    };
    let entry = entry(global, &args.id)?;
    let record = entry.record().map_err(|e| e.to_string())?;
    let init = match lifecycle::status(&entry, &record).map_err(|f| f.to_string())? {
        ("running" | "created", pid) => pid,
        ("paused", pid) if args.ignore_paused => pid,
        ("paused", _) => {
            return Err(format!(
                "cannot exec in a paused container (use --ignore-paused to override): {:?}; or resume it",
                args.id
            ));
        }
        (status, _) => {
            return Err(format!(
                "cannot exec in a stopped container: {:?} is {status}; run or start one",
                args.id
            ));
        }
    };
    let (spec, _) = entry
        .read("config.json")
        .map_err(|e| format!("reading the container's configuration: {e}"))
        .and_then(|bytes| {
            coracle_plan::config::parse(&bytes)
                .map_err(|r| format!("{}: {r}", entry.path.join("config.json").display()))
        })?;
    if args.process.is_none() && args.tty && args.detach && args.console_socket.is_none() {
        return Err("--tty with --detach: nobody takes the terminal; give --console-socket, or leave one of the two out".into());
    }
    let (process, warnings) = process(args, &spec)?;
    log::warnings(global, &warnings);
    let request = request(args, &record);
    // As the container was made: what could not be looked at now would leave the process outside its control groups.
    let host = probe::host_with(lifecycle::cgroup_mode(&record));
    let plan = coracle_plan::exec(&process, &spec, &host, &request, init, record.cgroup.clone())
        .map_err(|r| r.to_string())?;
    log::debug(global, || coracle_plan::show::show(&plan));
    if !plan.first_cpus.is_empty() {
        // As one number, in the words that runc has for it in its debug log.
        let mask: String = plan.first_cpus.iter().rev().map(|word| format!("{word:016x}")).collect();
        log::debug(global, || format!("nsexec, initial CPUs: affinity: 0x{}", mask.trim_start_matches('0')));
    }
    log::debug(global, || log::reached::CLONE.into());
    let how = exec::ExecHow {
        pid_file: args.pid_file.as_deref(),
        preserve_fds: request.preserve_fds,
        pidfd_socket: args.pidfd_socket.as_deref(),
        cgroup: &args.cgroup,
        paused: args.ignore_paused,
        with_init: coracle_plan::in_group_below(&spec),
    };
    let mut running = exec::exec(&plan, &record, &how).map_err(|f| format!("exec failed: {f}"))?;
    log::debug(global, || log::reached::JOINED.into());
    let Some(signals) = signals else { return Ok(0) };
    let workload = Workload { pidfd: &running.pidfd, pid: running.pid, master: running.master.take() };
    relay::wait(workload, &signals).map(|s| s.code() as u8).map_err(|f| f.to_string())
}

fn request(args: &ExecArgs, record: &Record) -> Request {
    Request {
        id: record.id.clone(),
        bundle: record.bundle.clone(),
        environment: crate::create::listen_environment(),
        preserve_fds: args.preserve_fds + crate::create::listen_fds(),
        console_socket: args.console_socket.clone(),
        foreground: !args.detach,
        detached: args.detach,
        moved_into_cgroup: record.unit.as_ref().is_some_and(|u| u.user),
        own_clocks: record.own_clocks,
        ..Request::default()
    }
}

/// The process: from the file, or the container's own with what the flags change. With the warnings that reading it gave.
fn process(args: &ExecArgs, spec: &Spec) -> Result<(Process, Vec<String>), String> {
    if let Some(file) = &args.process {
        let bytes = std::fs::read(file).map_err(|e| format!("reading {file:?}: {}", log::reason(&e)))?;
        let read = coracle_plan::config::process(&bytes);
        return read.map_err(|e| format!("{}: {e}", file.display()));
    }
    if args.command.is_empty() {
        return Err("no program to run; write coracle exec ID PROGRAM …, or --process FILE".into());
    }
    if let Some(cwd) = args.cwd.as_ref().filter(|cwd| !cwd.is_absolute()) {
        return Err(format!("--cwd {cwd:?} is not an absolute path; write it from the root, such as /"));
    }
    if let Some(line) = args.env.iter().find(|line| !coracle_plan::names_a_variable(line)) {
        return Err(format!(
            "--env {line:?} is not NAME=VALUE; write a name, = and its value, which may be empty"
        ));
    }
    let mut process = spec.process().clone().ok_or(
        "the container's config.json has no process, which the flags could change; give one with --process",
    )?;
    process.set_args(Some(args.command.clone()));
    process.set_terminal(Some(args.tty));
    let mut env = process.env().clone().unwrap_or_default();
    env.extend(args.env.iter().cloned());
    process.set_env(Some(env));
    if let Some(cwd) = &args.cwd {
        process.set_cwd(cwd.clone());
    }
    if let Some(user) = &args.user {
        process.set_user(parse_user(user, process.user())?);
    }
    if !args.additional_gids.is_empty() {
        process.user_mut().set_additional_gids(Some(args.additional_gids.clone()));
    }
    if args.no_new_privs {
        process.set_no_new_privileges(Some(true));
    }
    if let Some(profile) = &args.apparmor {
        process.set_apparmor_profile(Some(profile.clone()));
    }
    if let Some(label) = &args.process_label {
        process.set_selinux_label(Some(label.clone()));
    }
    add_capabilities(&mut process, &args.cap)?;
    Ok((process, Vec::new()))
}

/// `uid[:gid]`, numbers only: a name is never looked up, and nothing is read as 0 by mistake (CVE-2026-30892).
fn parse_user(text: &str, before: &User) -> Result<User, String> {
    let number = |word: &str| match word.parse::<u32>() {
        Ok(n) if n != u32::MAX && word.bytes().all(|b| b.is_ascii_digit()) => Ok(n),
        _ => Err(format!("--user {text:?}: {word:?} is not an id; write uid or uid:gid in numbers")),
    };
    let (uid, gid) = text.split_once(':').map_or((text, None), |(u, g)| (u, Some(g)));
    let mut user = before.clone();
    user.set_uid(number(uid)?);
    user.set_gid(gid.map_or(Ok(before.gid()), number)?);
    Ok(user)
}

/// Adds to bounding, effective and permitted; never to inheritable (CVE-2022-29162). What config.json has as inheritable
/// can be ambient, and becomes it.
fn add_capabilities(process: &mut Process, names: &[String]) -> Result<(), String> {
    if names.is_empty() {
        return Ok(());
    }
    let mut sets = process.capabilities().clone().unwrap_or_default();
    let with = |set: &Option<Capabilities>, more: &Capabilities| {
        Some(set.iter().flatten().chain(more).copied().collect::<Capabilities>())
    };
    let asked = names
        .iter()
        .map(|name| {
            serde_json::from_value(serde_json::json!(name))
                .map_err(|_| format!("--cap {name:?} is not a capability"))
        })
        .collect::<Result<Capabilities, String>>()?;
    let inheritable = sets.inheritable().iter().flatten().copied().collect();
    let raised = asked.intersection(&inheritable).copied().collect();
    sets.set_bounding(with(sets.bounding(), &asked));
    sets.set_effective(with(sets.effective(), &asked));
    sets.set_permitted(with(sets.permitted(), &asked));
    sets.set_ambient(with(sets.ambient(), &raised));
    process.set_capabilities(Some(sets));
    Ok(())
}
