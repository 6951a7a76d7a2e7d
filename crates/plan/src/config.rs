//! config.json: from bytes to oci-spec's types, with the place of the mistake when it does not fit them.
//!
//! Unknown properties are ignored, as config.md (Extensibility) demands. Capabilities that this build does not know
//! are left out with a warning, as config.md (Linux Process) demands, where oci-spec's type would refuse the file.

use crate::problem::{Problem, Refusal};
use oci_spec::runtime::{Capability, LinuxResources, Spec};
use serde_json::Value;

/// Reads a configuration. Returns it with the warnings that the reading gave.
/// Errors: one problem, with its JSON path, line and column.
pub fn parse(bytes: &[u8]) -> Result<(Spec, Vec<String>), Refusal> {
    let mut read =
        serde_json::from_slice(bytes).map(|spec| (spec, Vec::new())).or_else(|_| parse_again(bytes))?;
    absent_pids_limit(&mut read.0, bytes);
    other_case(&mut read.0, bytes);
    Ok(read)
}

/// Programs in Go do not care for the case of names, and some of what is written for runc has `CPU` and `pagesize`. To pass
/// these over as unknown would be to leave out a limit.
fn other_case(spec: &mut Spec, bytes: &[u8]) {
    let written = |name: &[u8]| bytes.windows(name.len()).any(|w| w == name);
    if !written(b"\"CPU\"") && !written(b"\"pagesize\"") {
        return;
    }
    let whole: Value = serde_json::from_slice(bytes).unwrap_or_default();
    let resources = whole.pointer("/linux/resources").map(crate::cgroup::canonical);
    let read = resources.and_then(|r| serde_json::from_value::<LinuxResources>(r).ok());
    if let (Some(linux), Some(mut resources)) = (spec.linux_mut(), read) {
        if linux.resources().as_ref().is_some_and(|r| r.pids().is_none()) {
            resources.set_pids(None); // as absent_pids_limit() found it
        }
        linux.set_resources(Some(resources));
    }
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

fn parse_again(bytes: &[u8]) -> Result<(Spec, Vec<String>), Refusal> {
    let mut reader = serde_json::Deserializer::from_slice(bytes);
    let error = match serde_path_to_error::deserialize::<_, Spec>(&mut reader) {
        Ok(spec) => return trailing(&mut reader).map(|()| (spec, Vec::new())),
        Err(error) => error,
    };
    if error.path().to_string().starts_with("process.capabilities") {
        if let Some(found) = without_unknown_capabilities(bytes) {
            return Ok(found);
        }
    }
    let path = error.path().to_string();
    Err(refusal(if path == "." { "config.json".into() } else { path }, error.inner()))
}

fn trailing(reader: &mut serde_json::Deserializer<serde_json::de::SliceRead<'_>>) -> Result<(), Refusal> {
    reader.end().map_err(|error| refusal("config.json".into(), &error))
}

fn refusal(at: String, error: &serde_json::Error) -> Refusal {
    let hint = if error.is_data() { "correct the value" } else { "correct the JSON there" };
    Refusal(vec![Problem { at, what: error.to_string(), section: "config.md", hint: hint.into() }])
}

fn without_unknown_capabilities(bytes: &[u8]) -> Option<(Spec, Vec<String>)> {
    let mut whole: Value = serde_json::from_slice(bytes).ok()?;
    let mut warnings = Vec::new();
    for (set, list) in whole.pointer_mut("/process/capabilities")?.as_object_mut()? {
        list.as_array_mut()?.retain(|name| {
            let known = serde_json::from_value::<Capability>(name.clone()).is_ok();
            if !known {
                warnings.push(format!(
                    "process.capabilities.{set}: {name} is not a capability that this build knows; left out"
                ));
            }
            known
        });
    }
    serde_json::from_value(whole).ok().map(|spec| (spec, warnings))
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
    fn broken_json_has_line_and_column() {
        assert!(problem("{\n  \"ociVersion\": }").contains("line 2 column"));
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
        for (pids, there) in [("{}", false), (r#"{"limit":0}"#, true), (r#"{"limit":5}"#, true)] {
            let text = format!(r#"{{"ociVersion":"1.0.2","linux":{{"resources":{{"pids":{pids}}}}}}}"#);
            let (spec, _) = parse(text.as_bytes()).expect("read");
            let resources = spec.linux().as_ref().and_then(|l| l.resources().clone()).expect("resources");
            assert_eq!(resources.pids().is_some(), there, "{pids}");
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
