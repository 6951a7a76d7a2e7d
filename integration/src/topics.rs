//! The table of topics. One file per topic, named like the rooms of the runtime.

use crate::harness::Test;

mod crash;
mod lifecycle;

const TOPICS: &[(&str, &[Test])] = &[("lifecycle", lifecycle::TESTS), ("crash", crash::TESTS)];

/// Every test with its full name, topic/test.
pub(crate) fn all() -> impl Iterator<Item = (String, &'static Test)> {
    TOPICS
        .iter()
        .flat_map(|(topic, tests)| tests.iter().map(move |test| (format!("{topic}/{}", test.name), test)))
}
