//! The command line, in runc's spelling and meaning.

use crate::{checkpoint, create, events, exec, features, image, inspect, lifecycle, ps, spec, update, usage};
use clap::{ArgMatches, Args};
use std::path::PathBuf;

/// What a command gives: its exit code, or the message that it failed with.
pub(crate) type Outcome = Result<u8, String>;

/// A command with its words read, ready to run.
pub(crate) type Ready = Box<dyn FnOnce(&Global) -> Outcome>;

type Read = Box<dyn Fn(&ArgMatches) -> Result<Ready, clap::Error>>;

/// A command of the command line.
pub(crate) struct Command {
    pub(crate) name: &'static str,
    /// Adds the words that it takes, and its line in the help.
    pub(crate) takes: fn(clap::Command) -> clap::Command,
    /// Reads its own words. Errors: what clap cannot read.
    pub(crate) read: Read,
}

/// All commands, in the order of the help. What each takes is built when it is asked for: for all of them together that is
/// a third of the time of `state`.
pub(crate) fn commands() -> Vec<Command> {
    vec![
        command("create", create::create),
        command("start", lifecycle::start),
        command("run", create::run),
        command("run-image", image::run),
        command("exec", exec::run),
        command("state", inspect::state),
        command("kill", lifecycle::kill),
        command("stop", lifecycle::stop),
        command("delete", lifecycle::delete),
        command("list", inspect::list),
        command("pause", lifecycle::pause),
        command("resume", lifecycle::resume),
        command("checkpoint", checkpoint::checkpoint),
        command("restore", checkpoint::restore),
        command("ps", ps::ps),
        command("update", update::update),
        command("events", events::events),
        command("spec", spec::spec),
        command("unpack", image::unpack),
        command("inspect", image::inspect),
        command("pull", image::pull_image),
        command("images", image::images),
        command("rmi", image::rmi),
        command("features", features::features),
        command("plan", create::plan),
    ]
}

fn command<A: Args + 'static>(name: &'static str, run: fn(&Global, &A) -> Outcome) -> Command {
    let read = move |words: &ArgMatches| {
        let args = A::from_arg_matches(words)?;
        Ok(Box::new(move |global: &Global| run(global, &args)) as Ready)
    };
    Command { name, takes: A::augment_args, read: Box::new(read) }
}

/// Options that stand before the command.
#[derive(Args, Default)]
pub(crate) struct Global {
    /// Directory for the state of containers
    #[arg(long, value_name = "DIR")]
    pub(crate) root: Option<PathBuf>,
    /// Where errors are appended: a file, file:PATH, journald:NAME or syslog:NAME (standard error when not given)
    #[arg(long, value_name = "FILE")]
    pub(crate) log: Option<String>,
    /// Form of the log: text or json
    #[arg(long, value_name = "FORMAT", default_value = "text", value_parser = ["text", "json"])]
    log_format: String,
    /// Say more
    #[arg(long)]
    pub(crate) debug: bool,
    /// Least level to log: error, warning or debug
    #[arg(long, value_name = "LEVEL", value_parser = ["error", "warning", "warn", "info", "debug"])]
    pub(crate) log_level: Option<String>,
    /// Manage control groups through systemd
    #[arg(long)]
    pub(crate) systemd_cgroup: bool,
    /// Who manages control groups: cgroupfs, systemd, or disabled for nobody
    #[arg(long, value_name = "MANAGER", value_parser = ["cgroupfs", "systemd", "disabled"])]
    cgroup_manager: Option<String>,
    /// Whether control groups may be left alone: true, false or auto
    #[arg(long, value_name = "WHEN", default_value = "auto", value_parser = ["true", "false", "auto"])]
    pub(crate) rootless: String,
    /// Accepted for callers that still pass it
    #[arg(long, value_name = "PATH", hide = true)]
    criu: Option<PathBuf>,
    /// Print the version
    #[arg(short = 'v', short_alias = 'V', long)]
    version: bool,
}

impl Global {
    /// Nothing but where to report, and how.
    pub(crate) fn of_log(log: Option<String>, log_format: String) -> Global {
        Global { log, log_format, ..Global::default() }
    }

    /// Whether systemd manages the control groups.
    pub(crate) fn systemd(&self) -> bool {
        self.systemd_cgroup || self.cgroup_manager.as_deref() == Some("systemd")
    }

    /// Whether no control group is to be made: the container stays in the caller's.
    pub(crate) fn no_cgroups(&self) -> bool {
        self.cgroup_manager.as_deref() == Some("disabled")
    }

    /// Whether the log is JSON.
    pub(crate) fn json(&self) -> bool {
        self.log_format == "json"
    }

    /// Whether the caller has no rights over the machine's control groups: as told, or by the user id. Root of a user
    /// namespace shows only where something is refused.
    pub(crate) fn rootless_cgroups(&self) -> bool {
        match self.rootless.as_str() {
            "true" => true,
            "false" => false,
            _ => coracle_sys::creds::geteuid() != 0,
        }
    }

    /// The state root: what was given, the user's runtime directory, or /run/coracle for the host's root.
    pub(crate) fn state_root(&self) -> PathBuf {
        if let Some(root) = &self.root {
            return std::path::absolute(root).unwrap_or_else(|_| root.clone());
        }
        // An empty XDG_RUNTIME_DIR counts as unset: Podman exports it so.
        let user = std::env::var_os("XDG_RUNTIME_DIR").filter(|d| !d.is_empty());
        let euid = coracle_sys::creds::geteuid();
        match user {
            Some(dir) if euid != 0 || coracle_apply::probe::in_user_namespace() => {
                PathBuf::from(dir).join("coracle")
            }
            _ if euid == 0 => PathBuf::from("/run/coracle"),
            _ => std::env::temp_dir().join(format!("coracle-{euid}")),
        }
    }
}

/// Reads the command line; help, version and usage errors end here.
pub(crate) fn parse() -> Result<(Global, Ready), u8> {
    let (global, command) = usage::parse()?;
    if global.version {
        crate::inspect::print(&version());
        return Err(0);
    }
    let Some(command) = command else {
        crate::log::error(&global, "no command given; see coracle --help");
        return Err(1);
    };
    Ok((global, command))
}

/// Under the name that it was called by: installed in the place of another runtime, it is asked as that one. The last line
/// names what a build of crun may lack, in its words.
fn version() -> String {
    let commit = option_env!("CORACLE_COMMIT").unwrap_or("unknown");
    let (name, version) = (usage::name(), env!("CARGO_PKG_VERSION"));
    let parts = "+SYSTEMD +SELINUX +APPARMOR +CAP +SECCOMP +EBPF +CRIU";
    format!("{name} version {version}\ncommit: {commit}\nspec: {}\n{parts}\n", features::SPEC_MAX)
}
