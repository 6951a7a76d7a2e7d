//! Tar archives, read as a stream: an own walk of the headers.
//!
//! An own walk, because two readers that disagree about where an entry ends let an image show one list of files to
//! a scanner and another to the runtime (CVE-2025-62518, RUSTSEC-2026-0068). Where GNU tar, Go and libarchive read
//! the same bytes differently, this one refuses. tar(5), POSIX pax(1) "ustar Interchange Format", GNU tar manual
//! "Basic Tar Format".
//!
//! Not here: what an entry means for a root file system (crate::layer).

mod header;
mod pax;
mod sparse;

use crate::error::{Error, Kind, Result, fail, shown};
use crate::limits::Limits;
use header::{BLOCK, Block, Flag};
use pax::Records;
pub use sparse::Segment;
use std::io::BufRead;

/// What an entry is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum What {
    /// A regular file.
    File,
    /// A directory.
    Directory,
    /// A symbolic link.
    Symlink,
    /// Another name of an earlier file.
    Hardlink,
    /// A character device.
    Character,
    /// A block device.
    Block,
    /// A named pipe.
    Fifo,
}

/// One entry, with extended headers applied.
#[derive(Debug, Clone, PartialEq)]
pub struct Entry {
    /// Its name, as written: any bytes but NUL, never empty.
    pub path: Vec<u8>,
    /// Where a link points, as written.
    pub target: Vec<u8>,
    /// What it is.
    pub what: What,
    /// Permission bits, with set-id and sticky.
    pub mode: u32,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Bytes of the file, holes counted.
    pub size: u64,
    /// Modification time: seconds and nanoseconds since 1970.
    pub mtime: (i64, u32),
    /// Device number.
    pub device: (u32, u32),
    /// Extended attributes.
    pub xattrs: Vec<(Vec<u8>, Vec<u8>)>,
    /// Where the data goes in a sparse file; `None` for an ordinary one.
    pub sparse: Option<Vec<Segment>>,
}

/// A stream that can jump ahead.
pub trait Input: BufRead {
    /// Passes over `n` bytes. Errors: the stream ends before.
    fn skip(&mut self, mut n: u64) -> std::io::Result<()> {
        while n > 0 {
            let have = self.fill_buf()?.len() as u64;
            if have == 0 {
                return Err(truncated().into());
            }
            let step = have.min(n);
            self.consume(step as usize);
            n -= step;
        }
        Ok(())
    }
}

impl Input for &[u8] {}
impl<R: std::io::Read> Input for std::io::BufReader<R> {}

fn truncated() -> Error {
    Error::new(Kind::Corrupt, "the archive ends in the middle of an entry")
}

/// Reads entries one after the other.
pub struct Reader<I> {
    input: I,
    limits: Limits,
    /// Bytes of the current entry's data that were not read yet.
    left: u64,
    /// Bytes after the data up to the next block.
    padding: u64,
    /// Where in the archive the next byte is.
    position: u64,
    over: bool,
}

impl<I: Input> Reader<I> {
    /// Reads from `input`.
    pub fn new(input: I, limits: &Limits) -> Self {
        Self { input, limits: limits.clone(), left: 0, padding: 0, position: 0, over: false }
    }

    /// Where the current entry's data begins, counted from the start of the archive.
    pub fn position(&self) -> u64 {
        self.position
    }

    /// Gives the stream back, behind the archive's end.
    pub fn into_input(self) -> I {
        self.input
    }

    /// The next entry; `None` behind the last.
    pub fn next_entry(&mut self) -> Result<Option<Entry>> {
        self.skip_rest()?;
        let (mut long_name, mut long_target, mut records) = (None, None, None);
        loop {
            let extended = long_name.is_some() || long_target.is_some() || records.is_some();
            let Some(block) = self.block()? else {
                if extended {
                    fail!(Corrupt, "the archive ends behind an extended header");
                }
                return Ok(None);
            };
            match block.flag()? {
                Flag::LongName => once(&mut long_name, self.extension(&block)?.text()?)?,
                Flag::LongTarget => once(&mut long_target, self.extension(&block)?.text()?)?,
                Flag::Records => once(&mut records, pax::parse(&self.extension(&block)?.0, &self.limits)?)?,
                Flag::GlobalRecords => pax::check_global(&self.extension(&block)?.0, &self.limits)?,
                Flag::Entry(what) => {
                    let names = (long_name, long_target);
                    return self.entry(block, what, names, records.unwrap_or_default()).map(Some);
                }
            }
        }
    }

    /// The next piece of the entry's data, as it lies in the archive; empty behind its end.
    pub fn data(&mut self) -> Result<&[u8]> {
        if self.left == 0 {
            return Ok(&[]);
        }
        let have = self.input.fill_buf()?;
        if have.is_empty() {
            return Err(truncated());
        }
        let most = usize::try_from(self.left).unwrap_or(usize::MAX).min(have.len());
        Ok(&have[..most])
    }

    /// Marks the first `n` bytes of [`data`](Self::data) as done with.
    pub fn consume(&mut self, n: usize) {
        self.input.consume(n);
        self.left -= n as u64;
        self.position += n as u64;
    }

    fn skip_rest(&mut self) -> Result<()> {
        let n = self.left + self.padding;
        (self.left, self.padding) = (0, 0);
        self.position += n;
        Ok(self.input.skip(n)?)
    }

    /// The next header block; `None` at the end, which is two blocks of zeros or the stream's own.
    fn block(&mut self) -> Result<Option<Block>> {
        if self.over {
            return Ok(None);
        }
        let first = self.raw_block()?;
        if first.as_ref().is_some_and(|b| !b.is_zero()) {
            return first.expect("just looked").checked().map(Some);
        }
        if first.is_some() && self.raw_block()?.is_some_and(|b| !b.is_zero()) {
            fail!(Corrupt, "entries behind a block of zeros: readers disagree whether they count");
        }
        self.over = true;
        Ok(None)
    }

    fn raw_block(&mut self) -> Result<Option<Block>> {
        let mut bytes = [0u8; BLOCK];
        let mut filled = 0;
        while filled < BLOCK {
            let have = self.input.fill_buf()?;
            if have.is_empty() {
                if filled == 0 {
                    return Ok(None);
                }
                return Err(truncated());
            }
            let n = have.len().min(BLOCK - filled);
            bytes[filled..filled + n].copy_from_slice(&have[..n]);
            self.input.consume(n);
            filled += n;
        }
        self.position += BLOCK as u64;
        Ok(Some(Block(bytes)))
    }

    fn set_data(&mut self, size: u64) {
        self.left = size;
        self.padding = size.next_multiple_of(BLOCK as u64) - size;
    }

    /// The whole data of an extended header.
    fn extension(&mut self, block: &Block) -> Result<Extension> {
        let size = block.size()?;
        if size > self.limits.header_bytes {
            fail!(Limit, "an extended header of {size} bytes; at most {} are read", self.limits.header_bytes);
        }
        self.set_data(size);
        let mut bytes = Vec::with_capacity(size as usize);
        while self.left > 0 {
            let n = {
                let piece = self.data()?;
                bytes.extend_from_slice(piece);
                piece.len()
            };
            self.consume(n);
        }
        self.skip_rest()?;
        Ok(Extension(bytes))
    }

    fn entry(
        &mut self,
        block: Block,
        what: What,
        long: (Option<Vec<u8>>, Option<Vec<u8>>),
        records: Records,
    ) -> Result<Entry> {
        let mut sparse = records.sparse.clone();
        let path = pick(long.0, records.path, || block.path())?;
        let target = pick(long.1, records.target, || Ok(block.target()))?;
        let stored = records.size.map_or_else(|| block.size(), Ok)?;
        let what = directory_by_slash(what, &path, stored)?;
        if stored > 0 && what != What::File {
            fail!(
                Corrupt,
                "entry {}: data behind something that is no file; readers disagree about it",
                shown(&path)
            );
        }
        self.set_data(stored);
        let mut entry = Entry {
            path,
            target,
            what,
            mode: block.mode()?,
            uid: id(records.uid.map_or_else(|| block.uid(), Ok)?)?,
            gid: id(records.gid.map_or_else(|| block.gid(), Ok)?)?,
            size: stored,
            mtime: records.mtime.map_or_else(|| block.mtime(), Ok)?,
            device: block.device()?,
            xattrs: records.xattrs,
            sparse: None,
        };
        if block.is_old_sparse() {
            sparse.old_gnu(&block, || self.raw_block()?.ok_or_else(truncated))?;
        }
        if what == What::File {
            sparse.apply(&mut entry, self)?;
        }
        self.check_names(&entry)?;
        Ok(entry)
    }

    fn check_names(&self, entry: &Entry) -> Result<()> {
        for name in [&entry.path, &entry.target] {
            if name.len() > self.limits.name_bytes {
                fail!(
                    Limit,
                    "a name of {} bytes, {}; at most {} are taken",
                    name.len(),
                    shown(name),
                    self.limits.name_bytes
                );
            }
            if name.contains(&0) {
                fail!(Corrupt, "name {} holds a NUL", shown(name));
            }
        }
        let is_link = matches!(entry.what, What::Symlink | What::Hardlink);
        if entry.path.is_empty() || (is_link && entry.target.is_empty()) {
            fail!(Corrupt, "entry {}: an empty name or link target", shown(&entry.path));
        }
        Ok(())
    }
}

/// Data of an extended header.
struct Extension(Vec<u8>);

impl Extension {
    /// A GNU long name: up to the terminating NUL.
    fn text(mut self) -> Result<Vec<u8>> {
        let end = self.0.iter().position(|&b| b == 0).unwrap_or(self.0.len());
        if self.0[end..].iter().any(|&b| b != 0) {
            fail!(Corrupt, "a long name goes on behind its NUL");
        }
        self.0.truncate(end);
        Ok(self.0)
    }
}

fn once<T>(slot: &mut Option<T>, value: T) -> Result<()> {
    if slot.replace(value).is_some() {
        fail!(Corrupt, "two extended headers of one kind before one entry; readers disagree which counts");
    }
    Ok(())
}

/// The one name that applies. A GNU long name beside a different PAX name: readers disagree.
fn pick(
    long: Option<Vec<u8>>,
    pax: Option<Vec<u8>>,
    short: impl FnOnce() -> Result<Vec<u8>>,
) -> Result<Vec<u8>> {
    match (long, pax) {
        (Some(a), Some(b)) if a != b => {
            fail!(
                Corrupt,
                "an entry is called {} by GNU's header and {} by PAX; readers disagree",
                shown(&a),
                shown(&b)
            )
        }
        (Some(name), _) | (None, Some(name)) => Ok(name),
        (None, None) => short(),
    }
}

/// Old archives mark a directory only by the slash behind its name.
fn directory_by_slash(what: What, path: &[u8], size: u64) -> Result<What> {
    if what != What::File || !path.ends_with(b"/") {
        return Ok(what);
    }
    if size > 0 {
        fail!(Corrupt, "entry {}: a file's data behind a directory's name", shown(path));
    }
    Ok(What::Directory)
}

/// An id that the kernel has: 2^32-1 means "leave as it is" to chown(2).
fn id(number: u64) -> Result<u32> {
    match u32::try_from(number) {
        Ok(n) if n != u32::MAX => Ok(n),
        _ => Err(Error::new(Kind::Corrupt, format!("owner or group {number} is more than Linux has"))),
    }
}

#[cfg(test)]
mod tests;
