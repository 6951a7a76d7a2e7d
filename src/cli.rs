//! The command line, in runc's spelling and meaning.

use crate::{checkpoint, create, events, features, image, inspect, lifecycle, ps, spec, update, usage};
use clap::{Args, Parser, Subcommand};
use std::path::PathBuf;
use std::process::ExitCode;

/// What a command gives: its exit code, or the message that it failed with.
pub(crate) type Outcome = Result<u8, String>;

/// Open Container Initiative runtime
#[derive(Parser)]
#[command(name = "coracle", disable_version_flag = true, max_term_width = 100)]
pub(crate) struct Cli {
    #[command(flatten)]
    pub(crate) global: Global,
    #[command(subcommand)]
    command: Option<Command>,
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

/// What create and run have in common.
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

/// What exec takes.
#[derive(Args)]
pub(crate) struct ExecArgs {
    /// File with the process as JSON
    #[arg(short, long, value_name = "FILE")]
    pub(crate) process: Option<PathBuf>,
    /// Return when the process has started
    #[arg(short, long)]
    pub(crate) detach: bool,
    /// File to write the process's pid to
    #[arg(long, value_name = "FILE")]
    pub(crate) pid_file: Option<PathBuf>,
    /// Unix socket that takes the terminal
    #[arg(long, value_name = "SOCKET")]
    pub(crate) console_socket: Option<PathBuf>,
    /// Unix socket that takes a pidfd of the process
    #[arg(long, value_name = "SOCKET")]
    pub(crate) pidfd_socket: Option<PathBuf>,
    /// Give it a terminal
    #[arg(short, long)]
    pub(crate) tty: bool,
    /// Working directory
    #[arg(long, value_name = "DIR")]
    pub(crate) cwd: Option<PathBuf>,
    /// Add to the environment: NAME=VALUE
    #[arg(short, long, value_name = "NAME=VALUE")]
    pub(crate) env: Vec<String>,
    /// User as uid or uid:gid
    #[arg(short, long, value_name = "UID[:GID]")]
    pub(crate) user: Option<String>,
    /// Further groups
    #[arg(short = 'g', long, value_name = "GID")]
    pub(crate) additional_gids: Vec<u32>,
    /// Add a capability
    #[arg(short, long, value_name = "CAP")]
    pub(crate) cap: Vec<String>,
    /// AppArmor profile
    #[arg(long, value_name = "PROFILE")]
    pub(crate) apparmor: Option<String>,
    /// SELinux label
    #[arg(long, value_name = "LABEL")]
    pub(crate) process_label: Option<String>,
    /// No new privileges
    #[arg(long)]
    pub(crate) no_new_privs: bool,
    /// Pass this many descriptors beyond the first three
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub(crate) preserve_fds: u32,
    /// Join a group below the container's control group: PATH (on v1 also CONTROLLER,...:PATH)
    #[arg(long, value_name = "PATH")]
    pub(crate) cgroup: Vec<String>,
    /// Even if the container is paused
    #[arg(long)]
    pub(crate) ignore_paused: bool,
    /// Name of the container
    pub(crate) id: String,
    /// The program and its arguments
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    pub(crate) command: Vec<String>,
}

#[derive(Subcommand)]
enum Command {
    /// Create a container: everything up to the start of its program
    Create {
        #[command(flatten)]
        args: CreateArgs,
    },
    /// Start a created container's program
    Start { id: String },
    /// Create and start a container, and wait for its end (from an image: run --image, see run-image --help)
    Run {
        #[command(flatten)]
        args: CreateArgs,
        /// Return when it has started
        #[arg(short, long)]
        detach: bool,
        /// Keep the container after its end
        #[arg(long)]
        keep: bool,
    },
    /// Run a container from an image in one step: also as run --image
    #[command(disable_help_flag = true, mut_arg("hostname", |a| a.short('h')))]
    RunImage {
        /// Print help
        #[arg(long, action = clap::ArgAction::Help)]
        help: Option<bool>,
        #[command(flatten)]
        args: Box<image::RunArgs>,
    },
    /// Run another program in a running container
    Exec {
        #[command(flatten)]
        args: Box<ExecArgs>,
    },
    /// Print the state of a container as JSON
    State { id: String },
    /// Send a signal to a container's init (SIGTERM when none is named)
    Kill {
        /// Send it to all processes of the container
        #[arg(short, long)]
        all: bool,
        /// ID is a regular expression: every container whose name it matches
        #[arg(short, long)]
        regex: bool,
        id: String,
        #[arg(default_value = "SIGTERM")]
        signal: String,
    },
    /// End a container: with the signal that its image wants (else SIGTERM), and by force when that has not helped
    Stop {
        /// Seconds to wait before SIGKILL
        #[arg(short, long, value_name = "SECONDS", default_value_t = 10)]
        time: u32,
        id: String,
    },
    /// Delete a container
    Delete {
        /// Kill it first if it runs; no error if it does not exist
        #[arg(short, long)]
        force: bool,
        /// ID is a regular expression: every container whose name it matches
        #[arg(short, long)]
        regex: bool,
        id: String,
    },
    /// List containers
    List {
        /// table or json
        #[arg(short, long, default_value = "table", value_parser = ["table", "json"])]
        format: String,
        /// Only their names
        #[arg(short, long)]
        quiet: bool,
    },
    /// Freeze all processes of a container
    Pause { id: String },
    /// Let a paused container go on
    Resume { id: String },
    /// Take a picture of a container, with criu
    Checkpoint {
        #[command(flatten)]
        args: Box<checkpoint::CheckpointArgs>,
    },
    /// Make a running container of such a picture
    Restore {
        #[command(flatten)]
        args: Box<checkpoint::RestoreArgs>,
    },
    /// List the processes of a container
    Ps {
        /// table or json
        #[arg(short, long, default_value = "table", value_parser = ["table", "json"])]
        format: String,
        id: String,
        /// Options for ps (default -ef)
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        options: Vec<String>,
    },
    /// Change limits of a container
    #[command(args_override_self = true)]
    Update {
        #[command(flatten)]
        args: Box<update::UpdateArgs>,
    },
    /// Print what a container uses, and when the kernel kills in it for want of memory, as JSON
    #[command(args_override_self = true)]
    Events {
        /// How often, such as 5s or 100ms
        #[arg(long, value_name = "DURATION", default_value = "5s")]
        interval: String,
        /// What it uses now, and no more
        #[arg(long)]
        stats: bool,
        id: String,
    },
    /// Write a config.json to begin with
    Spec {
        /// Bundle directory
        #[arg(short, long, value_name = "DIR", default_value = ".")]
        bundle: PathBuf,
        /// For a user without privileges
        #[arg(long)]
        rootless: bool,
    },
    /// Turn an image (OCI layout, oci-archive, docker-archive) into a bundle
    Unpack {
        #[command(flatten)]
        args: Box<image::UnpackArgs>,
    },
    /// Print what an image is and holds, as JSON, without unpacking it
    Inspect {
        #[command(flatten)]
        args: image::InspectArgs,
    },
    /// Pull an image from a registry into the store
    Pull {
        #[command(flatten)]
        args: image::PullArgs,
    },
    /// List the images in the store
    Images {
        #[command(flatten)]
        args: image::ImagesArgs,
    },
    /// Remove images from the store, and what only they need
    Rmi {
        #[command(flatten)]
        args: image::RmiArgs,
    },
    /// Print what this build supports, as JSON
    Features,
    /// Print what create would do with a bundle on this host, without doing it
    Plan {
        /// Bundle directory (also as --bundle)
        #[arg(value_name = "BUNDLE")]
        directory: Option<PathBuf>,
        /// Bundle directory
        #[arg(short, long, value_name = "DIR")]
        bundle: Option<PathBuf>,
    },
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
pub(crate) fn parse() -> Result<Cli, ExitCode> {
    let cli = usage::parse()?;
    if cli.global.version {
        crate::inspect::print(&version());
        return Err(ExitCode::SUCCESS);
    }
    if cli.command.is_none() {
        crate::log::error(&cli.global, "no command given; see coracle --help");
        return Err(ExitCode::FAILURE);
    }
    Ok(cli)
}

/// Under the name that it was called by: installed in the place of another runtime, it is asked as that one. The last line
/// names what a build of crun may lack, in its words.
fn version() -> String {
    let commit = option_env!("CORACLE_COMMIT").unwrap_or("unknown");
    let (name, version) = (usage::name(), env!("CARGO_PKG_VERSION"));
    let parts = "+SYSTEMD +SELINUX +APPARMOR +CAP +SECCOMP +EBPF +CRIU";
    format!("{name} version {version}\ncommit: {commit}\nspec: {}\n{parts}\n", features::SPEC_MAX)
}

impl Cli {
    /// Runs the command.
    pub(crate) fn run(&self) -> Outcome {
        let global = &self.global;
        match self.command.as_ref().expect("parse() made sure of it") {
            Command::Create { args } => create::create(global, args),
            Command::Run { args, detach, keep, .. } => create::run(global, args, *detach, *keep),
            Command::Exec { args } => crate::exec::run(global, args),
            Command::Start { id } => lifecycle::start(global, id),
            Command::State { id } => inspect::state(global, id),
            Command::Kill { all, regex, id, signal } => lifecycle::kill(global, (id, *regex), signal, *all),
            Command::Stop { time, id } => lifecycle::stop(global, id, *time),
            Command::Delete { force, regex, id } => lifecycle::delete(global, (id, *regex), *force),
            Command::List { format, quiet } => inspect::list(global, format == "json", *quiet),
            Command::Pause { id } => lifecycle::pause(global, id, true),
            Command::Resume { id } => lifecycle::pause(global, id, false),
            Command::Checkpoint { args } => checkpoint::checkpoint(global, args),
            Command::Restore { args } => checkpoint::restore(global, args),
            Command::Ps { format, id, options } => ps::ps(global, id, format == "json", options),
            Command::Update { args } => update::update(global, args),
            Command::Events { interval, stats, id } => events::events(global, id, interval, *stats),
            Command::Spec { bundle, rootless } => spec::spec(bundle, *rootless),
            Command::RunImage { args, .. } => image::run(global, args),
            Command::Pull { args } => image::pull_image(args),
            Command::Images { args } => image::images(global, args),
            Command::Rmi { args } => image::rmi(global, args),
            Command::Unpack { args } => image::unpack(global, args),
            Command::Inspect { args } => image::inspect(args),
            Command::Features => features::features(),
            Command::Plan { directory, bundle } => {
                let here = PathBuf::from(".");
                create::plan(global, bundle.as_ref().or(directory.as_ref()).unwrap_or(&here))
            }
        }
    }
}
