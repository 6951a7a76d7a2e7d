//! One layer as a stream of plain tar bytes, verified on the way.
//!
//! Two threads beside the reader's own: one reads, hashes and inflates the blob; one hashes the plain bytes for the
//! diffID. With SHA-NI neither hash is ever the slowest, so that verification costs no time on two processors.

use super::inflate::{Limited, inflater};
use super::ring::{self, Receiving};
use crate::blob::Blob;
use crate::digest::{self, Digest, Hasher};
use crate::error::{Doing, Error, Kind, Result};
use std::io::{self, Read};
use std::thread::JoinHandle;

/// What must turn out true of a layer.
#[derive(Debug, Clone)]
pub struct Expected {
    /// The blob's digest; a docker archive gives none.
    pub blob: Option<Digest>,
    /// The plain tar's digest; `None` while a layer is only being looked at.
    pub diff_id: Option<Digest>,
    /// The most plain bytes.
    pub most: u64,
}

/// A layer on its way.
pub struct Stream {
    name: String,
    expected: Expected,
    /// The plain tar bytes.
    pub tar: Receiving,
    inflating: JoinHandle<Result<Option<Digest>>>,
    hashing: JoinHandle<Result<Digest>>,
}

impl Stream {
    /// Begins to read a layer; `name` is for messages.
    pub fn start(name: String, blob: Blob, expected: Expected) -> Result<Self> {
        let (sender, [tar, mut hashed]) = ring::channel::<2>();
        let (most, hasher) = (expected.most, expected.blob.as_ref().map(|d| d.algorithm().hasher()));
        let inflating = spawn("inflate", move || {
            let mut source = Hashing { inner: blob, hasher };
            let plain =
                inflater(&mut source).and_then(|plain| sender.send_all(&mut Limited::new(plain, most)));
            drop(sender);
            plain?;
            source.finish()
        })?;
        let mut hasher = diff_algorithm(&expected).hasher();
        let hashing = spawn("diff-id", move || {
            hashed.each(|bytes| hasher.update(bytes))?;
            Ok(hasher.finish())
        })?;
        Ok(Self { name, expected, tar, inflating, hashing })
    }

    /// Reads the rest, waits, and checks both digests.
    pub fn finish(self) -> Result<()> {
        let name = self.name.clone();
        self.check().doing(|| format!("layer {name}"))
    }

    fn check(mut self) -> Result<()> {
        self.tar.drain()?;
        if let (Some(wanted), Some(got)) = (&self.expected.blob, join(self.inflating)?) {
            digest::expect("blob", wanted, &got)?;
        }
        let got = join(self.hashing)?;
        self.expected
            .diff_id
            .as_ref()
            .map_or(Ok(()), |wanted| digest::expect("uncompressed layer", wanted, &got))
    }

    /// How it is called in messages.
    pub fn name(&self) -> &str {
        &self.name
    }
}

fn diff_algorithm(expected: &Expected) -> digest::Algorithm {
    expected.diff_id.as_ref().map_or(digest::Algorithm::Sha256, Digest::algorithm)
}

fn spawn<T: Send + 'static>(name: &str, work: impl FnOnce() -> T + Send + 'static) -> Result<JoinHandle<T>> {
    std::thread::Builder::new().name(name.into()).stack_size(256 << 10).spawn(work).doing(|| "start a thread")
}

fn join<T>(thread: JoinHandle<Result<T>>) -> Result<T> {
    thread.join().unwrap_or_else(|_| Err(Error::new(Kind::Corrupt, "a thread gave up")))
}

/// Hashes what is read through it.
struct Hashing<R> {
    inner: R,
    hasher: Option<Hasher>,
}

impl<R: Read> Hashing<R> {
    /// The digest, once everything was read.
    fn finish(mut self) -> Result<Option<Digest>> {
        io::copy(&mut self, &mut io::sink())?;
        Ok(self.hasher.map(Hasher::finish))
    }
}

impl<R: Read> Read for Hashing<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let n = self.inner.read(buffer)?;
        if let Some(hasher) = &mut self.hasher {
            hasher.update(&buffer[..n]);
        }
        Ok(n)
    }
}
