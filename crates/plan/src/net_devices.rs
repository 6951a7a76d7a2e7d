//! Network devices that move into the container: config-linux.md, Network Devices. Which of them exist is not known here.

use crate::inputs::Host;
use crate::namespaces::asked;
use crate::problem::Findings;
use crate::steps::NetDevice;
use oci_spec::runtime::{LinuxNamespaceType as Kind, Spec};
use std::collections::BTreeMap;

const SECTION: &str = "config-linux.md, Network Devices";
const CAP_NET_ADMIN: u64 = 1 << 12;

/// Decides the moves, in the order of the names.
pub(crate) fn plan(spec: &Spec, host: &Host, found: &mut Findings) -> Vec<NetDevice> {
    let listed = spec.linux().as_ref().and_then(|l| l.net_devices().as_ref());
    let listed: BTreeMap<_, _> = listed.into_iter().flatten().collect();
    if listed.is_empty() {
        return Vec::new();
    }
    if asked(spec, Kind::Network).is_none() {
        found.problem(
            "linux.netDevices",
            "the container uses the host's network namespace: there is nowhere to move a device to",
            SECTION,
            "add a namespace of type network",
        );
    }
    if host.capabilities & CAP_NET_ADMIN == 0 {
        found.problem(
            "linux.netDevices",
            "moving a network device needs CAP_NET_ADMIN, which the caller lacks",
            SECTION,
            "run as root, or remove it",
        );
    }
    let mut out: Vec<NetDevice> = Vec::new();
    for (name, device) in listed {
        let origin = format!("linux.netDevices.{name}");
        let new_name = device.name().as_deref().filter(|n| !n.is_empty()).unwrap_or(name);
        check(name, false, &origin, found);
        if new_name != name {
            check(new_name, true, &format!("{origin}.name"), found);
        }
        let device = NetDevice {
            name: found.cstring(&origin, name.as_str()),
            new_name: found.cstring(&origin, new_name),
            origin,
        };
        let same = |d: &&NetDevice| d.new_name == device.new_name && !new_name.contains("%d");
        if let Some(other) = out.iter().find(same) {
            found.problem(
                format!("{}.name", device.origin),
                format!("{new_name:?} is the name of {} in the container too", other.name.to_string_lossy()),
                SECTION,
                "give each its own, or end the name with %d",
            );
        }
        out.push(device);
    }
    out
}

/// What the kernel takes as a name (dev_valid_name in net/core/dev.c), and the one pattern that it fills in.
fn check(name: &str, pattern: bool, at: &str, found: &mut Findings) {
    let plain = if pattern { name.replacen("%d", "", 1) } else { name.to_owned() };
    let bad = name.is_empty()
        || name.len() > 15
        || matches!(name, "." | "..")
        || name.contains(|c: char| c == '/' || c == ':' || c.is_ascii_whitespace())
        || plain.contains('%');
    if bad {
        found.problem(
            at,
            format!("{name:?} is not a name that a network device can have"),
            "netdevice(7)",
            "use 1 to 15 characters without /, :, % and blanks; a new name may have one %d",
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn decide(devices: &str, namespaces: &str, capabilities: u64) -> (Vec<NetDevice>, String) {
        let text = format!(
            r#"{{"ociVersion":"1.3.0","linux":{{"namespaces":{namespaces},"netDevices":{devices}}}}}"#
        );
        let (spec, _) = crate::config::parse(text.as_bytes()).expect("read");
        let mut found = Findings::default();
        let out = plan(&spec, &Host { capabilities, ..Host::default() }, &mut found);
        (out, found.problems.iter().map(|p| format!("{p}\n")).collect())
    }

    const NETWORK: &str = r#"[{"type":"network"}]"#;

    #[test]
    fn a_device_keeps_its_name_or_gets_the_new_one() {
        let (moves, problems) =
            decide(r#"{"eth1":{"name":"eth0"},"eth0":{},"a":{"name":"e%d"}}"#, NETWORK, u64::MAX);
        assert!(problems.contains("linux.netDevices.eth1.name: \"eth0\" is the name of eth0"), "{problems}");
        let names: Vec<_> = moves.iter().map(|m| (m.name.as_c_str(), m.new_name.as_c_str())).collect();
        assert_eq!(names, [(c"a", c"e%d"), (c"eth0", c"eth0"), (c"eth1", c"eth0")]);
    }

    #[test]
    fn names_that_no_device_can_have_are_refused() {
        for name in ["..", "a/b", "sixteen-letters-", "a b", "%d%d", "%s", "a:b"] {
            let (_, problems) = decide(&format!(r#"{{"eth0":{{"name":"{name}"}}}}"#), NETWORK, u64::MAX);
            assert!(problems.starts_with("linux.netDevices.eth0.name: "), "{name}: {problems}");
        }
        assert!(decide(r#"{"e%d":{}}"#, NETWORK, u64::MAX).1.starts_with("linux.netDevices.e%d: "));
    }

    #[test]
    fn a_namespace_and_the_right_are_needed() {
        assert!(decide(r#"{"a":{}}"#, "[]", u64::MAX).1.contains("nowhere to move"));
        assert!(decide(r#"{"a":{}}"#, NETWORK, 0).1.contains("CAP_NET_ADMIN"));
        assert_eq!(decide("{}", "[]", 0), (Vec::new(), String::new()));
    }
}
