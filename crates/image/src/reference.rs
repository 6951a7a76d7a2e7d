//! References: `[registry/]repository[:tag][@digest]`, as people write them and as registries take them.
//!
//! A short name is Docker's: `busybox` is `docker.io/library/busybox:latest`. The grammar is that of the Distribution
//! specification ("Pulling manifests") and of the tools that people know; a [`Reference`] can hold nothing else, so
//! that its parts may stand in a URL.

use crate::digest::Digest;
use crate::error::{Error, Result, fail, shown};
use std::fmt;
use std::str::FromStr;

/// The registry of names without one.
pub const DOCKER: &str = "docker.io";

/// A name that a registry knows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reference {
    /// Host, perhaps with a port: `docker.io`, `localhost:5000`, `[::1]:5000`.
    pub registry: String,
    /// Path within it: `library/busybox`.
    pub repository: String,
    /// The tag; `latest` when neither it nor a digest is given.
    pub tag: Option<String>,
    /// Pins the content.
    pub digest: Option<Digest>,
}

impl Reference {
    /// What stands for the manifest in a URL: the digest if there is one, else the tag.
    pub fn version(&self) -> String {
        match (&self.digest, &self.tag) {
            (Some(digest), _) => digest.to_string(),
            (None, Some(tag)) => tag.clone(),
            (None, None) => "latest".into(),
        }
    }

    /// The same on another registry, below a prefix.
    pub fn moved(&self, registry: &str, repository: String) -> Self {
        Self { registry: registry.to_owned(), repository, ..self.clone() }
    }
}

impl FromStr for Reference {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        if text.len() > 1024 {
            fail!(Usage, "a reference of {} bytes", text.len());
        }
        let (name, digest) = match text.split_once('@') {
            Some((name, digest)) => (name, Some(digest.parse()?)),
            None => (text, None),
        };
        // A colon after the last slash begins the tag; one before it, a port.
        let (name, tag) = match name.rsplit_once(':') {
            Some((name, tag)) if !tag.contains('/') => (name, Some(tag.to_owned())),
            _ => (name, None),
        };
        let (registry, repository) = match name.split_once('/') {
            Some((first, rest)) if is_host(first) => (first.to_owned(), rest.to_owned()),
            _ => (DOCKER.to_owned(), name.to_owned()),
        };
        let registry = if registry == "index.docker.io" { DOCKER.to_owned() } else { registry };
        let official = registry == DOCKER && !repository.contains('/');
        let repository = if official { format!("library/{repository}") } else { repository };
        let tag = tag.or_else(|| digest.is_none().then(|| "latest".to_owned()));
        let all = Self { registry, repository, tag, digest };
        all.check(text)
    }
}

impl Reference {
    fn check(self, text: &str) -> Result<Self> {
        let bad = |what: &str| {
            Error::new(
                crate::Kind::Usage,
                format!(
                    "{} is no image reference: {what}; write [registry/]name[:tag][@sha256:…]",
                    shown(text.as_bytes())
                ),
            )
        };
        if !is_registry(&self.registry) {
            return Err(bad("its registry is no host name"));
        }
        if !self.repository.split('/').all(is_component) || self.repository.len() > 255 {
            return Err(bad("a name has lower-case letters, digits, and single . _ - between them"));
        }
        match &self.tag {
            Some(tag) if !is_tag(tag) => Err(bad("a tag has at most 128 letters, digits, _ . -")),
            _ => Ok(self),
        }
    }
}

/// Whether the first part of a name is a host: `localhost`, or one with a dot or a port.
fn is_host(part: &str) -> bool {
    part == "localhost" || part.contains(['.', ':', '['])
}

fn is_registry(text: &str) -> bool {
    let (host, port) = match text.strip_prefix('[') {
        Some(rest) => match rest.split_once(']') {
            Some((address, rest)) => {
                let right = address.parse::<std::net::Ipv6Addr>().is_ok();
                (if right { "v6" } else { "" }, rest.strip_prefix(':').or(rest.is_empty().then_some("1")))
            }
            None => return false,
        },
        None => text.split_once(':').map_or((text, Some("1")), |(host, port)| (host, Some(port))),
    };
    let label = |l: &str| {
        !l.is_empty()
            && l.len() <= 63
            && l.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-')
            && !l.starts_with('-')
            && !l.ends_with('-')
    };
    let is_port =
        port.is_some_and(|p| p.bytes().all(|b| b.is_ascii_digit()) && p.parse::<u16>().is_ok_and(|p| p > 0));
    host.len() <= 253 && host.split('.').all(label) && is_port
}

/// `[a-z0-9]+((\.|_|__|-+)[a-z0-9]+)*`
fn is_component(part: &str) -> bool {
    let plain = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit();
    let bytes = part.as_bytes();
    let ends = bytes.first().is_some_and(|b| plain(*b)) && bytes.last().is_some_and(|b| plain(*b));
    let mut separators = part.split(|c: char| plain(c as u8) && c.is_ascii()).filter(|s| !s.is_empty());
    ends && separators.all(|s| matches!(s, "." | "_" | "__") || s.bytes().all(|b| b == b'-'))
}

fn is_tag(tag: &str) -> bool {
    let word = |b: u8| b.is_ascii_alphanumeric() || b == b'_';
    tag.len() <= 128
        && tag.bytes().next().is_some_and(word)
        && tag.bytes().all(|b| word(b) || b == b'.' || b == b'-')
}

impl fmt::Display for Reference {
    /// The whole name, with registry and tag: under this it stands in a store.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.registry, self.repository)?;
        if let Some(tag) = &self.tag {
            write!(f, ":{tag}")?;
        }
        if let Some(digest) = &self.digest {
            write!(f, "@{digest}")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(text: &str) -> String {
        text.parse::<Reference>().map_or_else(|e| format!("refused: {e}"), |r| r.to_string())
    }

    #[test]
    fn names_are_completed() {
        let hex = "0a".repeat(32);
        assert_eq!(of("busybox"), "docker.io/library/busybox:latest");
        assert_eq!(of("me/app:1.0"), "docker.io/me/app:1.0");
        assert_eq!(of("index.docker.io/me/app"), "docker.io/me/app:latest");
        assert_eq!(of("localhost/app"), "localhost/app:latest");
        assert_eq!(of("localhost:5000/a/b/c"), "localhost:5000/a/b/c:latest");
        assert_eq!(of("[::1]:5000/a"), "[::1]:5000/a:latest");
        assert_eq!(of(&format!("a.b/c@sha256:{hex}")), format!("a.b/c@sha256:{hex}"));
        assert_eq!(of(&format!("a.b/c:d@sha256:{hex}")), format!("a.b/c:d@sha256:{hex}"));
    }

    /// Nothing that could leave its place in a URL or a path.
    #[test]
    fn what_is_refused() {
        let long = "a".repeat(300);
        for bad in [
            "",
            "/",
            "a/",
            "/a",
            "A",
            "a b",
            "a..b/c/..",
            "../a",
            "a/../b",
            "a//b",
            "a:",
            "a:b:c",
            "a@",
            "a@b",
            "a:-x",
            "a.b:0/c",
            "a.b:99999/c",
            "a.b:x/c",
            "[::1/a",
            "[x]:1/a",
            "-a.b/c",
            "a_/b",
            "a___b",
            "a/b?x",
            "a/b#x",
            "a/%2e",
            "user@host.x/a",
            "a\n",
            "a.b/c:d/e",
            &long,
        ] {
            assert!(of(bad).starts_with("refused"), "{bad:?} became {}", of(bad));
        }
    }
}
