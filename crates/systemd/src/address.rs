//! Where the buses are: D-Bus Specification, Server Addresses; sd_bus_open_user(3), sd_bus_open_system(3).

use std::path::PathBuf;

/// A Unix socket.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Socket {
    /// In the file system.
    Path(PathBuf),
    /// In the abstract namespace.
    Abstract(Vec<u8>),
}

/// The sockets of an address list; other transports are passed over.
pub(crate) fn parse(address: &str) -> Vec<Socket> {
    let socket = |one: &str| {
        let parts = one.strip_prefix("unix:")?;
        parts.split(',').find_map(|pair| match pair.split_once('=')? {
            ("path", value) => Some(Socket::Path(PathBuf::from(String::from_utf8(unescape(value)?).ok()?))),
            ("abstract", value) => Some(Socket::Abstract(unescape(value)?)),
            _ => None,
        })
    };
    address.split(';').filter_map(socket).collect()
}

/// `%xx` stands for a byte.
fn unescape(text: &str) -> Option<Vec<u8>> {
    let mut parts = text.split('%');
    let mut out = parts.next()?.as_bytes().to_vec();
    for part in parts {
        out.push(u8::from_str_radix(part.get(..2)?, 16).ok()?);
        out.extend(&part.as_bytes()[2..]);
    }
    Some(out)
}

/// The system bus.
pub(crate) fn system() -> Vec<Socket> {
    let named = variable("DBUS_SYSTEM_BUS_ADDRESS").map(|a| parse(&a)).unwrap_or_default();
    if named.is_empty() { vec![Socket::Path("/run/dbus/system_bus_socket".into())] } else { named }
}

/// The bus of a user's session: what the environment names, else where systemd's user session has it.
pub(crate) fn user(uid: u32) -> Vec<Socket> {
    let mut all = variable("DBUS_SESSION_BUS_ADDRESS").map(|a| parse(&a)).unwrap_or_default();
    let directories = [variable("XDG_RUNTIME_DIR"), Some(format!("/run/user/{uid}"))];
    for directory in directories.into_iter().flatten() {
        let socket = Socket::Path(PathBuf::from(directory).join("bus"));
        if !all.contains(&socket) {
            all.push(socket);
        }
    }
    all
}

fn variable(name: &str) -> Option<String> {
    std::env::var(name).ok().filter(|v| !v.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_read_as_the_specification_writes_them() {
        let all = parse("tcp:host=x;unix:guid=1,path=/run/user/1/b%75s;unix:abstract=/tmp/dbus-1,guid=2");
        assert_eq!(all, [Socket::Path("/run/user/1/bus".into()), Socket::Abstract(b"/tmp/dbus-1".to_vec())]);
        assert!(parse("unix:path=/a%2").is_empty() && parse("").is_empty());
    }
}
