//! Every value of a wrong type at once. serde stops at the first: what it names is taken out, and the rest read again.

use crate::problem::Problem;
use serde::de::DeserializeOwned;
use serde_json::Value;
use serde_path_to_error::Segment;
use std::collections::HashMap;

/// Nobody corrects more at a time.
const MOST: usize = 100;

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
            problems.push(problem(&at, message));
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

fn problem(at: &str, message: String) -> Problem {
    let hint = if missing(&message).is_some() { "add it" } else { "correct the value" };
    let place = if at.is_empty() { "config.json" } else { at };
    Problem { at: place.into(), what: message, section: section(at), hint: hint.into() }
}

/// Where the specification describes what stands at a place.
fn section(at: &str) -> &'static str {
    const SECTIONS: [(&str, &str); 22] = [
        ("root", "config.md, Root"),
        ("mounts", "config.md, Mounts"),
        ("process.user", "config.md, User"),
        ("process", "config.md, Process"),
        ("hooks", "config.md, POSIX-platform Hooks"),
        ("annotations", "config.md, Annotations"),
        ("linux.namespaces", "config-linux.md, Namespaces"),
        ("linux.uidMappings", "config-linux.md, User namespace mappings"),
        ("linux.gidMappings", "config-linux.md, User namespace mappings"),
        ("linux.timeOffsets", "config-linux.md, Offset for Time Namespace"),
        ("linux.devices", "config-linux.md, Devices"),
        ("linux.netDevices", "config-linux.md, Network Devices"),
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

fn join(at: &str, field: &str) -> String {
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
