//! The table of topics. One file per topic, named like the rooms of the runtime.

use crate::harness::Test;

mod cgroup;
mod console;
mod crash;
mod creds;
mod devices;
mod errors;
mod hooks;
mod ids;
mod lifecycle;
mod limits;
mod masks;
mod mounts;
mod namespaces;
mod rootless;
mod seccomp;
mod security;
mod state;

const TOPICS: &[(&str, &[Test])] = &[
    ("lifecycle", lifecycle::TESTS),
    ("state", state::TESTS),
    ("namespaces", namespaces::TESTS),
    ("ids", ids::TESTS),
    ("mounts", mounts::TESTS),
    ("devices", devices::TESTS),
    ("masks", masks::TESTS),
    ("cgroup", cgroup::TESTS),
    ("creds", creds::TESTS),
    ("limits", limits::TESTS),
    ("seccomp", seccomp::TESTS),
    ("hooks", hooks::TESTS),
    ("console", console::TESTS),
    ("errors", errors::TESTS),
    ("security", security::TESTS),
    ("crash", crash::TESTS),
    ("rootless", rootless::TESTS),
];

/// Every test with its full name, topic/test.
pub(crate) fn all() -> impl Iterator<Item = (String, &'static Test)> {
    TOPICS
        .iter()
        .flat_map(|(topic, tests)| tests.iter().map(move |test| (format!("{topic}/{}", test.name), test)))
}
