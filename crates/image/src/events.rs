//! What is going on, for whoever shows it: this crate prints nothing.

/// One thing that happened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event<'a> {
    /// A layer is being unpacked: its number from 1, of how many, and its compressed bytes.
    Layer {
        /// From 1.
        number: usize,
        /// How many there are.
        of: usize,
        /// Its digest.
        digest: &'a str,
        /// Compressed bytes.
        bytes: u64,
    },
    /// Some bytes of a blob have arrived from a registry: so many of so many.
    Download {
        /// The blob.
        digest: &'a str,
        /// Bytes here.
        done: u64,
        /// Bytes in all.
        of: u64,
    },
    /// Something that the user should know but that stops nothing.
    Note(&'a str),
}

/// Someone who is told. May be told from several threads.
pub trait Events: Sync {
    /// Takes one event.
    fn event(&self, event: Event<'_>);
}

/// Someone who does not care.
pub struct Silent;

impl Events for Silent {
    fn event(&self, _: Event<'_>) {}
}
