//! A blob: some bytes of a file, read from wherever they lie without moving the file's own position.

use crate::error::Result;
use crate::tar::Input;
use std::fs::File;
use std::io::{self, BufRead, Read};
use std::os::unix::fs::FileExt;
use std::sync::Arc;

/// Bytes `start..start + length` of a file. Cheap to clone; each clone reads from the beginning.
#[derive(Debug)]
pub struct Blob {
    file: Arc<File>,
    start: u64,
    length: u64,
    at: u64,
}

impl Blob {
    /// A part of a file.
    pub fn new(file: Arc<File>, start: u64, length: u64) -> Self {
        Self { file, start, length, at: 0 }
    }

    /// Its bytes.
    pub fn len(&self) -> u64 {
        self.length
    }

    /// Whether it has none.
    pub fn is_empty(&self) -> bool {
        self.length == 0
    }

    /// The file that it lies in; a second handle on it when the blob was cloned.
    pub fn into_file(self) -> io::Result<File> {
        Arc::try_unwrap(self.file).or_else(|shared| shared.try_clone())
    }

    /// All of it; the caller has checked its length against a limit.
    pub fn bytes(&self) -> Result<Vec<u8>> {
        let mut all = vec![0; self.length as usize];
        self.file.read_exact_at(&mut all, self.start)?;
        Ok(all)
    }

    /// Its first bytes, as many of `N` as it has.
    pub fn magic<const N: usize>(&self) -> Result<Vec<u8>> {
        let mut head = vec![0; N.min(self.length as usize)];
        self.file.read_exact_at(&mut head, self.start)?;
        Ok(head)
    }
}

impl Clone for Blob {
    fn clone(&self) -> Self {
        Self::new(self.file.clone(), self.start, self.length)
    }
}

impl Read for Blob {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let most = usize::try_from(self.length - self.at).unwrap_or(usize::MAX).min(buffer.len());
        let n = self.file.read_at(&mut buffer[..most], self.start + self.at)?;
        self.at += n as u64;
        Ok(n)
    }
}

/// A blob read through a small buffer, for walking a tar's headers: passing over a file's data costs nothing.
pub struct Walk {
    blob: Blob,
    buffer: Vec<u8>,
    at: usize,
}

impl Walk {
    /// From the blob's beginning.
    pub fn new(blob: Blob) -> Self {
        Self { blob, buffer: Vec::new(), at: 0 }
    }
}

impl Read for Walk {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let have = self.fill_buf()?;
        let n = have.len().min(buffer.len());
        buffer[..n].copy_from_slice(&have[..n]);
        self.consume(n);
        Ok(n)
    }
}

impl BufRead for Walk {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        if self.at == self.buffer.len() {
            self.buffer.resize(4096, 0);
            let n = self.blob.read(&mut self.buffer)?;
            self.buffer.truncate(n);
            self.at = 0;
        }
        Ok(&self.buffer[self.at..])
    }

    fn consume(&mut self, n: usize) {
        self.at += n;
    }
}

impl Input for Walk {
    fn skip(&mut self, n: u64) -> io::Result<()> {
        let buffered = (self.buffer.len() - self.at) as u64;
        if n <= buffered {
            self.at += n as usize;
            return Ok(());
        }
        self.at = self.buffer.len();
        let beyond = n - buffered;
        if beyond > self.blob.length - self.blob.at {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        self.blob.at += beyond;
        Ok(())
    }
}
