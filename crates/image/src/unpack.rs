//! Layers become a root file system: one confined thread applies them, while others inflate and hash ahead.
//!
//! The layer after the one being applied is already being inflated, into its bounded ring. The order of layers is
//! the image's: later ones see earlier ones.

use crate::error::{Doing, Error, Kind, Result};
use crate::events::{Event, Events};
use crate::layer::apply::{Applier, Owners, Style, Summary, open_directory};
use crate::layer::inflate::{Limited, inflater};
use crate::layer::stream::{Expected, Stream};
use crate::limits::Limits;
use crate::rootfs::Rootfs;
use crate::source::Layer;
use crate::tar::Reader;
use crate::wall::{self, Wall};
use std::io::BufReader;
use std::os::fd::{AsFd, BorrowedFd};

/// Name of the new root file system within the work directory.
pub const ROOTFS: &std::ffi::CStr = c"rootfs";
/// Name of the directory beside it in which removed trees are taken apart.
pub const TRASH: &std::ffi::CStr = c"trash";

/// How to unpack.
pub struct How<'a> {
    /// Who owns the files.
    pub owners: Owners,
    /// Into one tree, or for an overlay.
    pub style: Style,
    /// What the layers below show, for an overlay.
    pub lower: Option<BorrowedFd<'a>>,
    /// How much is too much.
    pub limits: &'a Limits,
    /// Who is told.
    pub events: &'a dyn Events,
}

/// Unpacks layers into `work/rootfs`; `work/trash` must exist beside it. Both are verified empty by being new.
/// Errors: anything wrong with the image, or with the disk; what is in `work` then is worth nothing.
pub fn layers(layers: &[Layer], work: BorrowedFd, how: &How) -> Result<(Summary, Wall)> {
    std::thread::scope(|scope| {
        let extracting = std::thread::Builder::new().name("extract".into());
        let extracting =
            extracting.spawn_scoped(scope, || confined(layers, work, how)).doing(|| "start a thread")?;
        extracting.join().unwrap_or_else(|_| Err(Error::new(Kind::Corrupt, "the extracting thread gave up")))
    })
}

/// The threads that this one starts inherit its confinement: inflaters too.
fn confined(layers: &[Layer], work: BorrowedFd, how: &How) -> Result<(Summary, Wall)> {
    let root = open_directory(work, ROOTFS)?;
    let trash = open_directory(work, TRASH)?;
    let lower = how.lower.map(|fd| fd.try_clone_to_owned()).transpose()?;
    let wall = wall::raise(work, root.as_fd(), how.lower)?;
    let mut applier = Applier::new(Rootfs::new(root, trash), how.owners, how.style, lower, how.limits);
    let mut next = layers.first().map(|layer| start(layer, how.limits)).transpose()?;
    for (i, layer) in layers.iter().enumerate() {
        let Some(mut stream) = next.take() else { break };
        next = layers.get(i + 1).map(|layer| start(layer, how.limits)).transpose()?;
        let (number, of, bytes) = (i + 1, layers.len(), layer.blob.len());
        how.events.event(Event::Layer { number, of, digest: stream.name(), bytes });
        let name = stream.name().to_owned();
        stream.tar = applier.layer(stream.tar, i == 0).doing(|| format!("layer {name}"))?;
        stream.finish()?;
    }
    Ok((applier.finish()?, wall))
}

fn start(layer: &Layer, limits: &Limits) -> Result<Stream> {
    let name = layer.digest.as_ref().unwrap_or(&layer.diff_id).to_string();
    let expected = Expected {
        blob: layer.digest.clone(),
        diff_id: Some(layer.diff_id.clone()),
        most: limits.inflated(layer.blob.len()),
    };
    Stream::start(name, layer.blob.clone(), expected)
}

/// The highest user and group id of all layers, without unpacking them: for a message, once an owner could not be
/// set. Errors: anything wrong with the image.
pub fn highest_ids(layers: &[Layer], limits: &Limits) -> Result<(u32, u32)> {
    let mut highest = (0, 0);
    for layer in layers {
        let plain = inflater(layer.blob.clone())?;
        let limited = Limited::new(plain, limits.inflated(layer.blob.len()));
        let mut reader = Reader::new(BufReader::with_capacity(64 << 10, limited), limits);
        while let Some(entry) = reader.next_entry()? {
            highest = (highest.0.max(entry.uid), highest.1.max(entry.gid));
        }
    }
    Ok(highest)
}
