//! The network of a container that runs from an image: its hosts and resolv.conf, and pasta(1) where it is asked for.
//!
//! pasta is a program of its own (Debian package passt): it needs no privilege, and carries the container's connections
//! over the host's sockets.

use clap::Args;
use coracle_sys::libc::{CLONE_NEWNET, CLONE_NEWUSER};
use coracle_sys::{Errno, creds, namespace, process, socket};
use serde_json::{Value, json};
use std::net::IpAddr;
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

/// Names, and who resolves them.
#[derive(Args)]
pub(crate) struct NameArgs {
    /// NAME:ADDRESS: a line for /etc/hosts
    #[arg(long, value_name = "NAME:ADDRESS", value_parser = host)]
    add_host: Vec<(String, IpAddr)>,
    /// A server that resolves names, instead of the host's
    #[arg(long, value_name = "ADDRESS")]
    dns: Vec<IpAddr>,
    /// Domain that names are looked for in, instead of the host's
    #[arg(long, value_name = "DOMAIN", value_parser = super::wishes::hostname)]
    dns_search: Vec<String>,
    /// Option of resolv.conf(5), instead of the host's
    #[arg(long, alias = "dns-opt", value_name = "OPTION", value_parser = word)]
    dns_option: Vec<String>,
}

/// `NAME:ADDRESS`, or with `=`.
fn host(text: &str) -> Result<(String, IpAddr), String> {
    let (name, address) = text.split_once([':', '=']).ok_or("write NAME:ADDRESS")?;
    if address == "host-gateway" {
        return Err("the host itself is not reached from a container here; write an address".into());
    }
    let address = address.trim_start_matches('[').trim_end_matches(']');
    let address = address.parse().map_err(|_| format!("{address:?} is no address"))?;
    Ok((super::wishes::hostname(name)?, address))
}

fn word(text: &str) -> Result<String, String> {
    match !text.is_empty() && text.bytes().all(|b| b.is_ascii_graphic()) {
        true => Ok(text.to_owned()),
        false => Err("write one word".into()),
    }
}

impl NameArgs {
    /// The container's own /etc/hosts and, where it has a way out, /etc/resolv.conf: written beside the bundle and bound
    /// in, for the image's may be links to anywhere. With the host's network they are the host's, with what is asked for.
    /// Errors: servers for a network that reaches none.
    pub(super) fn files(&self, bundle: &Path, name: &str, net: &str) -> Result<Vec<Value>, String> {
        let resolves = !(self.dns.is_empty() && self.dns_search.is_empty() && self.dns_option.is_empty());
        let mut all = Vec::new();
        if net != "host" || !self.add_host.is_empty() {
            let mut hosts = match net {
                "host" => std::fs::read_to_string("/etc/hosts").unwrap_or_default(),
                _ => format!(
                    "127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost ip6-loopback\n127.0.1.1\t{name}\n"
                ),
            };
            hosts.extend(self.add_host.iter().map(|(name, address)| format!("{address}\t{name}\n")));
            all.push(("hosts", "/etc/hosts", hosts));
        }
        match net {
            "none" if resolves => {
                return Err("--dns: with --net none no server is reached; add --net pasta or host".into());
            }
            "pasta" => all.push(("resolv.conf", "/etc/resolv.conf", self.resolver(&[DNS.to_owned()]))),
            "host" if resolves => all.push(("resolv.conf", "/etc/resolv.conf", self.resolver(&[]))),
            _ => {}
        }
        let write = |(name, to, text): (&str, &str, String)| {
            let path = bundle.join(name);
            std::fs::write(&path, text)
                .map_err(|e| format!("writing {}: {}", path.display(), crate::log::reason(&e)))?;
            Ok(
                json!({"destination": to, "type": "bind", "source": path, "options": ["bind", "nosuid", "nodev", "noexec"]}),
            )
        };
        all.into_iter().map(write).collect()
    }

    /// resolv.conf(5): the servers asked for, else the usual ones (the host's, where there are none); the rest likewise.
    fn resolver(&self, usual: &[String]) -> String {
        let own = std::fs::read_to_string("/etc/resolv.conf").unwrap_or_default();
        let of_host = |word: &str| -> String {
            own.lines()
                .filter(|l| l.split_whitespace().next() == Some(word))
                .map(|l| format!("{l}\n"))
                .collect()
        };
        let asked: Vec<String> = self.dns.iter().map(ToString::to_string).collect();
        let servers = if asked.is_empty() { usual } else { &asked };
        let servers = match servers.is_empty() {
            true => of_host("nameserver"),
            false => servers.iter().map(|s| format!("nameserver {s}\n")).collect(),
        };
        let line = |word: &str, asked: &[String]| match asked.is_empty() {
            true => of_host(word),
            false => format!("{word} {}\n", asked.join(" ")),
        };
        servers + &line("search", &self.dns_search) + &line("options", &self.dns_option)
    }
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
    let output = command
        .stdin(Stdio::null())
        .output()
        .map_err(|e| format!("running pasta: {}", crate::log::reason(&e)))?;
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_of_hosts() {
        let of = |text: &str| host(text).map(|(name, address)| format!("{name} {address}"));
        assert_eq!(of("db:10.0.0.1").as_deref(), Ok("db 10.0.0.1"));
        assert_eq!(of("db:::1").as_deref(), Ok("db ::1"));
        assert_eq!(of("db=[::1]").as_deref(), Ok("db ::1"));
        for bad in
            ["db", "db:x", ":1.2.3.4", "a b:1.2.3.4", "a\nb:1.2.3.4", "db:host-gateway", "db:1.2.3.4 evil"]
        {
            assert!(of(bad).is_err(), "{bad:?}");
        }
    }
}
