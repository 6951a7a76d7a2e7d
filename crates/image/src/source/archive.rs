//! An image in a tar file: its headers are walked once, then each file is read from where it lies.
//!
//! Standard input and compressed archives go into an unnamed temporary file first: layers are read out of order.
//! Links within the archive (docker save before version 25 wrote them for layers that occur twice) are looked up by
//! name among its own entries; no file system is asked.

use super::Files;
use crate::blob::{Blob, Walk};
use crate::error::{Doing, Error, Kind, Result, fail, shown};
use crate::layer::inflate::{Compression, inflater};
use crate::limits::Limits;
use crate::names::Place;
use crate::tar::{Entry, Reader, What};
use coracle_sys::{fs, libc};
use std::collections::HashMap;
use std::ffi::CString;
use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::AsFd;
use std::os::unix::ffi::OsStrExt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// The most entries of an outer archive: two for each of the most layers, and room.
const MOST_ENTRIES: usize = 16 << 10;

/// Where a name's bytes lie, or which name it is another of.
enum Content {
    Bytes { start: u64, length: u64 },
    Link(Vec<u8>),
}

/// An archive whose names are known.
pub(super) struct Archive {
    file: Arc<File>,
    names: HashMap<Vec<u8>, Content>,
}

impl Archive {
    /// Opens `location`; `-` is standard input.
    pub(super) fn open(location: &str, limits: &Limits) -> Result<Self> {
        let file = match location {
            "-" => File::from(fs::inherited(0)?.try_clone_to_owned()?),
            path => File::open(path).doing(|| format!("open {path}"))?,
        };
        let stat = fs::fstat(file.as_fd())?;
        // A device may never end, and is no archive but by mistake.
        if location != "-" && matches!(stat.kind(), libc::S_IFCHR | libc::S_IFBLK) {
            fail!(Usage, "{}: a device; write - to read standard input", location.escape_debug());
        }
        let file = if stat.kind() == libc::S_IFREG {
            plain(file, stat.size as u64, limits)
        } else {
            spool(file, limits)
        };
        Self::index(file.doing(|| format!("read {location}"))?, limits)
            .doing(|| format!("read archive {location}"))
    }

    fn index(file: File, limits: &Limits) -> Result<Self> {
        let (length, file) = (file.metadata()?.len(), Arc::new(file));
        let mut reader = Reader::new(Walk::new(Blob::new(file.clone(), 0, length)), limits);
        let mut names = HashMap::new();
        let mut begun = false;
        let readable = |e: Error, begun: bool| match begun {
            true => e,
            false => Error::new(e.kind(), format!("neither an OCI layout nor an archive of an image: {e}")),
        };
        while let Some(entry) = reader.next_entry().map_err(|e| readable(e, begun))? {
            begun = true;
            let Some(place) = Place::parse(&entry.path, limits)? else { continue };
            let Some(content) = content(&entry, reader.position(), &place, limits)? else { continue };
            if names.insert(place.path(), content).is_some() {
                fail!(Corrupt, "two entries called {}", shown(&entry.path));
            }
            if names.len() > MOST_ENTRIES {
                fail!(Limit, "more than {MOST_ENTRIES} entries: that is no image");
            }
        }
        Ok(Self { file, names })
    }

    fn find(&self, name: &[u8]) -> Option<(u64, u64)> {
        match self.names.get(name)? {
            Content::Bytes { start, length } => Some((*start, *length)),
            Content::Link(target) => match self.names.get(target)? {
                Content::Bytes { start, length } => Some((*start, *length)),
                Content::Link(_) => None,
            },
        }
    }
}

impl Files for Archive {
    fn file(&self, name: &str) -> Result<Blob> {
        match self.find(name.as_bytes()) {
            Some((start, length)) => Ok(Blob::new(self.file.clone(), start, length)),
            None => fail!(NotFound, "there is no file {} in the archive", name.escape_debug()),
        }
    }

    fn has(&self, name: &str) -> bool {
        self.find(name.as_bytes()).is_some()
    }
}

fn content(entry: &Entry, start: u64, place: &Place, limits: &Limits) -> Result<Option<Content>> {
    Ok(match entry.what {
        What::File if entry.sparse.is_some() => fail!(Unsupported, "{} is a sparse file", shown(&entry.path)),
        What::File => Some(Content::Bytes { start, length: entry.size }),
        What::Hardlink => Place::parse(&entry.target, limits)?.map(|target| Content::Link(target.path())),
        What::Symlink => sibling(place, &entry.target).map(Content::Link),
        _ => None,
    })
}

/// A relative link's target by its words alone; `None` when it leads out of the archive.
fn sibling(place: &Place, target: &[u8]) -> Option<Vec<u8>> {
    let mut parts: Vec<&[u8]> = place.parent.split(|&b| b == b'/').filter(|p| !p.is_empty()).collect();
    if target.starts_with(b"/") {
        return None;
    }
    for part in target.split(|&b| b == b'/') {
        match part {
            [] | [b'.'] => {}
            [b'.', b'.'] => drop(parts.pop()?),
            name => parts.push(name),
        }
    }
    Some(parts.join(&b'/'))
}

/// The file itself, when it is not compressed.
fn plain(file: File, length: u64, limits: &Limits) -> Result<File> {
    let mut blob = Blob::new(Arc::new(file), 0, length);
    match Compression::of(&blob.magic::<4>()?) {
        Compression::None => Ok(blob.into_file()?),
        _ => spool(&mut blob, limits),
    }
}

/// Inflates into an unnamed file. The limit grows with what has been read: of standard input nobody knows how much comes.
fn spool(source: impl Read + Send, limits: &Limits) -> Result<File> {
    let mut file = unnamed()?;
    let read = AtomicU64::new(0);
    let mut plain = inflater(Counted { inner: source, read: &read })?;
    let (mut buffer, mut done) = (vec![0; 128 << 10], 0);
    loop {
        let n = plain.read(&mut buffer)?;
        if n == 0 {
            return Ok(file);
        }
        done += n as u64;
        if done > limits.inflated(read.load(Ordering::Relaxed)) {
            fail!(
                Limit,
                "inflates to {done} bytes and more, which looks like a bomb; --max-size allows more"
            );
        }
        file.write_all(&buffer[..n]).doing(|| "write a temporary file")?;
    }
}

/// Counts what is read through it.
struct Counted<'a, R> {
    inner: R,
    read: &'a AtomicU64,
}

impl<R: Read> Read for Counted<'_, R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let n = self.inner.read(buffer)?;
        self.read.fetch_add(n as u64, Ordering::Relaxed);
        Ok(n)
    }
}

/// A temporary file without a name: nothing is left of it after any death. In TMPDIR, else where large files go
/// (file-hierarchy(7): /tmp is often in memory).
fn unnamed() -> Result<File> {
    let own = std::env::var_os("TMPDIR").filter(|dir| !dir.is_empty());
    let places =
        own.map_or_else(|| vec!["/var/tmp".into(), "/tmp".into()], |dir| vec![std::path::PathBuf::from(dir)]);
    let mut failed = Error::new(Kind::NotFound, "there is no directory for temporary files");
    for dir in places {
        let path = CString::new(dir.as_os_str().as_bytes())
            .map_err(|_| Error::new(Kind::Usage, "a NUL in TMPDIR"))?;
        match fs::openat(fs::cwd(), &path, libc::O_RDWR | libc::O_TMPFILE, 0o600) {
            Ok(file) => return Ok(file.into()),
            Err(e) => failed = Error::from(e).within(format!("make a temporary file in {}", dir.display())),
        }
    }
    Err(failed)
}
