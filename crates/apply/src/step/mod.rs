//! The acts of the child, a file a topic, as in the plan.

pub(crate) mod attributes;
pub(crate) mod console;
pub(crate) mod creds;
pub(crate) mod devices;
pub(crate) mod masks;
pub(crate) mod mounts;
pub(crate) mod path;
pub(crate) mod program;
pub(crate) mod root;
