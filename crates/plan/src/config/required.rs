//! What the specification demands and oci-spec's types fill in with nothing: an absent limit would be one of 0.

use super::mistakes::section;
use crate::problem::Problem;
use memchr::memmem;
use oci_spec::runtime::{LinuxIdMapping, Spec};
use serde_json::Value;

/// Objects by their place (`[]`: each element of a list), and the members that each must have.
const REQUIRED: [(&str, &[&str]); 14] = [
    ("process.rlimits[]", &["soft", "hard"]),
    ("process.ioPriority", &["class", "priority"]),
    ("mounts[].uidMappings[]", &["containerID", "hostID", "size"]),
    ("mounts[].gidMappings[]", &["containerID", "hostID", "size"]),
    ("linux.uidMappings[]", &["containerID", "hostID", "size"]),
    ("linux.gidMappings[]", &["containerID", "hostID", "size"]),
    ("linux.resources.devices[]", &["allow"]),
    ("linux.resources.blockIO.weightDevice[]", &["major", "minor"]),
    ("linux.resources.blockIO.throttleReadBpsDevice[]", &["major", "minor", "rate"]),
    ("linux.resources.blockIO.throttleWriteBpsDevice[]", &["major", "minor", "rate"]),
    ("linux.resources.blockIO.throttleReadIOPSDevice[]", &["major", "minor", "rate"]),
    ("linux.resources.blockIO.throttleWriteIOPSDevice[]", &["major", "minor", "rate"]),
    ("linux.resources.hugepageLimits[]", &["pageSize", "limit"]),
    ("linux.resources.network.priorities[]", &["name", "priority"]),
];

/// Whether something that was read may have been filled in. Most configurations need no second look.
pub(super) fn doubtful(spec: &Spec, bytes: &[u8]) -> bool {
    let process = spec.process().as_ref();
    let limits = process.and_then(|p| p.rlimits().as_ref()).into_iter().flatten();
    let zero = |m: &LinuxIdMapping| [m.container_id(), m.host_id(), m.size()].contains(&0);
    let zeros = |list: &Option<Vec<LinuxIdMapping>>| list.iter().flatten().any(zero);
    let linux = spec.linux().as_ref();
    let resources = linux.and_then(|l| l.resources().as_ref());
    let allows = memmem::find_iter(bytes, b"\"allow\"").count();
    limits.into_iter().any(|l| l.soft() == 0 || l.hard() == 0)
        || process.is_some_and(|p| p.io_priority().is_some())
        || spec.mounts().iter().flatten().any(|m| zeros(m.uid_mappings()) || zeros(m.gid_mappings()))
        || linux.is_some_and(|l| zeros(l.uid_mappings()) || zeros(l.gid_mappings()))
        || resources.is_some_and(|r| {
            r.block_io().is_some()
                || r.hugepage_limits().is_some()
                || r.network().is_some()
                || r.devices().as_ref().is_some_and(|rules| rules.len() > allows)
        })
}

/// The members that are missing. Names are compared as programs in Go do, whatever their case.
pub(super) fn missing(whole: &Value) -> Vec<Problem> {
    let mut problems = Vec::new();
    for (place, members) in REQUIRED {
        for (at, object) in objects(whole, place) {
            let has = |name: &str| object.keys().any(|key| key.eq_ignore_ascii_case(name));
            // ioprio_set(2): the idle class has no priorities, and who asks for it names none.
            let idle = object.get("class").is_some_and(|class| class == "IOPRIO_CLASS_IDLE");
            let wanted = |name: &&&str| !(has(name) || (idle && **name == "priority"));
            problems.extend(members.iter().filter(wanted).map(|name| Problem {
                at: format!("{at}.{name}"),
                what: "is missing".into(),
                section: section(&at),
                hint: "add it".into(),
            }));
        }
    }
    problems
}

/// The objects at such a place, each with its own.
fn objects<'a>(whole: &'a Value, place: &str) -> Vec<(String, &'a serde_json::Map<String, Value>)> {
    let mut found = vec![(String::new(), whole)];
    for segment in place.split('.') {
        let (name, list) = segment.strip_suffix("[]").map_or((segment, false), |name| (name, true));
        let mut next = Vec::new();
        for (at, value) in found {
            let at = super::mistakes::join(&at, name);
            match value.get(name) {
                Some(Value::Array(items)) if list => {
                    next.extend(items.iter().enumerate().map(|(i, item)| (format!("{at}[{i}]"), item)));
                }
                Some(value) if !list => next.push((at, value)),
                _ => {}
            }
        }
        found = next;
    }
    found.into_iter().filter_map(|(at, value)| Some((at, value.as_object()?))).collect()
}
