#![forbid(unsafe_code)]
//! Does what the Plan says: probes the host, prepares, clones, answers the child, keeps the record; and what later
//! commands do to the container. Never looks at config.json.

mod agent;
pub mod cgroup;
pub mod checkpoint;
mod child;
pub mod exec;
pub mod failure;
pub mod hooks;
mod idmap;
pub mod lifecycle;
mod net_devices;
mod network;
pub mod notify;
mod parent;
mod pid_file;
pub mod probe;
mod rdt;
pub mod relay;
pub mod seal;
mod sources;
mod starting;
mod step;
mod wire;

pub use failure::Failure;
pub use parent::{Created, How, create, root_mount};
