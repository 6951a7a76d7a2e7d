//! Layers: a compressed tar stream, verified while it is unpacked.
//!
//! [`stream`] reads, hashes and inflates on threads of its own; [`apply`] turns entries into changes of a root file
//! system; [`whiteout`] knows which names a layer takes away. Image specification, layer.md.

pub mod apply;
pub mod inflate;
mod lower;
pub mod ring;
pub mod stream;
mod whiteout;
