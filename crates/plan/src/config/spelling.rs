//! Names that are nearly those of the specification. Unknown ones are ignored (config.md, Extensibility); but to programs in Go a
//! name is the same in any case, and what is written for runc may have `readOnly` or `pagesize`: to pass those over would be to
//! leave out what was asked for. Others that look like a known one are told.

use crate::near::slips;
use crate::problem::{Problem, Refusal};
use serde_json::{Map, Value};

/// Every member: a path a line, as docs/fields.md is checked against.
const SCHEMA: &str = include_str!("schema.txt");

/// The last names of these, in order: what a file has beside them is looked at once more.
#[rustfmt::skip]
const NAMES: [&str; 156] = [
    "access", "action", "additionalGids", "allow", "ambient", "annotations", "apparmorProfile",
    "architectures", "args", "blockIO", "boottime", "bounding", "burst", "capabilities", "cgroupsPath",
    "checkBeforeUpdate", "class", "classID", "closID", "commandLine", "consoleSize", "containerID", "cpu",
    "cpus", "createContainer", "createRuntime", "cwd", "deadline", "defaultAction", "defaultErrnoRet",
    "destination", "devices", "disableOOMKiller", "domain", "domainname", "effective", "enableMonitoring",
    "env", "errnoRet", "execCPUAffinity", "fileMode", "final", "flags", "freebsd", "gid", "gidMappings",
    "hard", "hcaHandles", "hcaObjects", "height", "hooks", "hostID", "hostname", "hugepageLimits", "idle",
    "index", "inheritable", "initial", "intelRdt", "ioPriority", "kernel", "kernelTCP", "l3CacheSchema",
    "leafWeight", "limit", "linux", "listenerMetadata", "listenerPath", "major", "maskedPaths",
    "memBwSchema", "memory", "memoryPolicy", "mems", "minor", "mode", "monotonic", "mountLabel", "mounts",
    "name", "names", "namespaces", "nanosecs", "netDevices", "network", "nice", "noNewPrivileges", "nodes",
    "ociVersion", "oomScoreAdj", "op", "options", "pageSize", "path", "period", "permitted", "personality",
    "pids", "policy", "poststart", "poststop", "prestart", "priorities", "priority", "process", "quota",
    "rate", "rdma", "readonly", "readonlyPaths", "realtimePeriod", "realtimeRuntime", "reservation",
    "resources", "rlimits", "root", "rootfsPropagation", "runtime", "scheduler", "schemata", "seccomp",
    "secs", "selinuxLabel", "shares", "size", "soft", "solaris", "source", "startContainer", "swap",
    "swappiness", "syscalls", "sysctl", "terminal", "throttleReadBpsDevice", "throttleReadIOPSDevice",
    "throttleWriteBpsDevice", "throttleWriteIOPSDevice", "timeOffsets", "timeout", "type", "uid",
    "uidMappings", "umask", "unified", "useHierarchy", "user", "username", "value", "valueTwo", "vm",
    "weight", "weightDevice", "width", "windows", "zos",
];

/// Objects whose members have names of their own, and names are not looked at.
const FREE: [&[u8]; 8] =
    [b"annotations", b"sysctl", b"unified", b"windows", b"solaris", b"vm", b"zos", b"freebsd"];

/// Whether some name may be one that [`amend`] has something to say of. Looked at where bytes stand, for it is asked of every
/// configuration; broken JSON gives any answer.
pub(super) fn doubtful(bytes: &[u8]) -> bool {
    let mut at = 0;
    // From colon to colon: most strings of a profile are no names.
    while let Some(colon) = memchr::memchr(b':', &bytes[at..]) {
        let before = bytes[..at + colon].trim_ascii_end();
        at += colon + 1;
        // One within a string stands behind an escaped quotation mark at most.
        let Some(text) = before.strip_suffix(b"\"").filter(|text| !text.ends_with(b"\\")) else { continue };
        let name = &text[memchr::memrchr(b'"', text).map_or(0, |quote| quote + 1)..];
        if FREE.contains(&name) {
            at = value_end(bytes, at);
        } else if NAMES.binary_search_by(|known| known.as_bytes().cmp(name)).is_err() {
            return true;
        }
    }
    false
}

/// Where the member ends whose value begins here.
fn value_end(bytes: &[u8], mut at: usize) -> usize {
    let mut depth = 0_usize;
    while let Some(byte) = bytes.get(at) {
        match byte {
            b'{' | b'[' => depth += 1,
            b',' if depth == 0 => break,
            b'}' | b']' if depth < 2 => break,
            b'}' | b']' => depth -= 1,
            b'"' => at = string_end(bytes, at + 1).unwrap_or(bytes.len()),
            _ => {}
        }
        at += 1;
    }
    at.min(bytes.len())
}

/// Where the quotation mark is that ends the string which begins here.
fn string_end(bytes: &[u8], mut at: usize) -> Option<usize> {
    loop {
        at += memchr::memchr2(b'"', b'\\', bytes.get(at..)?)?;
        if bytes[at] == b'"' {
            return Some(at);
        }
        at += 2;
    }
}

/// What was done about names.
#[derive(Default)]
pub(super) struct Amended {
    /// Some were written as the specification has them.
    pub changed: bool,
    /// What must be said of it.
    pub warnings: Vec<String>,
    /// Of two names that are one.
    problems: Vec<Problem>,
}

/// Writes names that differ by case alone as the specification has them, in what stands at this place of config.json; empty:
/// all of it. Errors: one stands beside another that is the same, and says something else.
pub(super) fn amend(value: &mut Value, place: &str) -> Result<Amended, Refusal> {
    let mut done = Amended::default();
    object(value, place, place, &mut done);
    if done.problems.is_empty() { Ok(done) } else { Err(Refusal(done.problems)) }
}

/// The members of the object at a path of the schema; none: it has any.
fn members(pattern: &str) -> Vec<&'static str> {
    let below = |line: &'static str| match pattern {
        "" => Some(line),
        _ => line.strip_prefix(pattern)?.strip_prefix('.'),
    };
    let all = SCHEMA.lines().filter(|line| !line.starts_with('#')).filter_map(below);
    all.filter(|name| !name.contains(['.', '['])).collect()
}

/// `at`: its place in config.json, `pattern`: in the schema.
fn object(value: &mut Value, at: &str, pattern: &str, done: &mut Amended) {
    let Value::Object(map) = value else { return };
    let inner = |path: &str, name: &str| match path {
        "" => name.to_owned(),
        _ => format!("{path}.{name}"),
    };
    let known = members(pattern);
    if !known.is_empty() {
        for name in map.keys().cloned().collect::<Vec<_>>() {
            if !known.contains(&name.as_str()) {
                unknown(map, &name, &inner(at, &name), &known, done);
            }
        }
    }
    for (name, value) in map {
        // Of an object whose members have any name, each has the same ones.
        let pattern = inner(pattern, if known.is_empty() { "*" } else { name });
        let at = inner(at, name);
        if let Value::Array(list) = value {
            for (i, one) in list.iter_mut().enumerate() {
                object(one, &format!("{at}[{i}]"), &format!("{pattern}[]"), done);
            }
        } else {
            object(value, &at, &pattern, done);
        }
    }
}

fn unknown(map: &mut Map<String, Value>, name: &str, at: &str, known: &[&str], done: &mut Amended) {
    if let Some(right) = known.iter().find(|k| k.eq_ignore_ascii_case(name)) {
        let value = map.remove(name).unwrap_or_default();
        if !merge(map, right, value) {
            done.problems.push(Problem {
                at: at.to_owned(),
                what: format!(
                    "says something else than {right:?} beside it, and the two are one name to some"
                ),
                section: "config.md, Extensibility",
                hint: "keep one of the two".into(),
            });
        }
        done.changed = true;
        done.warnings.push(format!("{at}: is taken for {right:?}, as the specification has it"));
    } else if let Some(near) = known.iter().find(|k| near(k, name)) {
        done.warnings.push(format!(
            "{at}: the specification has no such property (config.md, Extensibility); left out: is {near:?} meant?"
        ));
    }
}

/// Puts a value under a name, together with what is there: members that only one of the two has, and null is nothing. Returns
/// whether all of both is there; whichever was kept of two that differ, what the other asked for would be lost.
fn merge(map: &mut Map<String, Value>, name: &str, value: Value) -> bool {
    match (map.get_mut(name), value) {
        (None | Some(Value::Null), value) => {
            map.insert(name.to_owned(), value);
            true
        }
        (Some(_), Value::Null) => true,
        (Some(Value::Object(there)), Value::Object(new)) => {
            new.into_iter().fold(true, |all, (name, value)| merge(there, &name, value) && all)
        }
        (Some(there), value) => *there == value,
    }
}

/// Two slips of the pen, of a long word; of a short one, one.
fn near(known: &str, written: &str) -> bool {
    slips(known, written) <= if known.len() < 6 { 1 } else { 2 }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn amended(mut value: Value) -> (Value, Vec<String>) {
        let done = amend(&mut value, "").expect("nothing twice");
        (value, done.warnings)
    }

    #[test]
    fn what_go_would_know_is_known() {
        let (value, warnings) = amended(json!({
            "Root": {"readOnly": true},
            "hooks": {"preStart": [{"Path": "/x"}]},
            "linux": {"resources": {"CPU": {"shares": 2}, "cpu": {"quota": 3}, "rdma": {"mlx": {"hcahandles": 1}},
                "hugepagelimits": [1], "hugepageLimits": null}}
        }));
        let wanted = json!({
            "root": {"readonly": true},
            "hooks": {"prestart": [{"path": "/x"}]},
            "linux": {"resources": {"cpu": {"shares": 2, "quota": 3}, "rdma": {"mlx": {"hcaHandles": 1}},
                "hugepageLimits": [1]}}
        });
        assert_eq!((value, warnings.len()), (wanted, 7));
    }

    #[test]
    fn of_two_names_that_are_one_none_is_lost() {
        for (both, at) in [
            (json!({"root": {"readonly": false, "readOnly": true}}), "root.readOnly"),
            (json!({"process": {"terminal": false}, "Process": {"terminal": true}}), "Process"),
            (json!({"process": {"terminal": false}, "Process": {"Terminal": true}}), "process.Terminal"),
            (json!({"linux": {"maskedPaths": [], "MaskedPaths": ["/a"]}}), "linux.MaskedPaths"),
            (json!({"linux": {"sysctl": {"a": "0"}, "Sysctl": {"a": "1"}}}), "linux.Sysctl"),
        ] {
            let Err(Refusal(problems)) = amend(&mut both.clone(), "") else { panic!("taken: {both}") };
            assert_eq!(problems.iter().map(|p| p.at.as_str()).collect::<Vec<_>>(), [at], "{both}");
        }
        let same =
            json!({"root": {"path": "a", "Path": "a", "readonly": null, "readOnly": true}, "Root": null});
        assert_eq!(amended(same).0, json!({"root": {"path": "a", "readonly": true}}));
    }

    #[test]
    fn names_are_those_of_the_schema() {
        let last = |line: &'static str| line.rsplit('.').next().unwrap_or(line);
        let named = |name: &&str| !name.ends_with(['*', ']']);
        let all = SCHEMA.lines().filter(|line| !line.starts_with('#')).map(last).filter(named);
        let all: std::collections::BTreeSet<&str> = all.collect();
        assert!(all.into_iter().eq(NAMES));
    }

    #[test]
    fn a_name_is_seen_wherever_it_stands() {
        let whole = r#"{"process": {"env": ["\"a\": {", "\\"], "args" : []}, "annotations": {"x": {"y": 1}, "z": ""}, "mounts": [{"source": ""}]}"#;
        assert!(!doubtful(whole.as_bytes()));
        for name in ["process", "args", "mounts", "source"] {
            assert!(doubtful(whole.replace(name, "nam\u{e9}").as_bytes()), "{name}");
        }
    }

    #[test]
    fn what_only_looks_alike_is_told() {
        let value = json!({"process": {"capabilites": {}, "color": 1}, "annotations": {"Root": ""}, "vm": {"Kernel": 1}});
        let (same, warnings) = amended(value.clone());
        assert_eq!(same, value);
        assert_eq!(warnings.len(), 1);
        assert!(warnings[0].contains("is \"capabilities\" meant?"), "{warnings:?}");
    }
}
