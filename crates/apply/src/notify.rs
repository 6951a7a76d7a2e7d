//! What a service says by sd_notify(3), from within a container: systemd believes the processes of the service only, and those
//! of a container are not among them. So the container has a socket of its own, and whoever starts it says on its behalf that
//! it is ready.

use crate::failure::{Doing, Failure, Result};
use crate::sources;
use coracle_plan::steps::{Act, MountKind, NOTIFY, Plan};
use coracle_state::Entry;
use coracle_sys::{fs, libc, poll, socket};
use std::ffi::{CStr, OsStr};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::path::{Path, PathBuf};

/// The socket's path as the container sees it.
pub const SEEN_AS: &str = "/run/notify/notify.sock";
/// The directory below the container's own, which it sees as /run/notify.
const DIRECTORY: &CStr = c"notify";
/// The socket in it.
const SOCKET: &CStr = c"notify.sock";
/// How long a service manager may take to have read all: as runc and crun.
const BARRIER: i32 = 30_000;

/// Where that directory is, of the container whose own is this.
pub fn place(container: &Path) -> PathBuf {
    container.join(OsStr::from_bytes(DIRECTORY.to_bytes()))
}

/// Makes the directory, where the plan mounts it. Returns the mount's source by its step, where init does not reach it: it
/// lies where only the runtime's user may look.
pub(crate) fn make(plan: &Plan, entry: &Entry) -> Result<Option<(usize, OwnedFd)>> {
    let Some(step) = plan.setup.iter().position(|s| s.origin == NOTIFY) else { return Ok(None) };
    fs::mkdirat(entry.dir(), DIRECTORY, 0o755)
        .and_then(|()| fs::fchmodat(entry.dir(), DIRECTORY, 0o755))
        .doing(|| "making the directory of the notification socket".into())?;
    match &plan.setup[step].act {
        Act::Mount(mount) => match &mount.what {
            MountKind::Bind(bind) if plan.namespaces.maps.is_some() => {
                sources::tree(bind).map(|tree| Some((step, tree)))
            }
            _ => Ok(None),
        },
        _ => Ok(None),
    }
}

/// Listens for a container's messages: `None` for one that was created without such a socket.
pub fn listen(entry: &Entry) -> Result<Option<OwnedFd>> {
    let doing = || "listening on the container's notification socket".to_owned();
    let Ok(place) =
        fs::openat(entry.dir(), DIRECTORY, libc::O_DIRECTORY | libc::O_RDONLY | libc::O_NOFOLLOW, 0)
    else {
        return Ok(None);
    };
    let _ = fs::unlinkat(place.as_fd(), SOCKET, 0);
    let socket = socket::bind_datagram(place.as_fd(), &SOCKET.to_string_lossy()).doing(doing)?;
    // For whatever user the container's process is.
    fs::fchmodat(place.as_fd(), SOCKET, 0o777).doing(doing)?;
    Ok(Some(socket))
}

/// Waits until the container says that it is ready, or is over, and tells the service manager at `service` (a path, or `@` and
/// an abstract name). Errors: the manager's socket.
pub fn relay(listening: &OwnedFd, service: &OsStr, init: BorrowedFd, pid: i32) -> Result<()> {
    let doing = || "waiting for the container to be ready".to_owned();
    let mut buffer = [0u8; 4096];
    loop {
        let ready =
            poll::poll(&[(listening.as_fd(), libc::POLLIN), (init, libc::POLLIN)], -1).doing(doing)?;
        if ready[0] == 0 {
            return Ok(());
        }
        let length = socket::recv(listening.as_fd(), &mut buffer).doing(doing)?;
        let mut lines = buffer[..length].split(|byte| *byte == b'\n');
        if lines.any(|line| line == b"READY=1") {
            return tell(service, pid);
        }
    }
}

fn tell(service: &OsStr, pid: i32) -> Result<()> {
    let failed = |e: std::io::Error| {
        Failure::says(format!("telling {} that the container is ready: {e}", service.to_string_lossy()))
    };
    let socket = UnixDatagram::unbound().map_err(failed)?;
    match service.as_bytes().strip_prefix(b"@") {
        Some(name) => SocketAddr::from_abstract_name(name).and_then(|to| socket.connect_addr(&to)),
        None => socket.connect(service),
    }
    .map_err(failed)?;
    // In one message: a manager that has seen the first knows the second.
    socket.send(format!("MAINPID={pid}\nREADY=1").as_bytes()).map_err(failed)?;
    // Without a barrier the manager might look who sent it after this process has ended: sd_notify_barrier(3).
    let doing = || format!("waiting for {} to read the message", service.to_string_lossy());
    let (read, write) = poll::pipe().doing(doing)?;
    socket::send_fds(socket.as_fd(), b"BARRIER=1", &[write.as_fd()]).doing(doing)?;
    drop(write);
    poll::poll(&[(read.as_fd(), 0)], BARRIER).map(drop).doing(doing)
}
