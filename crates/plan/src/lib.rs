#![forbid(unsafe_code)]
//! From a configuration, a request and a host to a [`Plan`](steps::Plan), or a refusal: pure, no syscalls, no files.
//!
//! Every refusal is made here, before anything is touched. One module a topic; `order` puts their steps into the one
//! order that works and says why.

mod affinity;
mod annotations;
mod cgroup;
pub mod config;
mod creds;
mod devices;
mod hooks;
pub mod inputs;
mod labels;
mod limits;
mod mounts;
mod namespaces;
pub mod near;
mod net_devices;
mod order;
pub mod problem;
mod process;
mod rdt;
mod seccomp;
pub mod show;
pub mod steps;

pub use annotations::pidfd_receiver;
pub use cgroup::{in_group_below, update};
pub use creds::capability_names;
pub use hooks::hooks_of;
pub use limits::{memory_policy_features, rlimit_name, rlimit_names};
pub use mounts::{known_options, namespace_kinds};
pub use oci_spec::runtime as oci;
pub use order::{exec, plan};
pub use process::{names_a_variable, program, startable};
pub use seccomp::{libseccomp_version, seccomp_features, seccomp_key};
