//! A record for the journal (systemd's "Native Journal Protocol") or for syslog (RFC 3164): one datagram.

use std::io::Result;
use std::os::unix::net::UnixDatagram;

/// Facility `user`: RFC 3164, section 4.1.1.
const USER: u8 = 1 << 3;

/// To the journal, under this identifier.
pub(super) fn journal(name: &str, severity: u8, message: &str) -> Result<()> {
    let head = format!("PRIORITY={severity}\nSYSLOG_IDENTIFIER={name}\nMESSAGE\n");
    // A value with its length before it may hold newlines.
    let length = (message.len() as u64).to_le_bytes();
    send("/run/systemd/journal/socket", &[head.as_bytes(), &length, message.as_bytes(), b"\n"].concat())
}

/// To syslog, with this tag.
pub(super) fn syslog(name: &str, severity: u8, message: &str) -> Result<()> {
    let record = format!("<{}>{name}[{}]: {message}", USER | severity, std::process::id());
    send("/dev/log", record.as_bytes())
}

fn send(socket: &str, record: &[u8]) -> Result<()> {
    UnixDatagram::unbound()?.send_to(record, socket).map(drop)
}
