//! The table of topics. One file per topic, named like the rooms of the runtime.

use crate::harness::Test;

mod activation;
mod cgroup;
mod cli;
mod console;
mod crash;
mod creds;
mod crowd;
mod devices;
mod errors;
mod exec;
mod features;
mod hooks;
mod idmap;
mod ids;
mod image;
mod image_crash;
mod image_options;
mod image_trees;
mod lifecycle;
mod limits;
mod masks;
mod mistakes;
mod mount_options;
mod mounts;
mod namespaces;
mod net_devices;
mod old_kernels;
mod random;
mod registry;
mod resources;
mod rootless;
mod seccomp;
mod seccomp_agent;
mod security;
mod selinux;
mod state;
mod update;

const TOPICS: &[(&str, &[Test])] = &[
    ("lifecycle", lifecycle::TESTS),
    ("state", state::TESTS),
    ("activation", activation::TESTS),
    ("namespaces", namespaces::TESTS),
    ("net_devices", net_devices::TESTS),
    ("ids", ids::TESTS),
    ("mounts", mounts::TESTS),
    ("mount_options", mount_options::TESTS),
    ("idmap", idmap::TESTS),
    ("old_kernels", old_kernels::TESTS),
    ("devices", devices::TESTS),
    ("masks", masks::TESTS),
    ("cgroup", cgroup::TESTS),
    ("update", update::TESTS),
    ("resources", resources::TESTS),
    ("creds", creds::TESTS),
    ("limits", limits::TESTS),
    ("seccomp", seccomp::TESTS),
    ("seccomp_agent", seccomp_agent::TESTS),
    ("hooks", hooks::TESTS),
    ("console", console::TESTS),
    ("cli", cli::TESTS),
    ("exec", exec::TESTS),
    ("errors", errors::TESTS),
    ("features", features::TESTS),
    ("mistakes", mistakes::TESTS),
    ("security/calls", security::calls::TESTS),
    ("security/image", security::image::TESTS),
    ("security/process", security::process::TESTS),
    ("security/race", security::race::TESTS),
    ("security/host", security::host::TESTS),
    ("security/words", security::words::TESTS),
    ("selinux", selinux::TESTS),
    ("random", random::TESTS),
    ("crash", crash::TESTS),
    ("crowd", crowd::TESTS),
    ("rootless", rootless::TESTS),
    ("image", image::TESTS),
    ("image_options", image_options::TESTS),
    ("image_trees", image_trees::TESTS),
    ("image_crash", image_crash::TESTS),
    ("registry", registry::TESTS),
];

/// Every test with its full name, topic/test.
pub(crate) fn all() -> impl Iterator<Item = (String, &'static Test)> {
    TOPICS
        .iter()
        .flat_map(|(topic, tests)| tests.iter().map(move |test| (format!("{topic}/{}", test.name), test)))
}
