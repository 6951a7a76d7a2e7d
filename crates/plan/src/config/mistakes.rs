//! Every value of a wrong type at once. serde stops at the first: what it names is taken out, and the rest read again.

use crate::problem::Problem;
use serde::de::DeserializeOwned;
use serde_json::Value;
use serde_path_to_error::Segment;
use std::collections::HashMap;

/// Nobody corrects more at a time.
const MOST: usize = 100;

/// RLIM_INFINITY: getrlimit(2). JSON has no word for it.
const NO_LIMIT: &str = "; 18446744073709551615 is no limit";

/// All problems of a value that does not fit the type.
pub(super) fn all<T: DeserializeOwned>(mut value: Value) -> Vec<Problem> {
    let mut problems = Vec::new();
    let mut taken = Taken::default();
    while problems.len() < MOST {
        let Err(error) = serde_path_to_error::deserialize::<_, T>(&value) else { break };
        let path: Vec<Segment> = error.path().iter().cloned().collect();
        let at = taken.original(&path);
        let message = error.inner().to_string();
        if !missing(&message).is_some_and(|field| taken.had(&join(&at, field))) {
            problems.push(problem(&at, &message, there(&value, &path)));
        }
        if !taken.out_of(&mut value, &path, at) {
            break;
        }
    }
    problems
}

fn missing(message: &str) -> Option<&str> {
    message.strip_prefix("missing field `")?.strip_suffix('`')
}

/// What stands at a path of the value.
fn there<'a>(value: &'a Value, path: &[Segment]) -> Option<&'a Value> {
    path.iter().try_fold(value, |v, segment| match segment {
        Segment::Seq { index } => v.get(*index),
        Segment::Map { key } => v.get(key),
        Segment::Enum { .. } | Segment::Unknown => Some(v),
    })
}

/// serde's message in the words of JSON and of the specification: who wrote the file need not know Rust.
fn problem(at: &str, message: &str, there: Option<&Value>) -> Problem {
    if let Some(field) = missing(message) {
        let at = join(at, field);
        let what = format!("is missing{}", known_as(&at));
        return Problem { section: section(&at), at, what, hint: "add it".into() };
    }
    let stands = there.map(short).unwrap_or_default();
    let (what, hint) = match message.rsplit_once(", expected ") {
        _ if message.starts_with("Invalid execCPUAffinity format") => {
            (format!("{stands} is not a list of CPUs"), "write a list such as 0-3,7".to_owned())
        }
        Some((before, wanted)) if before.starts_with("unknown variant") => {
            (format!("{stands} is not {}{}", one_of(wanted), known_as(at)), "write one of these".to_owned())
        }
        Some((_, wanted)) => {
            let (wanted, kind) = expected(wanted);
            let unlimited =
                if at.starts_with("process.rlimits[") && kind == "an integer" { NO_LIMIT } else { "" };
            (format!("{stands} is not {wanted}"), format!("write {kind}{unlimited}"))
        }
        None => (message.to_owned(), "correct the value".to_owned()),
    };
    let place = if at.is_empty() { "config.json" } else { at };
    Problem { at: place.into(), what, section: section(at), hint }
}

/// What runc calls such a mistake, for those who look for its words.
pub(crate) fn known_as(at: &str) -> &'static str {
    match at.strip_prefix("linux.memoryPolicy.") {
        Some("mode") => ": invalid memory policy mode",
        Some("nodes") => ": invalid memory policy node",
        Some(other) if other.starts_with("flags") => ": invalid memory policy flag",
        _ => "",
    }
}

/// A value as it is written, or what kind of value it is where that is long.
fn short(value: &Value) -> String {
    let text = value.to_string();
    match value {
        _ if text.len() <= 60 => text,
        Value::Array(_) => "an array".into(),
        Value::Object(_) => "an object".into(),
        _ => format!("{}…", text.chars().take(60).collect::<String>()),
    }
}

/// What serde expects, exactly and in short.
fn expected(wanted: &str) -> (String, &str) {
    let integer = |least: i128, most: i128| (format!("an integer from {least} to {most}"), "an integer");
    match wanted {
        "u8" => integer(0, u8::MAX.into()),
        "u16" => integer(0, u16::MAX.into()),
        "u32" => integer(0, u32::MAX.into()),
        "u64" | "usize" => integer(0, u64::MAX.into()),
        "i32" => integer(i32::MIN.into(), i32::MAX.into()),
        "i64" => integer(i64::MIN.into(), i64::MAX.into()),
        "a boolean" => ("true or false".into(), "true or false"),
        "a sequence" => ("an array".into(), "an array"),
        "path string" | "string or map" => ("a string".into(), "a string"),
        w if w == "a map" || w.starts_with("struct ") => ("an object".into(), "an object"),
        w => (w.to_owned(), w),
    }
}

/// serde's list of names, "one of `a`, `b`", as one reads it.
fn one_of(wanted: &str) -> String {
    let names: Vec<String> = wanted.split('`').skip(1).step_by(2).map(super::newer::spelled).collect();
    match names.split_last() {
        Some((last, rest)) if !rest.is_empty() => format!("{} or {last}", rest.join(", ")),
        _ => names.concat(),
    }
}

/// Where the specification describes what stands at a place.
pub(super) fn section(at: &str) -> &'static str {
    const SECTIONS: [(&str, &str); 24] = [
        ("root", "config.md, Root"),
        ("mounts", "config.md, Mounts"),
        ("process.user", "config.md, User"),
        ("process.rlimits", "config.md, POSIX process"),
        ("process", "config.md, Process"),
        ("hooks", "config.md, POSIX-platform Hooks"),
        ("annotations", "config.md, Annotations"),
        ("linux.namespaces", "config-linux.md, Namespaces"),
        ("linux.uidMappings", "config-linux.md, User namespace mappings"),
        ("linux.gidMappings", "config-linux.md, User namespace mappings"),
        ("linux.timeOffsets", "config-linux.md, Offset for Time Namespace"),
        ("linux.devices", "config-linux.md, Devices"),
        ("linux.netDevices", "config-linux.md, Network Devices"),
        ("linux.cgroupsPath", "config-linux.md, Control groups"),
        ("linux.resources", "config-linux.md, Control groups"),
        ("linux.intelRdt", "config-linux.md, IntelRdt"),
        ("linux.memoryPolicy", "config-linux.md, Memory policy"),
        ("linux.sysctl", "config-linux.md, Sysctl"),
        ("linux.seccomp", "config-linux.md, Seccomp"),
        ("linux.maskedPaths", "config-linux.md, Masked Paths"),
        ("linux.readonlyPaths", "config-linux.md, Readonly Paths"),
        ("linux.personality", "config-linux.md, Personality"),
        ("linux", "config-linux.md"),
        ("", "config.md"),
    ];
    SECTIONS.iter().find(|(prefix, _)| at.starts_with(prefix)).map_or("config.md", |s| s.1)
}

pub(super) fn join(at: &str, field: &str) -> String {
    if at.is_empty() { field.to_owned() } else { format!("{at}.{field}") }
}

/// What was taken out, by its place in the file.
#[derive(Default)]
struct Taken {
    places: Vec<String>,
    /// Of each array, the numbers that its lost elements had, ascending.
    elements: HashMap<String, Vec<usize>>,
}

impl Taken {
    fn had(&self, place: &str) -> bool {
        self.places.iter().any(|p| p == place)
    }

    /// The place in the file of what a path of the value names now.
    fn original(&self, path: &[Segment]) -> String {
        path.iter().fold(String::new(), |at, segment| match segment {
            Segment::Seq { index } => {
                let lost = self.elements.get(&at).map_or(&[][..], Vec::as_slice);
                let number = lost.iter().fold(*index, |n, gone| if *gone <= n { n + 1 } else { n });
                format!("{at}[{number}]")
            }
            Segment::Map { key } => join(&at, key),
            Segment::Enum { .. } | Segment::Unknown => at,
        })
    }

    /// Takes what stands at the path out of the value. Says whether there was anything.
    fn out_of(&mut self, value: &mut Value, path: &[Segment], at: String) -> bool {
        let [above @ .., last] = path else { return false };
        let parent = above.iter().try_fold(value, |v, segment| match segment {
            Segment::Seq { index } => v.get_mut(*index),
            Segment::Map { key } => v.get_mut(key),
            Segment::Enum { .. } | Segment::Unknown => Some(v),
        });
        let removed = match (parent, last) {
            (Some(Value::Object(fields)), Segment::Map { key }) => fields.remove(key).is_some(),
            (Some(Value::Array(items)), Segment::Seq { index }) if *index < items.len() => {
                items.remove(*index);
                self.lost(above, &at);
                true
            }
            _ => false,
        };
        self.places.push(at);
        removed
    }

    fn lost(&mut self, array: &[Segment], element: &str) {
        let number: Option<usize> =
            element.rsplit_once('[').and_then(|(_, n)| n.strip_suffix(']')?.parse().ok());
        let array = self.original(array);
        let gone = self.elements.entry(array).or_default();
        gone.extend(number);
        gone.sort_unstable();
    }
}
