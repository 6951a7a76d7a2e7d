//! features: what this build supports, in the structure of features.md. Only what is built is said to be enabled.

use crate::cli::{Global, Outcome};
use clap::Args;
use serde_json::json;

/// The newest version of the specification whose configurations are understood.
pub(crate) const SPEC_MAX: &str = "1.3.0";

/// Print what this build supports, as JSON
#[derive(Args)]
pub(crate) struct FeaturesArgs {}

/// `coracle features`.
pub(crate) fn features(_: &Global, _: &FeaturesArgs) -> Outcome {
    let value = json!({
        "ociVersionMin": "1.0.0",
        "ociVersionMax": SPEC_MAX,
        "hooks": ["prestart", "createRuntime", "createContainer", "startContainer", "poststart", "poststop"],
        "mountOptions": coracle_plan::known_options(),
        "linux": {
            "namespaces": coracle_plan::namespace_kinds(),
            "capabilities": coracle_plan::capability_names(),
            "cgroup": {"v1": true, "v2": true, "systemd": true, "systemdUser": true, "rdma": true},
            "seccomp": coracle_plan::seccomp_features(&coracle_sys::seccomp::flag_known),
            "apparmor": {"enabled": true},
            "selinux": {"enabled": true},
            "intelRdt": {"enabled": true, "schemata": true, "monitoring": true},
            "memoryPolicy": coracle_plan::memory_policy_features(),
            "mountExtensions": {"idmap": {"enabled": true}},
            "netDevices": {"enabled": true},
        },
        "annotations": {
            "io.github.seccomp.libseccomp.version": coracle_plan::libseccomp_version(),
            "org.opencontainers.runc.checkpoint.enabled": "true",
            "run.oci.crun.checkpoint.enabled": "true",
        },
        "potentiallyUnsafeConfigAnnotations": ["org.systemd.property.", "org.criu.config", "run.oci.delegate-cgroup", "run.oci.hooks.", "run.oci.keep_original_groups", "run.oci.mount_context_type", "run.oci.pidfd_receiver", "run.oci.seccomp_fail_unknown_syscall", "run.oci.systemd.subgroup"],
    });
    let text = serde_json::to_string_pretty(&value).map_err(|e| e.to_string())?;
    crate::inspect::answer(&format!("{text}\n")).map(|()| 0)
}
