//! What Linux security modules are told: config.md, Linux Process (`apparmorProfile`, `selinuxLabel`); config-linux.md,
//! Mount Label. A label that the host cannot give is a mistake: nobody may run without one that was asked for.

use crate::inputs::Host;
use crate::order::step;
use crate::problem::Findings;
use crate::steps::{Act, Parameter, Step};
use oci_spec::runtime::{Process, Spec};
use std::ffi::{CStr, CString};

/// Where the SELinux label of the process is asked for.
const PROCESS: &str = "process.selinuxLabel";
/// Where that of the mounts is.
const MOUNTS: &str = "linux.mountLabel";
/// The annotation that says how it is given.
const CONTEXT_TYPE: &str = "run.oci.mount_context_type";

fn asked(label: &Option<String>) -> Option<&str> {
    label.as_deref().filter(|l| !l.is_empty())
}

/// The process with the labels of the container where it names none of its own (exec), as with runc: an engine that leaves
/// them out means the container's.
pub(crate) fn inherited(process: &Process, spec: &Spec) -> Process {
    let mut process = process.clone();
    let Some(init) = spec.process() else { return process };
    if asked(process.apparmor_profile()).is_none() {
        process.set_apparmor_profile(init.apparmor_profile().clone());
    }
    if asked(process.selinux_label()).is_none() {
        process.set_selinux_label(init.selinux_label().clone());
    }
    process
}

fn selinux<'a>(label: &'a Option<String>, at: &str, host: &Host, found: &mut Findings) -> Option<&'a str> {
    let label = asked(label)?;
    if !host.selinux {
        found.problem(
            at,
            format!("{label:?} is an SELinux label, and SELinux is not in force on this host"),
            if at == PROCESS { "config.md, Linux Process" } else { "config-linux.md, Mount Label" },
            "remove it, or boot the host with SELinux and a policy",
        );
    }
    Some(label)
}

/// The label that new keyrings get, before the first is made: keycreate, proc_pid_attr(5). The exec forgets it.
pub(crate) fn keys(process: &Process, found: &mut Findings) -> Option<Step> {
    let label = asked(process.selinux_label())?;
    let label = found.cstring(PROCESS, label);
    Some(step(Act::WriteProc(c"self/attr/keycreate".into(), label.into_bytes()), PROCESS))
}

/// Opens the files that [`confine`] has written later.
pub(crate) fn open(process: &Process, host: &Host, found: &mut Findings) -> Vec<Step> {
    let mut out = Vec::new();
    if asked(process.apparmor_profile()).is_some() {
        out.push(step(Act::OpenLabel(c"apparmor/exec".into(), None), "process.apparmorProfile"));
    }
    if let Some(label) = selinux(process.selinux_label(), PROCESS, host, found) {
        let label = found.cstring(PROCESS, label);
        out.push(step(Act::OpenLabel(c"exec".into(), Some(label)), PROCESS));
    }
    out
}

/// Has the next execve change the label, in the order of [`open`].
pub(crate) fn confine(process: &Process, found: &mut Findings) -> Vec<Step> {
    let mut out = Vec::new();
    if let Some(profile) = asked(process.apparmor_profile()) {
        out.push(step(Act::Confine(format!("exec {profile}").into_bytes()), "process.apparmorProfile"));
    }
    if let Some(label) = asked(process.selinux_label()) {
        out.push(step(Act::Confine(found.cstring(PROCESS, label).into_bytes()), PROCESS));
    }
    out
}

/// The label of the container's mounts.
pub(crate) fn of_mounts(spec: &Spec, host: &Host, found: &mut Findings) -> Option<CString> {
    let label = selinux(spec.linux().as_ref()?.mount_label(), MOUNTS, host, found)?;
    Some(found.cstring(MOUNTS, label))
}

/// By which option that label is given to file systems: crun's annotation, which Podman sets for containers that label files
/// themselves. mount(8), Options for SELinux.
pub(crate) fn context_option(spec: &Spec, found: &mut Findings) -> &'static CStr {
    let options = [c"context", c"fscontext", c"defcontext", c"rootcontext"];
    let Some(asked) = spec.annotations().as_ref().and_then(|a| a.get(CONTEXT_TYPE)) else {
        return options[0];
    };
    options.into_iter().find(|o| o.to_bytes() == asked.as_bytes()).unwrap_or_else(|| {
        let what = format!("{asked:?} is not context, fscontext, defcontext or rootcontext");
        found.problem(format!("annotations[{CONTEXT_TYPE:?}]"), what, "mount(8)", "write one of these");
        options[0]
    })
}

/// The same as a parameter of a file system, for those that take it: proc, sysfs and cgroup show the kernel's own files, of
/// which there is one set for the whole host; mqueue is labelled once it is mounted. One that the options name stays.
pub(crate) fn context(
    kind: &str,
    (option, label): (&CStr, Option<&CString>),
    parameters: &[Parameter],
) -> Option<Parameter> {
    let named = parameters.iter().any(|(key, _)| is_context(key.as_bytes()));
    let takes = !named && !["proc", "sysfs", "cgroup", "cgroup2", "mqueue"].contains(&kind);
    label.filter(|_| takes).map(|label| (option.into(), Some(label.clone())))
}

/// The value of such a parameter without the quotes that mount(8) has around it, since a label may have commas.
pub(crate) fn unquoted<'a>(key: &str, value: &'a str) -> &'a str {
    let bare = value.strip_prefix('"').and_then(|v| v.strip_suffix('"'));
    bare.filter(|_| is_context(key.as_bytes())).unwrap_or(value)
}

/// Whether that is a label without them.
pub(crate) fn is_bare(key: &str, value: &str) -> bool {
    is_context(key.as_bytes()) && !value.starts_with('"')
}

fn is_context(key: &[u8]) -> bool {
    [b"context".as_slice(), b"fscontext", b"defcontext", b"rootcontext"].contains(&key)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn some_file_systems_take_a_context() {
        let label = CString::from(c"u:r:t:s0:c1,c2");
        let key = |kind, parameters: &[Parameter]| {
            context(kind, (c"context", Some(&label)), parameters).map(|(k, _)| k)
        };
        for kind in ["tmpfs", "devpts", "overlay", "ext4"] {
            assert_eq!(key(kind, &[]), Some(c"context".into()), "{kind}");
        }
        for kind in ["proc", "sysfs", "cgroup2", "mqueue"] {
            assert_eq!(key(kind, &[]), None, "{kind}");
        }
        assert_eq!(key("tmpfs", &[(c"rootcontext".into(), Some(label.clone()))]), None);
        assert_eq!(context("tmpfs", (c"context", None), &[]), None);
        assert_eq!(unquoted("context", "\"a:b:c:s0:c1,c2\""), "a:b:c:s0:c1,c2");
        assert_eq!(unquoted("lowerdir", "\"a\""), "\"a\"");
    }
}
