//! PAX records: `length key=value\n`, one after the other. POSIX pax(1), "pax Extended Header".

use super::sparse::Sparse;
use crate::error::{Result, fail, shown};
use crate::limits::Limits;

/// The records that matter to a layer. An empty value takes the header's own back, as POSIX wants.
#[derive(Default)]
pub(super) struct Records {
    pub(super) path: Option<Vec<u8>>,
    pub(super) target: Option<Vec<u8>>,
    pub(super) size: Option<u64>,
    pub(super) uid: Option<u64>,
    pub(super) gid: Option<u64>,
    pub(super) mtime: Option<(i64, u32)>,
    pub(super) xattrs: Vec<(Vec<u8>, Vec<u8>)>,
    pub(super) sparse: Sparse,
}

/// Reads one extended header.
pub(super) fn parse(bytes: &[u8], limits: &Limits) -> Result<Records> {
    let mut records = Records::default();
    each(bytes, |key, value| records.take(key, value, limits))?;
    Ok(records)
}

/// A global header is passed over, unless it would change which bytes are whose: there readers disagree.
pub(super) fn check_global(bytes: &[u8], _limits: &Limits) -> Result<()> {
    each(bytes, |key, _| {
        if matches!(key, b"path" | b"linkpath" | b"size") || key.starts_with(b"GNU.sparse.") {
            fail!(Unsupported, "a global PAX header sets {}; readers disagree about that", shown(key));
        }
        Ok(())
    })
}

/// Calls `take` for each record.
fn each(mut rest: &[u8], mut take: impl FnMut(&[u8], &[u8]) -> Result<()>) -> Result<()> {
    while !rest.is_empty() {
        // Some writers fill the last block with NULs and count them in.
        if rest.iter().all(|&b| b == 0) {
            return Ok(());
        }
        let Some((key, value, behind)) = record(rest) else {
            fail!(Corrupt, "a PAX record is malformed: {}", shown(rest))
        };
        take(key, value)?;
        rest = behind;
    }
    Ok(())
}

/// Splits the first record off: its key, its value, the rest.
fn record(bytes: &[u8]) -> Option<(&[u8], &[u8], &[u8])> {
    let space = bytes.iter().take(12).position(|&b| b == b' ')?;
    let length = usize::try_from(decimal(&bytes[..space])?).ok()?;
    if length <= space + 1 || length > bytes.len() || bytes[length - 1] != b'\n' {
        return None;
    }
    let body = &bytes[space + 1..length - 1];
    let equals = body.iter().position(|&b| b == b'=')?;
    (equals > 0).then(|| (&body[..equals], &body[equals + 1..], &bytes[length..]))
}

impl Records {
    fn take(&mut self, key: &[u8], value: &[u8], limits: &Limits) -> Result<()> {
        let kept = || (!value.is_empty()).then(|| value.to_vec());
        match key {
            b"path" => self.path = kept(),
            b"linkpath" => self.target = kept(),
            b"size" => self.size = whole(key, value)?,
            b"uid" => self.uid = whole(key, value)?,
            b"gid" => self.gid = whole(key, value)?,
            b"mtime" => self.mtime = if value.is_empty() { None } else { Some(time(value)?) },
            _ if key.starts_with(b"GNU.sparse.") => self.sparse.record(&key[11..], value, limits)?,
            _ => {
                if let Some(name) = key.strip_prefix(b"SCHILY.xattr.") {
                    self.xattr(name, value, limits)?;
                }
            }
        }
        Ok(())
    }

    fn xattr(&mut self, name: &[u8], value: &[u8], limits: &Limits) -> Result<()> {
        if name.is_empty() || name.contains(&0) || name.len() > 255 || value.len() > limits.xattr_bytes {
            fail!(Limit, "extended attribute {} of {} bytes", shown(name), value.len());
        }
        self.xattrs.retain(|(n, _)| n != name);
        self.xattrs.push((name.to_vec(), value.to_vec()));
        Ok(())
    }
}

/// A whole number; empty is none.
fn whole(key: &[u8], value: &[u8]) -> Result<Option<u64>> {
    if value.is_empty() {
        return Ok(None);
    }
    match decimal(value) {
        // Sizes and offsets are signed to the kernel.
        Some(n) if n <= i64::MAX as u64 => Ok(Some(n)),
        _ => fail!(Corrupt, "PAX record {}: {} is no number", shown(key), shown(value)),
    }
}

/// Digits and nothing else.
pub(super) fn decimal(digits: &[u8]) -> Option<u64> {
    if digits.is_empty() || !digits.iter().all(u8::is_ascii_digit) {
        return None;
    }
    std::str::from_utf8(digits).ok()?.parse().ok()
}

/// `[-]seconds[.fraction]`: seconds, and nanoseconds counted forward from them.
fn time(value: &[u8]) -> Result<(i64, u32)> {
    let parse = || -> Option<(i64, u32)> {
        let (negative, digits) = match value.strip_prefix(b"-") {
            Some(rest) => (true, rest),
            None => (false, value),
        };
        let mut parts = digits.splitn(2, |&b| b == b'.');
        let seconds = i64::try_from(decimal(parts.next()?)?).ok()?;
        let fraction = parts.next().unwrap_or(b"0");
        if !fraction.iter().all(u8::is_ascii_digit) {
            return None;
        }
        let nanos = (0..9).fold(0u32, |n, i| n * 10 + u32::from(fraction.get(i).map_or(0, |b| b - b'0')));
        Some(match (negative, nanos) {
            (false, n) => (seconds, n),
            (true, 0) => (-seconds, 0),
            (true, n) => (-seconds - 1, 1_000_000_000 - n),
        })
    };
    match parse() {
        Some(t) => Ok(t),
        None => fail!(Corrupt, "PAX record mtime: {} is no time", shown(value)),
    }
}
