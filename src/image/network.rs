//! The network of a container that runs from an image: its hosts and resolv.conf, and pasta(1) where it is asked for.
//!
//! pasta is a program of its own (Debian package passt): it needs no privilege, and carries the container's connections
//! over the host's sockets.

use coracle_sys::libc::{CLONE_NEWNET, CLONE_NEWUSER};
use coracle_sys::{Errno, creds, namespace, process, socket};
use serde_json::{Value, json};
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// The address that pasta answers DNS at, for the container: link-local, so nobody else's.
const DNS: &str = "169.254.1.1";
/// How long it may take to die, in milliseconds.
const DEATH: i32 = 2_000;
const PID_FILE: &str = "pasta.pid";

/// Where pasta is. Never looked for in the container or by PATH. Errors: it is not installed.
pub(super) fn find() -> Result<PathBuf, String> {
    let places = ["/usr/bin/pasta", "/bin/pasta", "/usr/local/bin/pasta"];
    let found = places.iter().map(PathBuf::from).find(|p| p.exists());
    found.ok_or_else(|| {
        "--net pasta: pasta is not installed (Debian: package passt); --net host or none need nothing".into()
    })
}

/// The container's own /etc/hosts and, where it has a way out, /etc/resolv.conf: written beside the bundle and bound in,
/// for the image's may be links to anywhere.
pub(super) fn files(bundle: &Path, host: &str, outside: bool) -> Result<Vec<Value>, String> {
    let hosts =
        format!("127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost ip6-loopback\n127.0.1.1\t{host}\n");
    let mut all = vec![("hosts", "/etc/hosts", hosts)];
    if outside {
        let own = std::fs::read_to_string("/etc/resolv.conf").unwrap_or_default();
        let kept: String = own
            .lines()
            .filter(|l| l.starts_with("search") || l.starts_with("options"))
            .map(|l| format!("{l}\n"))
            .collect();
        all.push(("resolv.conf", "/etc/resolv.conf", format!("nameserver {DNS}\n{kept}")));
    }
    all.into_iter()
        .map(|(name, to, text)| {
            let path = bundle.join(name);
            std::fs::write(&path, text).map_err(|e| format!("writing {}: {e}", path.display()))?;
            Ok(json!({"destination": to, "type": "bind", "source": path, "options": ["bind", "nosuid", "nodev", "noexec"]}))
        })
        .collect()
}

/// Connects a network namespace, given its user namespace too, and these ports of the host (pasta's options and their
/// values) with its own; returns when it is connected.
pub(super) fn start(namespaces: &[OwnedFd; 2], bundle: &Path, ports: &[[String; 2]]) -> Result<(), String> {
    let guide =
        Guide::new(namespaces).map_err(|e| format!("showing the container's namespaces to pasta: {e}"))?;
    let mut command = Command::new(find()?);
    command.args(["--config-net", "--quiet", "--dns-forward", DNS]);
    // No port of the host is opened but those, and none of the host's own is reached from within.
    command.args(["-T", "none", "-U", "none", "--no-map-gw"]).args(ports.iter().flatten());
    for option in ["-t", "-u"].iter().filter(|o| ports.iter().all(|[option, _]| option != *o)) {
        command.args([*option, "none"]);
    }
    command.arg("--pid").arg(bundle.join(PID_FILE));
    // It ends with the container, not with the guide.
    command.arg("--no-netns-quit").arg("--netns").arg(guide.namespace("net"));
    if creds::geteuid() == 0 {
        command.args(["--netns-only", "--runas", "0"]);
    } else {
        command.arg("--userns").arg(guide.namespace("user"));
    }
    let output = command.stdin(Stdio::null()).output().map_err(|e| format!("running pasta: {e}"))?;
    match output.status.success() {
        true => Ok(()),
        false => Err(format!("pasta: {}", String::from_utf8_lossy(&output.stderr).trim().escape_debug())),
    }
}

/// A process within the container's namespaces by which pasta finds them, as long as it is kept: pasta takes paths only,
/// has closed inherited descriptors since 2024, and may not look into an init that cannot be traced.
struct Guide {
    pid: i32,
    line: Option<OwnedFd>,
}

impl Guide {
    fn new([user, net]: &[OwnedFd; 2]) -> coracle_sys::Result<Self> {
        let (ours, its) = socket::seqpacket_pair()?;
        match process::clone3(&process::CloneArgs { flags: 0, cgroup: None, sibling: false })? {
            process::Cloned::Parent(pid, _) => {
                drop(its);
                let guide = Self { pid, line: Some(ours) };
                let line = guide.line.as_ref().map_or(Err(Errno::EBADF), |line| Ok(line.as_fd()))?;
                let mut word = [0; 4];
                match socket::recv(line, &mut word)? {
                    4 if word == [0; 4] => Ok(guide),
                    4 => Err(Errno::from_raw(i32::from_ne_bytes(word))),
                    _ => Err(Errno::ECHILD),
                }
            }
            process::Cloned::Child => {
                drop(ours);
                // Only a user's pasta enters the user namespace; to enter it changes who may look into a process.
                let enter = || {
                    if creds::geteuid() != 0 {
                        namespace::setns(user.as_fd(), CLONE_NEWUSER)?;
                    }
                    namespace::setns(net.as_fd(), CLONE_NEWNET)?;
                    // Nobody may look into a process that has more capabilities than he, and pasta gives up its own.
                    creds::capset(&creds::CapSets::default())?;
                    process::set_dumpable(true)
                };
                let word = enter().err().map_or(0, |errno| errno as i32);
                let _ = socket::send(its.as_fd(), &word.to_ne_bytes());
                let _ = socket::recv(its.as_fd(), &mut [0; 1]);
                process::exit_now(0)
            }
        }
    }

    fn namespace(&self, kind: &str) -> String {
        format!("/proc/{}/ns/{kind}", self.pid)
    }
}

impl Drop for Guide {
    fn drop(&mut self) {
        // The end of the line ends it.
        self.line = None;
        let _ = process::wait(self.pid, 0);
    }
}

/// Ends the pasta of a container, if it has one.
pub(super) fn stop(bundle: &Path) {
    let file = bundle.join(PID_FILE);
    let Some(pid) = std::fs::read_to_string(&file).ok().and_then(|t| t.trim().parse::<i32>().ok()) else {
        return;
    };
    let Ok(pidfd) = coracle_sys::process::pidfd_open(pid) else { return };
    // It is process 1 of a pid namespace of its own, where no other signal ends it.
    // The number may be somebody else's by now: asked after the descriptor was opened.
    let name = std::fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
    if name.starts_with("pasta") || name.starts_with("passt") {
        let _ = coracle_sys::process::pidfd_send_signal(pidfd.as_fd(), coracle_sys::libc::SIGKILL);
        let _ = coracle_sys::poll::poll(&[(pidfd.as_fd(), coracle_sys::libc::POLLIN)], DEATH);
    }
    let _ = std::fs::remove_file(file);
}

/// Standard input becomes /dev/null, as for any program that nobody types to.
pub(super) fn nothing_to_read() {
    if let Ok(null) = std::fs::File::open("/dev/null") {
        let _ = coracle_sys::fs::dup_onto(null.as_fd(), 0);
    }
}
