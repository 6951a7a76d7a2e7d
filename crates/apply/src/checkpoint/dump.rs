//! Taking the picture.

use super::mounts::{self, External};
use super::protobuf::{Fields, Message};
use super::swrk::{self, Criu, Notice, kind};
use super::{DESCRIPTORS, Options, config, directory, explained};
use crate::failure::{Doing, Failure, Result, text};
use crate::lifecycle;
use coracle_plan::steps::Plan;
use coracle_state::{Entry, Record};
use coracle_sys::{fs, libc};
use std::ffi::CString;
use std::os::fd::{AsFd, OwnedFd};

/// Takes a picture of a running or paused container into the image's directory.
/// Errors: the status, what criu lacks, what criu says. The container runs on then.
pub fn checkpoint(plan: &Plan, entry: &Entry, record: &Record, options: &Options) -> Result<()> {
    let _lock = lifecycle::locked(entry)?;
    let pid = match lifecycle::status(entry, record)? {
        ("running" | "paused", pid) => pid,
        (status, _) => {
            return Err(Failure::says(format!("container cannot be checkpointed in {status} state")));
        }
    };
    swrk::find()?;
    // The parent is sought from the image's directory, which this makes where it is missing: Podman leaves it to the runtime.
    let image = directory(&options.image)?;
    check(options)?;
    let work = directory(options.work())?;
    let log = options.work().join("dump.log");
    let request = request(plan, record, options, pid, (&image, &work))?;
    let criu = Criu::start(None, &[], &|| Ok(()))?;
    let what = if options.pre_dump { kind::PRE_DUMP } else { kind::DUMP };
    let mut status = options.status_fd;
    let asked = criu.ask(what, Message::default().message(2, &request), |notice| ready(&notice, &mut status));
    let ended = criu.end();
    asked.map_err(|f| explained(f, &log))?;
    // After a pre-dump criu waits for the next request, and calls the end of the connection a failure.
    match ended? || options.pre_dump {
        true => Ok(()),
        false => Err(explained(Failure::says("criu failed after its response"), &log)),
    }
}

/// `status-ready`: the lazy page server listens.
fn ready(notice: &Notice, status: &mut Option<i32>) -> Result<()> {
    if notice.script != "status-ready" {
        return Ok(());
    }
    let Some(number) = status.take() else { return Ok(()) };
    let doing = || format!("writing to --status-fd {number}");
    let fd = fs::inherited(number).doing(doing)?;
    fs::write_all(fd, &[0]).doing(doing)
}

/// What can be known to fail before the container is touched.
fn check(options: &Options) -> Result<()> {
    if let Some(number) = options.status_fd {
        if !fs::is_open(number) {
            return Err(Failure::says(format!("--status-fd {number}: the descriptor is not open")));
        }
    }
    if let Some(parent) = &options.parent {
        if parent.starts_with('/') || !options.image.join(parent).is_dir() {
            return Err(Failure::says(format!(
                "--parent-path {parent:?} must be a directory, given from --image-path, such as ../parent"
            )));
        }
    }
    // struct criu_features: mem_track is 1, lazy_pages is 2.
    for (wanted, number, name) in [(options.pre_dump, 1, "mem_track"), (options.lazy_pages, 2, "lazy_pages")]
    {
        if wanted && !feature(number)? {
            return Err(Failure::says(format!("criu is missing features: {name} (the kernel may lack it)")));
        }
    }
    Ok(())
}

fn feature(number: u64) -> Result<bool> {
    let criu = Criu::start(None, &[], &|| Ok(()))?;
    let wanted = Message::default().number(number, 1);
    let said = criu.ask(kind::FEATURE_CHECK, Message::default().message(5, &wanted), |_| Ok(()));
    let _ = criu.end();
    Ok(Fields::of(&said?).message(8).and_then(|f| f.number(number)) == Some(1))
}

/// message criu_opts of rpc.proto, by number.
fn request(
    plan: &Plan,
    record: &Record,
    options: &Options,
    pid: i32,
    (image, work): (&OwnedFd, &OwnedFd),
) -> Result<Message> {
    let freezer = lifecycle::cgroup(record).map_or(Ok(None), |group| group.freezer())?;
    let mut opts = options
        .common(image, work, "dump.log", config(&record.annotations))
        .number(2, pid)
        .switch(3, options.leave_running)
        .bytes(13, record.rootfs.as_os_str().as_encoded_bytes())
        .text(14, options.parent.as_deref())
        .switch(15, options.parent.is_some() || options.pre_dump)
        .switch(18, options.link_remap)
        .text(44, freezer.as_deref())
        .switch(46, options.tcp_skip_in_flight);
    if let Some((address, port)) = &options.page_server {
        opts = opts.message(11, &Message::default().bytes(1, address).number(2, i64::from(*port)));
    }
    if let Some(method) = options.network_lock {
        opts = opts.number(64, method);
    }
    opts = super::restore::external_namespaces(plan)?
        .iter()
        .fold(opts, |opts, ns| opts.bytes(37, format!("{}[{}]:{}", ns.name, ns.inode, ns.key())));
    if options.pre_dump {
        return Ok(opts);
    }
    let path = CString::new(format!("/proc/{pid}/root")).unwrap_or_default();
    let root = fs::open(&path, libc::O_PATH, 0).doing(|| format!("opening {}", text(&path)))?;
    for External { target, .. } in mounts::external(plan, root.as_fd())? {
        opts = opts.message(23, &Message::default().bytes(1, &target).bytes(2, &target));
    }
    for External { target, source } in mounts::masked(plan, root.as_fd()) {
        opts = opts.message(23, &Message::default().bytes(1, target).bytes(2, source));
    }
    write_descriptors(pid, options)?;
    Ok(opts)
}

/// Restore gives pipes their place again by this list.
fn write_descriptors(pid: i32, options: &Options) -> Result<()> {
    let link = |n: i32| CString::new(format!("/proc/{pid}/fd/{n}")).unwrap_or_default();
    let target = |n| fs::readlinkat(fs::cwd(), &link(n)).unwrap_or_default();
    let list: Vec<String> = (0..3).map(|n| String::from_utf8_lossy(&target(n)).into_owned()).collect();
    let path = options.image.join(DESCRIPTORS);
    let doing = || format!("writing {path:?}");
    let name = CString::new(path.as_os_str().as_encoded_bytes()).unwrap_or_default();
    let flags = libc::O_CREAT | libc::O_TRUNC | libc::O_WRONLY | libc::O_NOFOLLOW;
    let fd = fs::open(&name, flags, 0o600).doing(doing)?;
    let text = serde_json::to_vec(&list).unwrap_or_default();
    fs::write_all(fd.as_fd(), &text).doing(doing)
}
