//! Names from a layer, made into places within a root file system.
//!
//! A [`Place`] has no empty, `.` or `..` components and no leading slash. `..` is refused rather than resolved: no
//! image needs it, and readers disagree about `a/../b` when `a` is a link.

use crate::error::{Result, fail, shown};
use crate::limits::Limits;
use std::ffi::{CStr, CString};

/// A name within a directory; never the root itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    /// The directory, relative to the root; empty for the root.
    pub parent: Vec<u8>,
    /// The last component.
    pub name: CString,
}

impl Place {
    /// Parses an entry's name; `None` is the root itself. Errors: `..`, a NUL, too many or too long components.
    pub fn parse(path: &[u8], limits: &Limits) -> Result<Option<Self>> {
        let mut parent = Vec::with_capacity(path.len());
        let (mut last, mut count): (&[u8], usize) = (b"", 0);
        for part in path.split(|&b| b == b'/').filter(|p| !p.is_empty() && *p != b".") {
            if part == b".." {
                fail!(Corrupt, "entry {}: a name with \"..\"", shown(path));
            }
            if part.len() > 255 {
                fail!(Limit, "entry {}: a name of {} bytes; Linux takes 255", shown(path), part.len());
            }
            if !last.is_empty() {
                join(&mut parent, last);
            }
            (last, count) = (part, count + 1);
        }
        if count > limits.name_components {
            fail!(Limit, "entry {}: {count} directories deep", shown(path));
        }
        if last.is_empty() {
            return Ok(None);
        }
        match CString::new(last) {
            Ok(name) if !parent.contains(&0) => Ok(Some(Self { parent, name })),
            _ => fail!(Corrupt, "entry {}: a NUL in a name", shown(path)),
        }
    }

    /// The whole name, relative to the root.
    pub fn path(&self) -> Vec<u8> {
        let mut path = self.parent.clone();
        join(&mut path, self.name.to_bytes());
        path
    }

    /// The last component.
    pub fn name(&self) -> &CStr {
        &self.name
    }
}

/// Adds a component.
pub fn join(path: &mut Vec<u8>, part: &[u8]) {
    if !path.is_empty() {
        path.push(b'/');
    }
    path.extend_from_slice(part);
}

/// A relative path for the kernel; the root is `.`.
pub fn c_path(path: &[u8]) -> Result<CString> {
    let path = if path.is_empty() { b"." } else { path };
    match CString::new(path) {
        Ok(c) => Ok(c),
        Err(_) => fail!(Corrupt, "{}: a NUL in a name", shown(path)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(s: &str) -> Option<Option<(String, String)>> {
        let text = |b: &[u8]| String::from_utf8(b.to_vec()).unwrap();
        let place = Place::parse(s.as_bytes(), &Limits::default()).ok()?;
        Some(place.map(|p| (text(&p.parent), text(p.name.to_bytes()))))
    }

    #[test]
    fn places() {
        let at = |a: &str, b: &str| Some(Some((a.to_owned(), b.to_owned())));
        assert_eq!(parse("./usr//bin/./sh/"), at("usr/bin", "sh"));
        assert_eq!(parse("/etc"), at("", "etc"));
        assert_eq!((parse("."), parse("./"), parse("/")), (Some(None), Some(None), Some(None)));
        for bad in ["..", "../x", "a/../../x", "a/..", "a\0b", "a\0/b"] {
            assert_eq!(parse(bad), None, "{bad:?}");
        }
        assert_eq!(parse(&"a/".repeat(600)), None);
        assert_eq!(parse(&"a".repeat(256)), None);
    }
}
