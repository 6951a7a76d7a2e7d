//! Annotations: config.md, Annotations. Those that mean something here are read where their topic is; here is what holds for all,
//! and what other runtimes know and this one does not do.

use crate::problem::Findings;
use oci_spec::runtime::Spec;

const SECTION: &str = "config.md, Annotations";

/// The socket that takes a pidfd of init: crun's, as `--pidfd-socket` where that is not given.
pub fn pidfd_receiver(spec: &Spec) -> Option<&str> {
    spec.annotations().as_ref()?.get("run.oci.pidfd_receiver").map(String::as_str)
}

/// Of crun's that are not done here, those that confine the container, which must not go without; the specification has unknown
/// annotations ignored, and so the others are, with a word.
pub(crate) fn check(spec: &Spec, found: &mut Findings) {
    for (name, value) in spec.annotations().iter().flatten() {
        let at = || format!("annotations[{name:?}]");
        match name.as_str() {
            "" => found.problem("annotations", "has an empty key", SECTION, "name it, or remove it"),
            "run.oci.handler" => found.problem(
                at(),
                format!(
                    "{value:?} is to run the program, and coracle has no handlers: it would run as any other"
                ),
                SECTION,
                "remove it, or use a runtime that has this handler",
            ),
            "run.oci.seccomp_bpf_data" => found.problem(
                at(),
                "a compiled seccomp filter is not taken, and without it the container would have another",
                SECTION,
                "describe the filter in linux.seccomp",
            ),
            "run.oci.seccomp.receiver" | "run.oci.seccomp.plugins" | "run.oci.systemd.force_cgroup_v1" => {
                found.warn(format!("{}: coracle does not do this; left out", at()));
            }
            _ => {}
        }
    }
}
