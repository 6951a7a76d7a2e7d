//! Sparse files: GNU's old form ('S') and its PAX forms 0.0, 0.1 and 1.0. GNU tar manual, "Storing Sparse Files".
//!
//! Each ends as a list of segments: where the next bytes of the data go. Everything between them is a hole.

use super::header::{Block, number};
use super::pax::decimal;
use super::{Entry, Input, Reader};
use crate::error::{Result, fail, shown};
use crate::limits::Limits;

/// A run of data within a sparse file: offset and length in bytes.
pub type Segment = (u64, u64);

/// The most segments of one file: its map must fit into memory.
const MOST_SEGMENTS: usize = 1 << 16;

/// What the headers have said of a sparse file so far.
#[derive(Default, Clone)]
pub(super) struct Sparse {
    map: Option<Vec<Segment>>,
    /// The first half of a pair in form 0.0.
    offset: Option<u64>,
    size: Option<u64>,
    name: Option<Vec<u8>>,
    major: Option<u64>,
    minor: Option<u64>,
}

impl Sparse {
    /// Takes one `GNU.sparse.` record; `key` is what stands behind the prefix.
    pub(super) fn record(&mut self, key: &[u8], value: &[u8], _limits: &Limits) -> Result<()> {
        let whole = || match decimal(value) {
            Some(n) if n <= i64::MAX as u64 => Ok(n),
            _ => {
                fail!(Corrupt, "PAX record GNU.sparse.{}: {} is no number", key.escape_ascii(), shown(value))
            }
        };
        match key {
            b"major" => self.major = Some(whole()?),
            b"minor" => self.minor = Some(whole()?),
            b"size" | b"realsize" => self.size = Some(whole()?),
            b"name" => self.name = Some(value.to_vec()),
            b"numblocks" => {}
            b"offset" => self.offset = Some(whole()?),
            b"numbytes" => match self.offset.take() {
                Some(offset) => self.segment(offset, whole()?)?,
                None => fail!(Corrupt, "a sparse file's segment without an offset"),
            },
            b"map" => self.listed(value)?,
            _ => fail!(Unsupported, "PAX record GNU.sparse.{} is unknown", key.escape_ascii()),
        }
        Ok(())
    }

    fn listed(&mut self, value: &[u8]) -> Result<()> {
        let mut numbers = value.split(|&b| b == b',').map(decimal);
        self.map = Some(Vec::new());
        while let Some(offset) = numbers.next() {
            match (offset, numbers.next().flatten()) {
                (Some(offset), Some(length)) => self.segment(offset, length)?,
                _ => fail!(Corrupt, "a sparse file's map is malformed"),
            }
        }
        Ok(())
    }

    fn segment(&mut self, offset: u64, length: u64) -> Result<()> {
        let map = self.map.get_or_insert_with(Vec::new);
        if map.len() >= MOST_SEGMENTS {
            fail!(Limit, "a sparse file of more than {MOST_SEGMENTS} segments");
        }
        map.push((offset, length));
        Ok(())
    }

    /// The old form: four segments in the header, 21 more in each block behind it.
    pub(super) fn old_gnu(&mut self, block: &Block, mut next: impl FnMut() -> Result<Block>) -> Result<()> {
        self.size = Some(number(&block.0[483..495])?);
        self.map = Some(Vec::new());
        self.fields(&block.0[386..482])?;
        let mut more = block.0[482] != 0;
        while more {
            let block = next()?;
            self.fields(&block.0[..504])?;
            more = block.0[504] != 0;
        }
        Ok(())
    }

    fn fields(&mut self, bytes: &[u8]) -> Result<()> {
        for pair in bytes.chunks_exact(24).take_while(|pair| pair[0] != 0) {
            self.segment(number(&pair[..12])?, number(&pair[12..])?)?;
        }
        Ok(())
    }

    /// Puts the map, the real size and the real name into the entry. Form 1.0 keeps the map before the data.
    pub(super) fn apply<I: Input>(mut self, entry: &mut Entry, reader: &mut Reader<I>) -> Result<()> {
        match (self.major, self.minor) {
            (None, None) | (Some(0), _) => {}
            (Some(1), Some(0)) => self.inline(reader)?,
            _ => fail!(Unsupported, "entry {}: an unknown form of sparse file", shown(&entry.path)),
        }
        let Some(map) = self.map else { return Ok(()) };
        let Some(size) = self.size else {
            fail!(Corrupt, "sparse entry {} does not say its size", shown(&entry.path))
        };
        check(&map, size, reader.left, &entry.path)?;
        entry.path = self.name.unwrap_or_else(|| std::mem::take(&mut entry.path));
        entry.size = size;
        entry.sparse = Some(map);
        Ok(())
    }

    fn inline<I: Input>(&mut self, reader: &mut Reader<I>) -> Result<()> {
        let mut lines = Lines { reader, taken: 0 };
        self.map = Some(Vec::new());
        for _ in 0..lines.number()? {
            let (offset, length) = (lines.number()?, lines.number()?);
            self.segment(offset, length)?;
        }
        lines.skip_padding()
    }
}

/// Segments must be in order, within the file, and hold exactly the data that is stored.
fn check(map: &[Segment], size: u64, stored: u64, path: &[u8]) -> Result<()> {
    let (mut end, mut sum) = (0u64, 0u64);
    for &(offset, length) in map {
        let Some(next) = offset.checked_add(length).filter(|&n| offset >= end && n <= size) else {
            fail!(Corrupt, "sparse entry {}: segments overlap or lie beyond its end", shown(path))
        };
        end = next;
        sum += length;
    }
    if sum != stored {
        fail!(Corrupt, "sparse entry {}: the map holds {sum} bytes, the archive {stored}", shown(path));
    }
    Ok(())
}

/// Decimal numbers, one a line, at the beginning of the data; padded to a block.
struct Lines<'a, I> {
    reader: &'a mut Reader<I>,
    taken: u64,
}

impl<I: Input> Lines<'_, I> {
    fn byte(&mut self) -> Result<u8> {
        let Some(&byte) = self.reader.data()?.first() else {
            fail!(Corrupt, "a sparse file's map is cut off")
        };
        self.reader.consume(1);
        self.taken += 1;
        Ok(byte)
    }

    fn number(&mut self) -> Result<u64> {
        let mut digits = Vec::with_capacity(20);
        loop {
            match self.byte()? {
                b'\n' => break,
                _ if digits.len() > 20 => fail!(Corrupt, "a sparse file's map is malformed"),
                digit => digits.push(digit),
            }
        }
        match decimal(&digits) {
            Some(n) => Ok(n),
            None => fail!(Corrupt, "a sparse file's map is malformed"),
        }
    }

    fn skip_padding(mut self) -> Result<()> {
        while self.taken % super::BLOCK as u64 != 0 {
            self.byte()?;
        }
        Ok(())
    }
}
