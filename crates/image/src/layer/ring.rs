//! A bounded stream of chunks from one thread to several, with the chunks used again.
//!
//! Bounded, so that a fast inflater does not fill the memory while the disk is slow; used again, so that the pages
//! are faulted in once (122 MB through fresh buffers cost 31,000 page faults).

use crate::error::{Error, Result};
use crate::tar::Input;
use std::io::{self, BufRead, Read};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Mutex};

/// Bytes of a chunk.
pub const CHUNK: usize = 256 << 10;
/// Chunks in flight to each receiver.
const DEPTH: usize = 4;

/// Buffers waiting to be used again.
#[derive(Default)]
struct Pool(Mutex<Vec<Vec<u8>>>);

/// A filled buffer; goes back to the pool when its last holder lets go.
struct Chunk {
    bytes: Vec<u8>,
    pool: Arc<Pool>,
}

impl Drop for Chunk {
    fn drop(&mut self) {
        let bytes = std::mem::take(&mut self.bytes);
        if let Ok(mut pool) = self.pool.0.lock() {
            pool.push(bytes);
        }
    }
}

type Message = Result<Arc<Chunk>>;

/// The end that fills chunks.
pub struct Sender {
    pool: Arc<Pool>,
    to: Vec<SyncSender<Message>>,
}

/// The end that reads them, as one stream of bytes.
pub struct Receiving {
    from: Receiver<Message>,
    current: Option<Arc<Chunk>>,
    at: usize,
    total: u64,
}

/// A stream with `N` readers, each of which gets every byte.
pub fn channel<const N: usize>() -> (Sender, [Receiving; N]) {
    let mut to = Vec::with_capacity(N);
    let readers = std::array::from_fn(|_| {
        let (sender, from) = sync_channel(DEPTH);
        to.push(sender);
        Receiving { from, current: None, at: 0, total: 0 }
    });
    (Sender { pool: Arc::default(), to }, readers)
}

impl Sender {
    /// Sends everything that `source` yields, then its end; an error of the source is the readers' error.
    /// Returns the bytes sent. Errors: the source's. A reader that has gone away ends the stream early without one.
    pub fn send_all(&self, source: &mut impl Read) -> Result<u64> {
        let mut total = 0;
        loop {
            let chunk = match self.fill(source) {
                Ok(chunk) => chunk,
                Err(e) => {
                    self.send(&Err(e.clone()));
                    return Err(e);
                }
            };
            total += chunk.bytes.len() as u64;
            if chunk.bytes.is_empty() || !self.send(&Ok(Arc::new(chunk))) {
                return Ok(total);
            }
        }
    }

    fn fill(&self, source: &mut impl Read) -> Result<Chunk> {
        let used = self.pool.0.lock().ok().and_then(|mut pool| pool.pop());
        let mut bytes = used.unwrap_or_default();
        bytes.resize(CHUNK, 0);
        let mut filled = 0;
        while filled < CHUNK {
            match source.read(&mut bytes[filled..]) {
                Ok(0) => break,
                Ok(n) => filled += n,
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) => return Err(Error::from(e)),
            }
        }
        bytes.truncate(filled);
        Ok(Chunk { bytes, pool: self.pool.clone() })
    }

    fn send(&self, message: &Message) -> bool {
        self.to.iter().all(|to| to.send(message.clone()).is_ok())
    }
}

impl Receiving {
    /// Bytes read so far.
    pub fn total(&self) -> u64 {
        self.total
    }

    /// Reads to the end and throws away what comes.
    pub fn drain(&mut self) -> Result<()> {
        self.each(|_| {})
    }

    /// Reads to the end.
    pub fn each(&mut self, mut take: impl FnMut(&[u8])) -> Result<()> {
        loop {
            let bytes = self.fill_buf()?;
            if bytes.is_empty() {
                return Ok(());
            }
            take(bytes);
            let n = bytes.len();
            self.consume(n);
        }
    }
}

impl BufRead for Receiving {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        if self.current.as_ref().is_none_or(|c| self.at == c.bytes.len()) {
            self.current = self.from.recv().ok().transpose()?;
            self.at = 0;
        }
        Ok(self.current.as_ref().map_or(&[], |c| &c.bytes[self.at..]))
    }

    fn consume(&mut self, n: usize) {
        self.at += n;
        self.total += n as u64;
    }
}

impl Read for Receiving {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let have = self.fill_buf()?;
        let n = have.len().min(buffer.len());
        buffer[..n].copy_from_slice(&have[..n]);
        self.consume(n);
        Ok(n)
    }
}

impl Input for Receiving {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_reader_gets_every_byte() {
        let data: Vec<u8> = (0..3 * CHUNK + 17).map(|i| (i % 251) as u8).collect();
        let (sender, [mut a, mut b]) = channel::<2>();
        let copy = data.clone();
        let sending = std::thread::spawn(move || sender.send_all(&mut &copy[..]));
        let counting = std::thread::spawn(move || b.drain().map(|()| b.total()));
        let mut got = Vec::new();
        a.each(|bytes| got.extend_from_slice(bytes)).unwrap();
        assert_eq!((got == data, counting.join().unwrap().unwrap()), (true, data.len() as u64));
        assert_eq!(sending.join().unwrap().unwrap(), data.len() as u64);
    }

    #[test]
    fn a_reader_that_leaves_stops_the_sender_and_errors_reach_the_readers() {
        let (sender, [a]) = channel::<1>();
        drop(a);
        assert!(sender.send_all(&mut io::repeat(1)).unwrap() <= 8 * CHUNK as u64);
        let (sender, [mut a]) = channel::<1>();
        let broken = io::Error::other("broken");
        assert!(sender.send_all(&mut Failing(Some(broken))).is_err());
        assert!(a.drain().is_err());
    }

    struct Failing(Option<io::Error>);
    impl Read for Failing {
        fn read(&mut self, _: &mut [u8]) -> io::Result<usize> {
            Err(self.0.take().unwrap_or_else(|| io::Error::other("again")))
        }
    }
}
