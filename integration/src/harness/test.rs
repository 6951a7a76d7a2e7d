//! A test as data: its name, what it needs of the machine, and where a peer is known to differ.

use super::{Ctx, Result, host::Host};

/// One test, as the table of its topic has it.
pub(crate) struct Test {
    /// The function's name.
    pub(crate) name: &'static str,
    /// What the machine must have; the first missing one is the reason of the skip.
    pub(crate) needs: &'static [Need],
    /// (runtime, why): there the test is expected to fail, and its failure is printed as a skip. Never for coracle.
    pub(crate) known: &'static [(&'static str, &'static str)],
    /// The test.
    pub(crate) run: fn(&Ctx) -> Result,
}

/// What a test can need.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Need {
    /// Real root. Implied, unless the test asks for `Unprivileged`.
    Root,
    /// A user with subordinate ids, as whom the tests themselves run.
    Unprivileged,
    /// /sys/fs/cgroup is one cgroup2 mount.
    CgroupV2,
    /// The controller can be used below /sys/fs/cgroup, whichever version.
    Controller(&'static str),
    /// systemd is process 1 and answers.
    Systemd,
    /// The kernel is at least this one.
    Kernel(u32, u32),
    /// The kernel has this kind of namespace.
    Namespace(&'static str),
    /// The runtime has this subcommand (`coracle features` is not `runc features` everywhere).
    Command(&'static str),
    /// The file or program exists on the machine.
    File(&'static str),
    /// The file does not exist on the machine.
    NoFile(&'static str),
    /// Whoever runs the tests may write to the file.
    Writable(&'static str),
    /// Whoever runs the tests has this capability, by its number: capability.h.
    Capability(&'static str, u32),
    /// The runtime under test is one of these: for promises that are nobody else's.
    Runtime(&'static str),
}

impl Need {
    /// Why this machine cannot serve the need; `None` where it can.
    pub(crate) fn missing(self, host: &Host, ctx: &Ctx) -> Option<String> {
        let (there, reason) = match self {
            Need::Root => (host.root, "needs root".into()),
            Need::Unprivileged => {
                (host.subordinate_ids, "needs an unprivileged user with subordinate ids".into())
            }
            Need::CgroupV2 => (host.cgroup2, "needs /sys/fs/cgroup to be cgroup2".into()),
            Need::Controller(name) => (host.controller(name), format!("needs the {name} controller")),
            Need::Systemd => (host.systemd, "needs systemd as process 1".into()),
            Need::Kernel(major, minor) => {
                (host.kernel >= (major, minor), format!("needs Linux {major}.{minor}"))
            }
            Need::Namespace(kind) => {
                (Host::has(&format!("/proc/self/ns/{kind}")), format!("needs {kind} namespaces"))
            }
            Need::Command(name) => (ctx.has_command(name), format!("{} has no command {name}", ctx.kind)),
            Need::File(path) => (Host::has(path), format!("needs {path}")),
            Need::NoFile(path) => (!Host::has(path), format!("needs a machine without {path}")),
            Need::Writable(path) => {
                (std::fs::OpenOptions::new().write(true).open(path).is_ok(), format!("needs to write {path}"))
            }
            Need::Capability(name, number) => (host.capabilities & 1 << number != 0, format!("needs {name}")),
            Need::Runtime(name) => (ctx.kind == name, format!("a promise of {name} alone")),
        };
        (!there).then_some(reason)
    }
}

/// The table of a topic: `name [needs]? known "runtime": "why"*;` for each test function.
macro_rules! tests {
    ($($name:ident $([$($need:expr),+])? $(known $runtime:literal : $why:literal)*;)+) => {
        /// The tests of this topic.
        pub(crate) const TESTS: &[$crate::harness::Test] = &[$($crate::harness::Test {
            name: stringify!($name),
            needs: &[$($($need),+)?],
            known: &[$(($runtime, $why)),*],
            run: $name,
        }),+];
    };
}
pub(crate) use tests;
