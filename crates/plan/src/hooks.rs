//! Hooks: config.md, POSIX-platform Hooks.

use crate::problem::Findings;
use crate::steps::{Hook, Hooks};
use oci_spec::runtime::{Hook as Asked, Spec};
use std::ffi::CString;

/// The hooks of all six kinds.
pub(crate) fn plan(spec: &Spec, found: &mut Findings) -> Hooks {
    let Some(hooks) = spec.hooks() else { return Hooks::default() };
    #[allow(deprecated)] // engines still use it; the specification still demands it
    let prestart = hooks.prestart();
    let output = output(spec, found);
    let mut kind = |list, name| kind(list, name, &output, found);
    let mut create_runtime = kind(prestart, "prestart");
    create_runtime.extend(kind(hooks.create_runtime(), "createRuntime"));
    let mut start_container = kind(hooks.start_container(), "startContainer");
    // These run in the container, whose files are not meant: what they print is quoted when they fail.
    start_container.iter_mut().for_each(|hook| hook.output = [None, None]);
    Hooks {
        create_runtime,
        create_container: kind(hooks.create_container(), "createContainer"),
        start_container,
        poststart: kind(hooks.poststart(), "poststart"),
        poststop: kind(hooks.poststop(), "poststop"),
    }
}

/// Where standard output and standard error go: crun's annotations.
fn output(spec: &Spec, found: &mut Findings) -> [Option<CString>; 2] {
    ["run.oci.hooks.stdout", "run.oci.hooks.stderr"].map(|name| {
        let path = spec.annotations().as_ref()?.get(name)?;
        let at = format!("annotations[{name:?}]");
        if !path.starts_with('/') {
            let what = format!("{path:?} is not absolute");
            found.problem(&at, what, "", "name a file of the host, from the root");
        }
        Some(found.cstring(&at, path.as_str()))
    })
}

/// The hooks alone, of a configuration that was accepted before (for start and delete).
pub fn hooks_of(spec: &Spec) -> Hooks {
    plan(spec, &mut Findings::default())
}

fn kind(
    list: &Option<Vec<Asked>>,
    name: &str,
    output: &[Option<CString>; 2],
    found: &mut Findings,
) -> Vec<Hook> {
    let section = "config.md, POSIX-platform Hooks";
    let mut out = Vec::new();
    for (i, hook) in list.iter().flatten().enumerate() {
        let origin = format!("hooks.{name}[{i}]");
        if !hook.path().is_absolute() {
            found.problem(
                format!("{origin}.path"),
                format!("{:?} is not absolute", hook.path()),
                section,
                "write it from the root",
            );
        }
        if hook.timeout().is_some_and(|t| t <= 0) {
            found.problem(
                format!("{origin}.timeout"),
                format!("{} is not greater than zero", hook.timeout().unwrap_or(0)),
                section,
                "remove it for no limit",
            );
        }
        let path = found.cstring(&origin, hook.path().as_os_str().as_encoded_bytes());
        let mut argv: Vec<_> =
            hook.args().iter().flatten().map(|a| found.cstring(&origin, a.as_str())).collect();
        if argv.is_empty() {
            argv.push(path.clone());
        }
        let env = hook.env().as_ref().map(|e| e.iter().map(|e| found.cstring(&origin, e.as_str())).collect());
        let timeout = hook.timeout().and_then(|t| u32::try_from(t).ok());
        out.push(Hook { path, argv, env, timeout, output: output.clone(), origin });
    }
    out
}
