//! The command line, in runc's spelling and meaning.

use crate::{create, features, image, inspect, lifecycle, spec};
use clap::{Args, Parser, Subcommand};
use std::path::PathBuf;
use std::process::ExitCode;

/// What a command gives: its exit code, or the message that it failed with.
pub(crate) type Outcome = Result<u8, String>;

/// Run containers from OCI bundles.
#[derive(Parser)]
#[command(name = "coracle", disable_version_flag = true, args_override_self = true, max_term_width = 100)]
pub(crate) struct Cli {
    #[command(flatten)]
    pub(crate) global: Global,
    #[command(subcommand)]
    command: Option<Command>,
}

/// Options that stand before the command.
#[derive(Args)]
pub(crate) struct Global {
    /// Directory for the state of containers
    #[arg(long, value_name = "DIR")]
    pub(crate) root: Option<PathBuf>,
    /// File that errors are appended to (standard error when not given)
    #[arg(long, value_name = "FILE")]
    pub(crate) log: Option<PathBuf>,
    /// Form of the log: text or json
    #[arg(long, value_name = "FORMAT", default_value = "text", value_parser = ["text", "json"])]
    log_format: String,
    /// Say more
    #[arg(long)]
    pub(crate) debug: bool,
    /// Least level to log
    #[arg(long, value_name = "LEVEL", hide = true)]
    log_level: Option<String>,
    /// Manage control groups through systemd
    #[arg(long)]
    pub(crate) systemd_cgroup: bool,
    /// Whether control groups may be left alone: true, false or auto
    #[arg(long, value_name = "WHEN", default_value = "auto", value_parser = ["true", "false", "auto"])]
    pub(crate) rootless: String,
    /// Accepted for callers that still pass it
    #[arg(long, value_name = "PATH", hide = true)]
    criu: Option<PathBuf>,
    /// Print the version
    #[arg(short = 'v', long)]
    version: bool,
}

/// What create and run have in common.
#[derive(Args)]
pub(crate) struct CreateArgs {
    /// Bundle directory
    #[arg(short, long, value_name = "DIR", default_value = ".")]
    pub(crate) bundle: PathBuf,
    /// Unix socket that takes the terminal
    #[arg(long, value_name = "SOCKET")]
    pub(crate) console_socket: Option<PathBuf>,
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
    /// No new privileges
    #[arg(long)]
    pub(crate) no_new_privs: bool,
    /// Pass this many descriptors beyond the first three
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub(crate) preserve_fds: u32,
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
    #[command(args_override_self = true)]
    Create {
        #[command(flatten)]
        args: CreateArgs,
    },
    /// Start a created container's program
    Start { id: String },
    /// Create and start a container, and wait for its end
    #[command(args_override_self = true)]
    Run {
        #[command(flatten)]
        args: CreateArgs,
        /// Return when it has started
        #[arg(short, long)]
        detach: bool,
        /// Keep the container after its end
        #[arg(long)]
        keep: bool,
        #[arg(long, hide = true)]
        no_subreaper: bool,
    },
    /// Run another program in a running container
    #[command(args_override_self = true)]
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
        id: String,
        #[arg(default_value = "SIGTERM")]
        signal: String,
    },
    /// Delete a container
    Delete {
        /// Kill it first if it runs; no error if it does not exist
        #[arg(short, long)]
        force: bool,
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
    /// List the processes of a container
    Ps {
        /// table or json
        #[arg(short, long, default_value = "table", value_parser = ["table", "json"])]
        format: String,
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
        args: image::UnpackArgs,
    },
    /// Print what an image is and holds, as JSON, without unpacking it
    Inspect {
        #[command(flatten)]
        args: image::InspectArgs,
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
    /// Whether the log is JSON.
    pub(crate) fn json(&self) -> bool {
        self.log_format == "json"
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
    // Go's flag packages take a long option with one dash too; one caller uses that.
    let words = std::env::args_os().map(|w| if w == "-no-subreaper" { "--no-subreaper".into() } else { w });
    let cli = Cli::try_parse_from(words).map_err(|e| {
        let _ = e.print();
        if e.use_stderr() { ExitCode::FAILURE } else { ExitCode::SUCCESS }
    })?;
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

fn version() -> String {
    let commit = option_env!("CORACLE_COMMIT").unwrap_or("unknown");
    format!("coracle version {}\ncommit: {commit}\nspec: {}\n", env!("CARGO_PKG_VERSION"), features::SPEC_MAX)
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
            Command::Kill { all, id, signal } => lifecycle::kill(global, id, signal, *all),
            Command::Delete { force, id } => lifecycle::delete(global, id, *force),
            Command::List { format, quiet } => inspect::list(global, format == "json", *quiet),
            Command::Pause { id } => lifecycle::pause(global, id, true),
            Command::Resume { id } => lifecycle::pause(global, id, false),
            Command::Ps { format, id } => inspect::ps(global, id, format == "json"),
            Command::Spec { bundle, rootless } => spec::spec(bundle, *rootless),
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
