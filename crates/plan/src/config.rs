//! config.json: from bytes to oci-spec's types, with the places of all mistakes when it does not fit them.
//!
//! Unknown properties are ignored, as config.md (Extensibility) demands; of those that are nearly known ones, see `spelling`.
//! Capabilities that this build does not know are left out with a warning, as config.md (Linux Process) demands, where oci-spec's
//! type would refuse the file.

mod mistakes;
mod newer;
mod once;
mod required;
mod spelling;

pub(crate) use mistakes::known_as;
pub use once::Once;

use crate::problem::{Problem, Refusal};
use oci_spec::runtime::{Capability, Process, Spec};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

/// A configuration that was read.
pub struct Read {
    /// What it says.
    pub spec: Spec,
    /// What had to be left out of it, or taken otherwise than it stands there.
    pub warnings: Vec<String>,
    /// It with the specification's names, where it had others: whoever reads it again is to find what was taken.
    pub amended: Option<Vec<u8>>,
}

/// Reads a configuration.
/// Errors: broken JSON with its line and column; else every value of a wrong type, with its JSON path.
pub fn read(bytes: &[u8]) -> Result<Read, Refusal> {
    if bytes.trim_ascii_start().first() == Some(&b'[') {
        // serde would take its elements for the members.
        return Err(of_file("is an array", "write an object"));
    }
    let first = serde_json::from_slice(bytes);
    let mut warnings = Vec::new();
    let mut amended = None;
    if spelling::doubtful(bytes) {
        let mut whole = value(bytes)?;
        let done = spelling::amend(&mut whole, "")?;
        warnings = done.warnings;
        amended = done.changed.then(|| whole.to_string().into_bytes());
    }
    let (spec, more) = match &amended {
        Some(bytes) => understand(bytes, serde_json::from_slice(bytes)),
        None => understand(bytes, first),
    }?;
    warnings.extend(more);
    Ok(Read { spec, warnings, amended })
}

/// [`read`] without what it was read from: the configuration, and its warnings.
pub fn parse(bytes: &[u8]) -> Result<(Spec, Vec<String>), Refusal> {
    read(bytes).map(|read| (read.spec, read.warnings))
}

/// Goes on with what was read, or could not be.
fn understand(bytes: &[u8], read: serde_json::Result<Spec>) -> Result<(Spec, Vec<String>), Refusal> {
    let mut read = match read {
        Ok(spec) => (spec, Vec::new()),
        Err(_) => parse_again(value(bytes)?)?,
    };
    absent_pids_limit(&mut read.0, bytes);
    empty_paths(&mut read.0);
    read.1.extend(replaced(&read.0, bytes));
    if required::doubtful(&read.0, bytes) {
        complete(&value(bytes)?)?;
    }
    Ok(read)
}

/// config-linux.md, IntelRdt: two flags of older versions, which oci-spec's types look for by other names.
fn replaced(spec: &Spec, bytes: &[u8]) -> Vec<String> {
    if spec.linux().as_ref().is_none_or(|l| l.intel_rdt().is_none()) {
        return Vec::new();
    }
    let whole: Value = serde_json::from_slice(bytes).unwrap_or_default();
    let asked = |name: &&str| whole["linux"]["intelRdt"][*name] == true;
    let said = |name| {
        format!(
            "linux.intelRdt.{name}: was replaced by enableMonitoring (config-linux.md, IntelRdt); left out"
        )
    };
    ["enableCMT", "enableMBM"].into_iter().filter(asked).map(said).collect()
}

/// Nothing is left out that the specification demands.
fn complete(whole: &Value) -> Result<(), Refusal> {
    let missing = required::missing(whole);
    if missing.is_empty() { Ok(()) } else { Err(Refusal(missing)) }
}

/// Reads the process that exec is to start. What config.json must say and this need not, is root's: user and directory.
/// Errors: as of [`parse`].
pub fn process(bytes: &[u8]) -> Result<(Process, Vec<String>), Refusal> {
    /// Its place in config.json.
    #[derive(Deserialize)]
    struct Around {
        process: Process,
    }
    let mut whole = json!({ "process": value(bytes)? });
    let mut warnings =
        if spelling::doubtful(bytes) { spelling::amend(&mut whole, "")?.warnings } else { Vec::new() };
    if let Some(fields) = whole["process"].as_object_mut() {
        fields.entry("cwd").or_insert_with(|| "/".into());
    }
    complete(&whole)?;
    let (around, more) = parse_again::<Around>(whole)?;
    warnings.extend(more);
    Ok((around.process, warnings))
}

/// `linux.resources` with its names as the specification has them, and what must be said of that. Errors: two are one.
pub(crate) fn resources(value: &Value) -> Result<(Value, Vec<String>), Refusal> {
    let mut value = value.clone();
    let amended = spelling::amend(&mut value, "linux.resources")?;
    Ok((value, amended.warnings))
}

/// oci-spec reads an absent `pids.limit` as 0, which is a limit (config-linux.md, PIDs).
fn absent_pids_limit(spec: &mut Spec, bytes: &[u8]) {
    let resources = spec.linux_mut().as_mut().and_then(|l| l.resources_mut().as_mut());
    let Some(resources) = resources.filter(|r| r.pids().as_ref().is_some_and(|p| p.limit() == 0)) else {
        return;
    };
    let whole: Value = serde_json::from_slice(bytes).unwrap_or_default();
    if whole.pointer("/linux/resources/pids/limit").is_none_or(Value::is_null) {
        resources.set_pids(None);
    }
}

/// An empty path of a namespace is none to programs in Go, who write these files.
fn empty_paths(spec: &mut Spec) {
    let namespaces = spec.linux_mut().as_mut().and_then(|l| l.namespaces_mut().as_mut());
    for namespace in namespaces.into_iter().flatten() {
        if namespace.path().as_ref().is_some_and(|path| path.as_os_str().is_empty()) {
            namespace.set_path(None);
        }
    }
}

fn value(bytes: &[u8]) -> Result<Value, Refusal> {
    once::value(bytes).map_err(|error| of_file(&error.to_string(), unlike_json(&error, bytes)))
}

/// What is wrong with all of the file.
fn of_file(what: &str, hint: &str) -> Refusal {
    Refusal(vec![Problem { at: String::new(), what: what.into(), section: "config.md", hint: hint.into() }])
}

/// What is not JSON, though other languages have it.
fn unlike_json(error: &serde_json::Error, bytes: &[u8]) -> &'static str {
    let line = bytes.split(|b| *b == b'\n').nth(error.line().saturating_sub(1)).unwrap_or_default();
    let there = line.get(error.column().saturating_sub(1));
    match there {
        _ if once::doubled(error) => "keep one of the two",
        _ if bytes.starts_with(b"\xef\xbb\xbf") => "remove the byte order mark that the file begins with",
        _ if error.to_string().starts_with("trailing comma") => "remove the comma before it",
        _ if error.to_string().starts_with("invalid number") => {
            "a number has no 0 before it, and is decimal: 438 is octal 0666"
        }
        Some(b'/' | b'#') => "JSON has no comments: remove it",
        Some(b'\'') => "JSON has double quotation marks",
        _ => "correct the JSON there",
    }
}

/// Reads what did not fit, with all that the types do not know said otherwise.
fn parse_again<T: DeserializeOwned>(mut whole: Value) -> Result<(T, Vec<String>), Refusal> {
    newer::respell(&mut whole);
    let warnings = without_unknown_capabilities(&mut whole);
    match T::deserialize(&whole) {
        Ok(read) => Ok((read, warnings)),
        Err(_) => Err(Refusal(mistakes::all::<T>(whole))),
    }
}

fn without_unknown_capabilities(whole: &mut Value) -> Vec<String> {
    let mut warnings = Vec::new();
    let sets = whole.pointer_mut("/process/capabilities").and_then(Value::as_object_mut);
    let mut unknown: Vec<String> = Vec::new();
    for list in sets.into_iter().flatten().filter_map(|(_, list)| list.as_array_mut()) {
        list.retain(|name| match name.as_str() {
            Some(word) if serde_json::from_value::<Capability>(name.clone()).is_err() => {
                if !unknown.iter().any(|known| known == word) {
                    unknown.push(word.to_owned());
                }
                false
            }
            _ => true,
        });
    }
    if !unknown.is_empty() {
        // runc's words, which callers look for.
        warnings.push(format!(
            "process.capabilities: ignoring unknown or unavailable capabilities: [{}]",
            unknown.join(" ")
        ));
    }
    warnings
}

#[cfg(test)]
mod tests {
    use super::parse;

    fn problem(text: &str) -> String {
        parse(text.as_bytes()).expect_err("refused").to_string()
    }

    #[test]
    fn a_wrong_type_is_named_by_its_path() {
        let text = r#"{"ociVersion":"1.0.2","linux":{"resources":{"cpu":{"quota":"much"}}}}"#;
        assert!(problem(text).starts_with("linux.resources.cpu.quota: "), "{}", problem(text));
    }

    #[test]
    fn all_wrong_types_are_named_at_once() {
        let text = r#"{"ociVersion":"1.0.2","process":{"user":{"uid":"root","gid":0},"cwd":7,"args":["a",1,"b",2]},
            "mounts":[{"destination":"/a"},{"destination":1},{"destination":"/b","options":"ro"},{"type":"bind"}],
            "linux":{"namespaces":[{"type":"pid"},{"type":"moon"}],"resources":{"cpu":{"quota":"much"}}}}"#;
        let problems = parse(text.as_bytes()).expect_err("refused").0;
        let places: Vec<&str> = problems.iter().map(|p| p.at.as_str()).collect();
        let wanted = [
            "linux.namespaces[1].type",
            "linux.resources.cpu.quota",
            "mounts[1].destination",
            "mounts[2].options",
            "mounts[3].destination",
            "process.args[1]",
            "process.args[3]",
            "process.cwd",
            "process.user.uid",
        ];
        let mut sorted = places.clone();
        sorted.sort_unstable();
        assert_eq!(sorted, wanted);
        let of = |at: &str| problems.iter().find(|p| p.at == at).expect("named");
        assert_eq!(of("mounts[3].destination").what, "is missing");
        assert_eq!(of("linux.namespaces[1].type").section, "config-linux.md, Namespaces");
    }

    #[test]
    fn what_stands_there_and_what_should_is_said_in_the_words_of_json() {
        let of = |process: &str| {
            let text = format!(r#"{{"ociVersion":"1.0.2","process":{{"user":{{}},"cwd":"/",{process}}}}}"#);
            let problem = problem(&text);
            problem.strip_prefix("process.").expect("its place").to_owned()
        };
        let (section, linux) = ("(config.md, Process)", "(config.md, POSIX process)");
        assert_eq!(of(r#""args":"sh""#), format!("args: \"sh\" is not an array {section}; write [\"sh\"]"));
        assert_eq!(of(r#""args":[{}]"#), format!("args[0]: {{}} is not a string {section}; write a string"));
        assert_eq!(
            of(r#""oomScoreAdj":1e9"#),
            format!(
                "oomScoreAdj: 1000000000.0 is not an integer from -2147483648 to 2147483647 {section}; write an integer"
            )
        );
        assert_eq!(
            of(r#""ioPriority":{"class":"x","priority":1}"#),
            format!(
                "ioPriority.class: \"x\" is not IOPRIO_CLASS_RT, IOPRIO_CLASS_BE or IOPRIO_CLASS_IDLE {section}; write one of these"
            )
        );
        assert_eq!(
            of(r#""rlimits":[{"type":"RLIMIT_CORE","soft":0}]"#),
            format!("rlimits[0].hard: is missing {linux}; add it")
        );
    }

    #[test]
    fn a_member_named_twice_is_refused() {
        for text in [
            r#"{"ociVersion":"1.0.2","ociVersion":"1.0.3"}"#,
            r#"{"ociVersion":"1.0.2","process":{"cwd":"/","capabilities":{"bounding":["CAP_FLY"]},"terminal":true,"terminal":false}}"#,
            r#"{"ociVersion":"1.0.2","process":{"cwd":"/"},"Process":{"terminal":true,"terminal":false}}"#,
        ] {
            let said = problem(text);
            assert!(said.contains("duplicate field") && said.ends_with("keep one of the two"), "{said}");
        }
        assert!(super::process(br#"{"args":["a"],"terminal":true,"terminal":false}"#).is_err());
    }

    #[test]
    fn what_the_types_lack_is_read() {
        let text = r#"{"ociVersion":"1.0.2","process":{"user":{"uid":0,"gid":0},"cwd":"/",
            "scheduler":{"policy":"SCHED_OTHER","flags":["SCHED_FLAG_RESET_ON_FORK","SCHED_FLAG_DL_OVERRUN"]},
            "execCPUAffinity":{"initial":"","final":"0-1"}},
            "linux":{"resources":{"hugepageLimits":[{"pageSize":"2MB","limit":18446744073709551615}]}}}"#;
        let (spec, _) = parse(text.as_bytes()).expect("read");
        let process = spec.process().as_ref().expect("process");
        let flags = process.scheduler().as_ref().and_then(|s| s.flags().clone()).expect("flags");
        assert_eq!(flags.len(), 2);
        assert_eq!(process.exec_cpu_affinity().as_ref().map(|a| a.initial().is_none()), Some(true));
        let resources = spec.linux().as_ref().and_then(|l| l.resources().clone()).expect("resources");
        assert_eq!(resources.hugepage_limits().as_ref().map(|h| h[0].limit()), Some(i64::MAX));
    }

    #[test]
    fn a_process_need_not_say_user_and_directory() {
        let (process, _) = super::process(br#"{"args":["a"]}"#).expect("read");
        assert_eq!(process.cwd(), std::path::Path::new("/"));
        let problems = super::process(br#"{"args":"a","env":1}"#).expect_err("refused").0;
        assert_eq!(
            problems.iter().map(|p| p.at.as_str()).collect::<Vec<_>>(),
            ["process.args", "process.env"]
        );
    }

    #[test]
    fn broken_json_has_line_and_column() {
        assert!(problem("{\n  \"ociVersion\": }").contains("line 2 column"));
    }

    #[test]
    fn what_was_replaced_is_said() {
        for (field, warnings) in [("enableCMT", 1), ("enableMBM", 1), ("enableMonitoring", 0)] {
            let text = format!(r#"{{"ociVersion":"1.0.2","linux":{{"intelRdt":{{"{field}":true}}}}}}"#);
            assert_eq!(parse(text.as_bytes()).expect("read").1.len(), warnings, "{field}");
        }
    }

    #[test]
    fn names_in_gos_case_are_read() {
        let text = r#"{"ociVersion":"1.0.2","linux":{"resources":{"CPU":{"Cpus":"0"},"hugepageLimits":[{"pagesize":"2MB","limit":1}]}}}"#;
        let (spec, _) = parse(text.as_bytes()).expect("read");
        let resources = spec.linux().as_ref().and_then(|l| l.resources().clone()).expect("resources");
        assert_eq!(resources.cpu().as_ref().and_then(|c| c.cpus().clone()).as_deref(), Some("0"));
        assert_eq!(resources.hugepage_limits().as_ref().map(|h| h[0].page_size().as_str()), Some("2MB"));
    }

    #[test]
    fn an_absent_pids_limit_is_none_and_zero_is_one() {
        let none = r#"{"limit":null}"#;
        for (pids, there) in
            [("{}", false), (none, false), (r#"{"limit":0}"#, true), (r#"{"limit":5}"#, true)]
        {
            let text = format!(r#"{{"ociVersion":"1.0.2","linux":{{"resources":{{"pids":{pids}}}}}}}"#);
            let (spec, _) = parse(text.as_bytes()).expect("read");
            let resources = spec.linux().as_ref().and_then(|l| l.resources().clone()).expect("resources");
            assert_eq!(resources.pids().is_some(), there, "{pids}");
        }
    }

    #[test]
    fn without_a_user_it_is_root() {
        for user in ["", r#","user":null"#, r#","user":{}"#] {
            let text = format!(r#"{{"ociVersion":"1.0.2","process":{{"cwd":"/","args":["a"]{user}}}}}"#);
            let (spec, _) = parse(text.as_bytes()).expect("read");
            let user = spec.process().as_ref().map(|p| (p.user().uid(), p.user().gid()));
            assert_eq!(user, Some((0, 0)), "{text}");
        }
    }

    #[test]
    fn an_unknown_capability_is_a_warning() {
        let text = r#"{"ociVersion":"1.0.2","process":{"user":{},"cwd":"/","capabilities":{"bounding":["CAP_KILL","CAP_FLY"]}}}"#;
        let (spec, warnings) = parse(text.as_bytes()).expect("read");
        assert_eq!(warnings.len(), 1);
        let caps = spec.process().as_ref().and_then(|p| p.capabilities().clone()).expect("capabilities");
        assert_eq!(caps.bounding().as_ref().map(|b| b.len()), Some(1));
    }
}
