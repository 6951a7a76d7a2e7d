//! Whiteouts: the names that a layer takes away from the layers below it. layer.md, "Whiteouts".
//!
//! A whiteout must not touch what its own layer brings, in whichever order the two come. So the applier remembers
//! what is fresh (brought by the layer in hand), by inode of the directory and name, not by path: links alias paths.
//! A directory is purged at most once per layer, so that ten thousand opaque markers cost no more than one
//! (CVE-2026-95838).

use crate::error::{Result, fail, shown};
use crate::names::Place;
use std::collections::HashSet;
use std::collections::hash_map::RandomState;
use std::ffi::{CStr, CString};
use std::hash::BuildHasher;

/// What a name means.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Meaning {
    /// An ordinary entry.
    Entry,
    /// Hides this name, in the entry's directory, of the layers below.
    Hide(CString),
    /// Hides everything that the layers below have in the entry's directory.
    Opaque,
    /// The book-keeping of an old union file system (`.wh..wh.plnk`, `.wh..wh.aufs`).
    Nothing,
}

const PREFIX: &[u8] = b".wh.";
const OPAQUE: &[u8] = b".wh..wh..opq";
const RESERVED: &[u8] = b".wh..wh.";

/// Reads a name. Errors: a whiteout of nothing, of `.` or of `..`; anything inside of a whiteout.
pub(super) fn meaning(place: &Place) -> Result<Meaning> {
    if let Some(part) = place.parent.split(|&b| b == b'/').find(|p| p.starts_with(PREFIX)) {
        if part.starts_with(RESERVED) {
            return Ok(Meaning::Nothing);
        }
        fail!(Corrupt, "entry {}: something inside of a whiteout", shown(&place.path()));
    }
    let name = place.name.to_bytes();
    if name == OPAQUE {
        return Ok(Meaning::Opaque);
    }
    let Some(hidden) = name.strip_prefix(PREFIX) else { return Ok(Meaning::Entry) };
    if matches!(hidden, b"" | b"." | b"..") {
        fail!(Corrupt, "entry {}: an invalid whiteout", shown(&place.path()));
    }
    if name.starts_with(RESERVED) {
        return Ok(Meaning::Nothing);
    }
    Ok(Meaning::Hide(CString::new(hidden).expect("a place's name holds no NUL")))
}

/// Names in directories: as hashes, for 64 bits under a random key keep two million of any length in 32 MB.
#[derive(Default)]
pub(super) struct Names {
    hashes: HashSet<u64>,
    key: RandomState,
}

impl Names {
    /// Adds one; true if it is new.
    pub(super) fn add(&mut self, dir: u64, name: &CStr) -> bool {
        self.hashes.insert(self.key.hash_one((dir, name)))
    }

    pub(super) fn has(&self, dir: u64, name: &CStr) -> bool {
        self.hashes.contains(&self.key.hash_one((dir, name)))
    }
}

/// What the layer in hand has brought.
#[derive(Default)]
pub(super) struct Fresh {
    names: Names,
    /// Directories in which nothing of a lower layer is left, by inode.
    clean: HashSet<u64>,
    /// Directories of lower layers that this layer names, by inode: they stay, even when empty.
    listed: HashSet<u64>,
}

impl Fresh {
    pub(super) fn add_name(&mut self, dir: u64, name: &CStr) {
        self.names.add(dir, name);
    }

    pub(super) fn has_name(&self, dir: u64, name: &CStr) -> bool {
        self.names.has(dir, name)
    }

    /// Says that a directory holds nothing of lower layers.
    pub(super) fn add_clean(&mut self, dir: u64) {
        self.clean.insert(dir);
    }

    /// The same; true if that is news.
    pub(super) fn begin_purge(&mut self, dir: u64) -> bool {
        self.clean.insert(dir)
    }

    pub(super) fn is_clean(&self, dir: u64) -> bool {
        self.clean.contains(&dir)
    }

    pub(super) fn add_listed(&mut self, dir: u64) {
        self.listed.insert(dir);
    }

    pub(super) fn is_listed(&self, dir: u64) -> bool {
        self.listed.contains(&dir)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::limits::Limits;

    fn of(path: &str) -> Result<Meaning> {
        meaning(&Place::parse(path.as_bytes(), &Limits::default()).unwrap().unwrap())
    }

    #[test]
    fn meanings() {
        assert_eq!(of("a/.wh.b").unwrap(), Meaning::Hide(c"b".into()));
        assert_eq!(of("a/.wh..wh..opq").unwrap(), Meaning::Opaque);
        assert_eq!(of(".wh..wh.plnk/12.34").unwrap(), Meaning::Nothing);
        assert_eq!(of(".wh..hidden").unwrap(), Meaning::Hide(c".hidden".into()));
        assert_eq!(of("a/.whb").unwrap(), Meaning::Entry);
        for bad in [".wh.", "a/.wh..", "a/.wh...", ".wh.a/b"] {
            assert!(of(bad).is_err(), "{bad}");
        }
    }
}
