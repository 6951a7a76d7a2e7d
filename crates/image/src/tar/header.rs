//! The 512-byte header block: ustar, GNU, star and the oldest form without a magic. tar(5).

use super::What;
use crate::error::{Result, fail, shown};

/// Bytes of a block.
pub(super) const BLOCK: usize = 512;

/// What a header's type flag says.
pub(super) enum Flag {
    /// A file, directory, link or special file.
    Entry(What),
    /// GNU 'L': the next entry's name.
    LongName,
    /// GNU 'K': the next entry's link target.
    LongTarget,
    /// PAX 'x': records for the next entry.
    Records,
    /// PAX 'g': records for all later entries.
    GlobalRecords,
}

/// A header block.
pub(super) struct Block(pub(super) [u8; BLOCK]);

impl Block {
    pub(super) fn is_zero(&self) -> bool {
        self.0.iter().all(|&b| b == 0)
    }

    /// Itself, when its checksum is right: the sum of all bytes, its own field taken as spaces. Some old writers
    /// summed signed bytes.
    pub(super) fn checked(self) -> Result<Self> {
        let sum = |as_number: fn(u8) -> i64| -> i64 {
            self.0
                .iter()
                .enumerate()
                .map(|(i, &b)| if (148..156).contains(&i) { 32 } else { as_number(b) })
                .sum()
        };
        let said = octal(&self.0[148..156])? as i64;
        if said != sum(i64::from) && said != sum(|b| i64::from(b as i8)) {
            fail!(Corrupt, "not a tar header: its checksum is wrong");
        }
        Ok(self)
    }

    pub(super) fn flag(&self) -> Result<Flag> {
        Ok(Flag::Entry(match self.0[156] {
            // '7' is a contiguous file, 'S' a sparse one.
            0 | b'0' | b'7' | b'S' => What::File,
            b'1' => What::Hardlink,
            b'2' => What::Symlink,
            b'3' => What::Character,
            b'4' => What::Block,
            b'5' => What::Directory,
            b'6' => What::Fifo,
            b'L' => return Ok(Flag::LongName),
            b'K' => return Ok(Flag::LongTarget),
            b'x' => return Ok(Flag::Records),
            b'g' => return Ok(Flag::GlobalRecords),
            other => fail!(
                Unsupported,
                "entry {} is of the unknown type {}",
                shown(self.text(0..100)),
                shown(&[other])
            ),
        }))
    }

    pub(super) fn is_old_sparse(&self) -> bool {
        self.0[156] == b'S'
    }

    /// Name, with the prefix that POSIX ustar (155 bytes) and star (131 bytes) put before it. GNU's magic has none.
    pub(super) fn path(&self) -> Result<Vec<u8>> {
        let prefix = match (&self.0[257..265], &self.0[508..512]) {
            (b"ustar\x0000", b"tar\0") => self.text(345..476),
            (b"ustar\x0000", _) => self.text(345..500),
            (b"ustar  \0", _) => b"",
            (magic, _) if magic[..6].iter().all(|&b| b == 0) => b"",
            (magic, _) => fail!(Unsupported, "a tar header with the unknown magic {}", shown(magic)),
        };
        let name = self.text(0..100);
        Ok(if prefix.is_empty() { name.to_vec() } else { [prefix, b"/", name].concat() })
    }

    pub(super) fn target(&self) -> Vec<u8> {
        self.text(157..257).to_vec()
    }

    pub(super) fn size(&self) -> Result<u64> {
        number(&self.0[124..136])
    }

    pub(super) fn mode(&self) -> Result<u32> {
        Ok((number(&self.0[100..108])? & 0o7777) as u32)
    }

    pub(super) fn uid(&self) -> Result<u64> {
        number(&self.0[108..116])
    }

    pub(super) fn gid(&self) -> Result<u64> {
        number(&self.0[116..124])
    }

    pub(super) fn mtime(&self) -> Result<(i64, u32)> {
        Ok((signed(&self.0[136..148])?, 0))
    }

    /// Major and minor; only ustar and GNU headers have them.
    pub(super) fn device(&self) -> Result<(u32, u32)> {
        if !self.0[257..].starts_with(b"ustar") || !matches!(self.0[156], b'3' | b'4') {
            return Ok((0, 0));
        }
        let part = |field: &[u8]| number(field).map(|n| n as u32);
        Ok((part(&self.0[329..337])?, part(&self.0[337..345])?))
    }

    /// A text field: up to its first NUL.
    fn text(&self, range: std::ops::Range<usize>) -> &[u8] {
        let field = &self.0[range];
        &field[..field.iter().position(|&b| b == 0).unwrap_or(field.len())]
    }
}

/// A number that cannot be negative.
pub(super) fn number(field: &[u8]) -> Result<u64> {
    match u64::try_from(signed(field)?) {
        Ok(n) => Ok(n),
        Err(_) => fail!(Corrupt, "a negative number in a tar header"),
    }
}

/// Octal digits, or GNU's base 256 when the first bit is set: then a two's complement number.
fn signed(field: &[u8]) -> Result<i64> {
    if field[0] & 0x80 == 0 {
        return octal(field);
    }
    let negative = field[0] & 0x40 != 0;
    let mut value: i128 = if negative { -1 } else { 0 };
    for (i, &byte) in field.iter().enumerate() {
        let byte = if i == 0 && !negative { byte & 0x7f } else { byte };
        value = (value << 8) | i128::from(byte);
    }
    match i64::try_from(value) {
        Ok(n) => Ok(n),
        Err(_) => fail!(Corrupt, "a number in a tar header is beyond 64 bits"),
    }
}

/// Octal digits between optional spaces, ended by a space, a NUL or the field.
fn octal(field: &[u8]) -> Result<i64> {
    let start = field.iter().position(|&b| b != b' ').unwrap_or(field.len());
    let digits = &field[start..];
    let end = digits.iter().position(|&b| b == 0 || b == b' ').unwrap_or(digits.len());
    let mut value = 0i64;
    for &digit in &digits[..end] {
        if !(b'0'..=b'7').contains(&digit) {
            fail!(Corrupt, "{} is no octal number", shown(field));
        }
        value = value << 3 | i64::from(digit - b'0');
    }
    Ok(value)
}
