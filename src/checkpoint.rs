//! checkpoint and restore, with criu(8).

use crate::cli::{Global, Outcome};
use crate::create::RunArgs;
use crate::lifecycle::{entry, hooks};
use crate::log;
use clap::Args;
use coracle_apply::checkpoint::{self, Options, RestoreHow};
use coracle_apply::relay::{self, Workload};
use coracle_apply::{lifecycle, probe};
use coracle_plan::inputs::Request;
use coracle_sys::signal;
use std::path::PathBuf;

/// What both take.
#[derive(Args)]
pub(crate) struct Common {
    /// Directory of the image
    #[arg(long, value_name = "DIR", default_value = "checkpoint")]
    image_path: PathBuf,
    /// Directory of criu's log
    #[arg(long, value_name = "DIR")]
    work_path: Option<PathBuf>,
    /// Open TCP connections too
    #[arg(long)]
    tcp_established: bool,
    /// Unix sockets to the outside too
    #[arg(long)]
    ext_unix_sk: bool,
    /// A container on this terminal
    #[arg(long)]
    shell_job: bool,
    /// File locks too
    #[arg(long)]
    file_locks: bool,
    /// Memory on demand, from a page server
    #[arg(long)]
    lazy_pages: bool,
    /// Take memory that is in a parent image out of it
    #[arg(long)]
    auto_dedup: bool,
    /// What happens to control groups: soft, full, strict or ignore
    #[arg(long, value_name = "MODE", value_parser = ["soft", "full", "strict", "ignore"])]
    manage_cgroups_mode: Option<String>,
    /// How connections are kept still: iptables, nftables or skip
    #[arg(long, value_name = "METHOD", value_parser = ["iptables", "nftables", "skip"])]
    network_lock: Option<String>,
    /// Namespaces to make anew, empty (network, which always is)
    #[arg(long, value_name = "NAMESPACE", value_parser = ["network"])]
    empty_ns: Vec<String>,
}

/// Take a picture of a container, with criu
#[derive(Args)]
pub(crate) struct CheckpointArgs {
    #[command(flatten)]
    common: Common,
    /// Directory of the image before this one, from the image's directory
    #[arg(long, value_name = "DIR")]
    parent_path: Option<String>,
    /// Let the container run on
    #[arg(long)]
    leave_running: bool,
    /// Only memory, while the container runs on
    #[arg(long)]
    pre_dump: bool,
    /// Leave out TCP connections that are being made
    #[arg(long)]
    tcp_skip_in_flight: bool,
    /// Files without a name too
    #[arg(long)]
    link_remap: bool,
    /// Descriptor to write a NUL to when the lazy page server is ready
    #[arg(long, value_name = "FD")]
    status_fd: Option<i32>,
    /// Page server to send memory to
    #[arg(long, value_name = "ADDRESS:PORT")]
    page_server: Option<String>,
    /// Name of the container
    id: String,
}

/// Make a running container of such a picture
#[derive(Args)]
pub(crate) struct RestoreArgs {
    #[command(flatten)]
    common: Common,
    #[command(flatten)]
    run: RunArgs,
    /// LSM profile of its processes: TYPE:NAME
    #[arg(long, value_name = "TYPE:NAME")]
    lsm_profile: Option<String>,
    /// SELinux context of its mounts
    #[arg(long, value_name = "CONTEXT")]
    lsm_mount_context: Option<String>,
    /// Close its TCP connections
    #[arg(long)]
    tcp_close: bool,
}

impl Common {
    fn options(&self) -> Options {
        let absolute = |path: &PathBuf| std::path::absolute(path).unwrap_or_else(|_| path.clone());
        Options {
            image: absolute(&self.image_path),
            work: self.work_path.as_ref().map(absolute),
            tcp_established: self.tcp_established,
            ext_unix_sk: self.ext_unix_sk,
            shell_job: self.shell_job,
            file_locks: self.file_locks,
            lazy_pages: self.lazy_pages,
            auto_dedup: self.auto_dedup,
            manage_cgroups: mode(self.manage_cgroups_mode.as_deref()),
            network_lock: self.network_lock.as_deref().map(lock),
            ..Options::default()
        }
    }
}

/// enum criu_cg_mode of criu's rpc.proto; without a word, criu's own default.
fn mode(word: Option<&str>) -> i64 {
    match word {
        Some("ignore") => 0,
        Some("soft") => 3,
        Some("full") => 4,
        Some("strict") => 5,
        _ => 6,
    }
}

/// enum criu_network_lock_method of criu's rpc.proto.
fn lock(word: &str) -> i64 {
    match word {
        "nftables" => 2,
        "skip" => 3,
        _ => 1,
    }
}

fn page_server(text: &str) -> Result<(String, u16), String> {
    let wrong = || format!("--page-server {text:?}: write it as ADDRESS:PORT");
    let (address, port) = text.rsplit_once(':').ok_or_else(wrong)?;
    let address = address.trim_start_matches('[').trim_end_matches(']');
    Ok((address.to_owned(), port.parse().ok().filter(|_| !address.is_empty()).ok_or_else(wrong)?))
}

/// `coracle checkpoint`.
pub(crate) fn checkpoint(global: &Global, args: &CheckpointArgs) -> Outcome {
    let entry = entry(global, &args.id)?;
    let record = entry.record().map_err(|e| e.to_string())?;
    let bytes =
        entry.read("config.json").map_err(|e| format!("reading the container's configuration: {e}"))?;
    let (spec, _) = coracle_plan::config::parse(&bytes).map_err(|r| r.to_string())?;
    let request = Request {
        id: record.id.clone(),
        bundle: record.bundle.clone(),
        rootless: global.rootless_cgroups(),
        ..Request::default()
    };
    let plan = coracle_plan::plan(&spec, &probe::host(), &request).map_err(|r| r.to_string())?;
    let options = Options {
        parent: args.parent_path.clone(),
        leave_running: args.leave_running,
        pre_dump: args.pre_dump,
        tcp_skip_in_flight: args.tcp_skip_in_flight,
        link_remap: args.link_remap,
        status_fd: args.status_fd,
        page_server: args.page_server.as_deref().map(page_server).transpose()?,
        ..args.common.options()
    };
    checkpoint::checkpoint(&plan, &entry, &record, &options).map_err(|f| f.to_string())?;
    if !args.leave_running && !args.pre_dump {
        lifecycle::delete(&entry, true, &|entry, _| hooks(entry)).map_err(|f| f.to_string())?;
    }
    Ok(0)
}

/// `coracle restore`.
pub(crate) fn restore(global: &Global, args: &RestoreArgs) -> Outcome {
    let signals = if args.run.detach {
        None
    } else {
        let all = signal::block_all().and_then(|_| signal::signalfd());
        Some(all.map_err(|e| format!("blocking signals: {e}"))?)
    };
    let prepared = crate::create::prepare(global, &args.run.create, args.run.detach, &Default::default())?;
    let options = Options {
        lsm_profile: args.lsm_profile.clone(),
        lsm_mount_context: args.lsm_mount_context.clone(),
        tcp_close: args.tcp_close,
        ..args.common.options()
    };
    let how = RestoreHow {
        root: &global.state_root(),
        config: &prepared.bundle.bytes,
        pid_file: args.run.create.pid_file.as_deref(),
        options: &options,
    };
    let mut warnings = prepared.warnings();
    let systemd = prepared.systemd;
    let mut restored = checkpoint::restore(&prepared.plan, prepared.record, &how, systemd, &mut warnings)
        .map_err(|f| f.to_string())?;
    log::warnings(global, &warnings);
    restored.lock = None;
    let Some(signals) = signals else { return Ok(0) };
    let workload = Workload { pidfd: &restored.pidfd, pid: restored.pid, master: restored.master.take() };
    let status = relay::wait(workload, &signals).map_err(|f| f.to_string())?;
    if !args.run.keep {
        lifecycle::delete(&restored.entry, true, &|entry, _| hooks(entry)).map_err(|f| f.to_string())?;
    }
    Ok(status.code() as u8)
}
