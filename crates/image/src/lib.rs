//! Images: from a layout, an archive or a registry to a root file system and a config.json.
//!
//! What belongs here: reading and verifying images, unpacking layers, turning an image's configuration into a
//! bundle's, and the store that keeps pulled images. What does not: running a container (crates/plan and apply),
//! printing (src/). It is the only crate that may start threads; nothing of it runs in the runtime's commands.
//!
//! Every byte of an image is hostile. Digests, sizes, names, numbers and media types are parsed into types that
//! cannot hold a bad value ([`digest`], [`manifest`]); everything is limited ([`limits`]); files are opened beneath
//! a directory descriptor, never by a path that the image chose (rootfs); and a second wall stands around the
//! extraction (wall).
#![forbid(unsafe_code)]

pub mod blob;
pub mod bundle;
pub mod config;
pub mod digest;
pub mod error;
pub mod events;
pub mod front;
pub mod layer;
pub mod limits;
pub mod manifest;
pub mod names;
pub mod platform;
pub mod pull;
pub mod reference;
pub mod registry;
pub mod rootfs;
pub mod rootless;
pub mod source;
pub mod store;
pub mod tar;
pub mod unpack;
pub mod wall;

pub use error::{Error, Kind, Result};
