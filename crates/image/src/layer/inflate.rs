//! Which compression a stream has, and its inflater. Its first bytes tell: tools label layers wrongly (layer.md
//! allows gzip, zstd and none; zstd:chunked is zstd with skippable frames).

use crate::error::{Error, Kind, Result};
use flate2::bufread::MultiGzDecoder;
use std::io::{self, BufRead, BufReader, Read};

/// A stream's compression.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Compression {
    /// Plain.
    None,
    /// RFC 1952, any number of members.
    Gzip,
    /// RFC 8878, any number of frames.
    Zstd,
}

impl Compression {
    /// What a stream that begins so is compressed with.
    pub fn of(magic: &[u8]) -> Self {
        match magic {
            [0x1f, 0x8b, ..] => Self::Gzip,
            [0x28, 0xb5, 0x2f, 0xfd, ..] => Self::Zstd,
            // A skippable frame: 0x184D2A50 to 5F, little endian.
            [0x50..=0x5f, 0x2a, 0x4d, 0x18, ..] => Self::Zstd,
            _ => Self::None,
        }
    }

    /// Its name in a media type.
    pub fn name(self) -> &'static str {
        match self {
            Self::None => "plain",
            Self::Gzip => "gzip",
            Self::Zstd => "zstd",
        }
    }
}

/// The largest zstd window that is taken, as a power of two: 128 MiB, zstd's own default. It bounds the memory.
const ZSTD_WINDOW_LOG: u32 = 27;
/// Compressed bytes read at a time.
const READ: usize = 128 << 10;

/// Inflates whatever comes out of `source`, whose first bytes decide.
pub fn inflater<'a>(source: impl Read + Send + 'a) -> Result<Box<dyn Read + Send + 'a>> {
    let mut source = BufReader::with_capacity(READ, source);
    match Compression::of(source.fill_buf()?) {
        Compression::None => Ok(Box::new(source)),
        Compression::Gzip => Ok(Box::new(Gzip(MultiGzDecoder::new(source)))),
        Compression::Zstd => {
            let mut decoder = zstd::Decoder::with_buffer(source)?;
            decoder.window_log_max(ZSTD_WINDOW_LOG)?;
            Ok(Box::new(decoder))
        }
    }
}

/// Gzip whose errors say what they are about.
struct Gzip<R>(MultiGzDecoder<R>);

impl<R: BufRead> Read for Gzip<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.0.read(buffer).map_err(|e| match e.raw_os_error() {
            Some(_) => e,
            None => Error::new(Kind::Corrupt, format!("gzip: {e}")).into(),
        })
    }
}

/// Passes at most `left` bytes, then fails: an inflater's output, limited.
pub struct Limited<R> {
    inner: R,
    left: u64,
    most: u64,
}

impl<R: Read> Limited<R> {
    /// At most `most` bytes of `inner`.
    pub fn new(inner: R, most: u64) -> Self {
        Self { inner, left: most, most }
    }
}

impl<R: Read> Read for Limited<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let n = self.inner.read(buffer)?;
        if n as u64 > self.left {
            let text = format!(
                "inflates to more than {} bytes, which looks like a bomb; --max-size allows more",
                self.most
            );
            return Err(Error::new(Kind::Limit, text).into());
        }
        self.left -= n as u64;
        Ok(n)
    }
}
