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
            let names = names(wanted);
            let what = format!("{stands} is not {}{}", one_of(&names), known_as(at));
            let near = there.and_then(Value::as_str).and_then(|word| meant(word, &names));
            (what, near.map_or_else(|| "write one of these".to_owned(), |name| format!("write {name:?}")))
        }
        Some((_, wanted)) => {
            let (wanted, kind) = expected(wanted);
            let unlimited =
                if at.starts_with("process.rlimits[") && kind == "an integer" { NO_LIMIT } else { "" };
            let right = there.and_then(|value| rewritten(at, value, kind));
            let hint = right.unwrap_or_else(|| format!("write {kind}"));
            (format!("{stands} is not {wanted}"), hint + unlimited)
        }
        None => (message.to_owned(), "correct the value".to_owned()),
    };
    Problem { at: at.into(), what, section: section(at), hint }
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

/// Where any text may stand.
const WORDS: [&str; 5] =
    ["process.args[", "process.env[", "linux.sysctl.", "annotations.", "linux.resources.unified."];

/// How what stands there would be written, where that can be told.
fn rewritten(at: &str, value: &Value, kind: &str) -> Option<String> {
    let text = short(value);
    match (kind, value) {
        ("an integer", Value::String(word)) if at.ends_with(".fileMode") || at.ends_with(".umask") => {
            let mode = u32::from_str_radix(word.trim_start_matches("0o"), 8).ok()?;
            Some(format!("write it in decimal: {mode} is octal {mode:04o}"))
        }
        ("an integer", Value::String(word)) => match word.parse::<i128>() {
            Ok(number) => Some(format!("write {number}, without quotation marks")),
            Err(_) => bytes(at, word).map(|n| format!("write bytes: {n}")).or_else(|| number_of(at, word)),
        },
        ("true or false", Value::String(word)) if word == "true" || word == "false" => {
            Some(format!("write {word}, without quotation marks"))
        }
        ("true or false", Value::Number(number)) => match number.as_u64()? {
            n @ (0 | 1) => Some(format!("write {}", n == 1)),
            _ => None,
        },
        ("a string", Value::Number(_) | Value::Bool(_)) if WORDS.iter().any(|w| at.starts_with(w)) => {
            Some(format!("write \"{text}\""))
        }
        ("an array", Value::String(word)) if at == "linux.namespaces" => {
            Some(format!("write [{{\"type\": {word:?}}}]"))
        }
        ("an array", Value::String(_)) => Some(format!("write [{text}]")),
        ("an array", Value::Object(members)) if at.ends_with("env") => {
            let words = members.iter().map(|(name, value)| Some(format!("{name}={}", value.as_str()?)));
            let words = Value::from(words.collect::<Option<Vec<_>>>()?);
            Some(format!("write {}", short(&words)))
        }
        ("an array", Value::Object(members)) if !members.is_empty() && text.starts_with('{') => {
            Some(format!("write [{text}]"))
        }
        ("an object", Value::String(word)) if at.starts_with("linux.namespaces[") => {
            Some(format!("write {{\"type\": {word:?}}}"))
        }
        _ => None,
    }
}

/// Names of users and groups are the container's affair: its files have their numbers.
fn number_of(at: &str, name: &str) -> Option<String> {
    let file = match at.strip_prefix("process.user.")? {
        "uid" | "gid" if name == "root" => return Some("write 0".into()),
        "uid" => "passwd",
        "gid" => "group",
        other if other.starts_with("additionalGids[") => "group",
        _ => return None,
    };
    Some(format!("write its number, which the container's /etc/{file} has"))
}

/// A size as people and other programs write it, where the specification wants bytes.
fn bytes(at: &str, word: &str) -> Option<u64> {
    if !at.starts_with("linux.resources.memory.") && !at.starts_with("linux.resources.hugepageLimits[") {
        return None;
    }
    let unit = word.trim_start_matches(|c: char| c.is_ascii_digit());
    let number: u64 = word[..word.len() - unit.len()].parse().ok()?;
    let shift = match unit.trim().to_lowercase().trim_end_matches(['b', 'i']) {
        "k" => 10,
        "m" => 20,
        "g" => 30,
        "t" => 40,
        _ => return None,
    };
    number.checked_mul(1 << shift)
}

/// The name that is meant by a word: as other programs have it, or with a slip.
fn meant<'a>(word: &str, names: &'a [String]) -> Option<&'a str> {
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    let bare = word.trim_start_matches("CLONE_NEW").to_lowercase();
    let common = match bare.as_str() {
        "mnt" | "ns" => "mount",
        "amd64" => "x86_64",
        "arm64" => "aarch64",
        other => other,
    };
    crate::near::nearest(common, &names)
}

/// serde's list of names, "one of `a`, `b`".
fn names(wanted: &str) -> Vec<String> {
    wanted.split('`').skip(1).step_by(2).map(super::newer::spelled).collect()
}

/// The list as one reads it.
fn one_of(names: &[String]) -> String {
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
