//! Digests: `algorithm:hex`, parsed once so that no other code meets an unchecked one.
//!
//! A digest names a file in a layout (blobs/ALGORITHM/HEX) and a path on a registry: whoever can put `../` in one
//! writes elsewhere (CVE-2024-3727). A [`Digest`] can only hold a known algorithm and lower-case hex of its exact
//! length. Image specification, descriptor.md, "Digests".

use crate::error::{Error, Kind, fail, shown};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use sha2::{Digest as _, Sha256, Sha512};
use std::fmt;
use std::str::FromStr;

/// The registered algorithms (descriptor.md, "Registered algorithms").
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Algorithm {
    /// SHA-256: 64 hex digits.
    Sha256,
    /// SHA-512: 128 hex digits.
    Sha512,
}

impl Algorithm {
    /// The name in a digest and in a layout's path.
    pub fn name(self) -> &'static str {
        match self {
            Self::Sha256 => "sha256",
            Self::Sha512 => "sha512",
        }
    }

    fn hex_length(self) -> usize {
        match self {
            Self::Sha256 => 64,
            Self::Sha512 => 128,
        }
    }

    /// A fresh hasher.
    pub fn hasher(self) -> Hasher {
        match self {
            Self::Sha256 => Hasher::Sha256(Sha256::new()),
            Self::Sha512 => Hasher::Sha512(Box::new(Sha512::new())),
        }
    }
}

/// A digest that can be trusted to be one.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Digest {
    algorithm: Algorithm,
    hex: String,
}

impl Digest {
    /// The digest of some bytes.
    pub fn of(algorithm: Algorithm, bytes: &[u8]) -> Self {
        let mut hasher = algorithm.hasher();
        hasher.update(bytes);
        hasher.finish()
    }

    /// Its algorithm.
    pub fn algorithm(&self) -> Algorithm {
        self.algorithm
    }

    /// Its lower-case hex digits.
    pub fn hex(&self) -> &str {
        &self.hex
    }

    /// The first twelve digits, for people.
    pub fn short(&self) -> &str {
        &self.hex[..12]
    }

    /// Where a layout keeps the blob: `blobs/sha256/…` (image-layout.md, "Blobs").
    pub fn blob_path(&self) -> String {
        format!("blobs/{}/{}", self.algorithm.name(), self.hex)
    }
}

impl FromStr for Digest {
    type Err = Error;

    fn from_str(s: &str) -> Result<Self, Error> {
        let Some((name, hex)) = s.split_once(':') else {
            fail!(Corrupt, "{} is not a digest (algorithm:hex)", shown(s.as_bytes()))
        };
        let algorithm = match name {
            "sha256" => Algorithm::Sha256,
            "sha512" => Algorithm::Sha512,
            _ => fail!(Unsupported, "digest {}: only sha256 and sha512 are known", shown(s.as_bytes())),
        };
        let lower_hex = |b: u8| b.is_ascii_digit() || (b'a'..=b'f').contains(&b);
        if hex.len() != algorithm.hex_length() || !hex.bytes().all(lower_hex) {
            fail!(
                Corrupt,
                "digest {}: {} lower-case hex digits are wanted",
                shown(s.as_bytes()),
                algorithm.hex_length()
            );
        }
        Ok(Self { algorithm, hex: hex.to_owned() })
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.algorithm.name(), self.hex)
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl<'de> Deserialize<'de> for Digest {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        String::deserialize(d)?.parse().map_err(serde::de::Error::custom)
    }
}

impl Serialize for Digest {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        s.collect_str(self)
    }
}

/// A digest in the making.
pub enum Hasher {
    /// SHA-256.
    Sha256(Sha256),
    /// SHA-512; boxed because its state is three times as large.
    Sha512(Box<Sha512>),
}

impl Hasher {
    /// Takes in more bytes.
    pub fn update(&mut self, bytes: &[u8]) {
        match self {
            Self::Sha256(h) => h.update(bytes),
            Self::Sha512(h) => h.update(bytes),
        }
    }

    /// The digest of all bytes taken in.
    pub fn finish(self) -> Digest {
        match self {
            Self::Sha256(h) => Digest { algorithm: Algorithm::Sha256, hex: to_hex(&h.finalize()) },
            Self::Sha512(h) => Digest { algorithm: Algorithm::Sha512, hex: to_hex(&h.finalize()) },
        }
    }
}

fn to_hex(bytes: &[u8]) -> String {
    bytes.iter().map(|b| format!("{b:02x}")).collect()
}

/// Refuses what does not have the expected digest.
pub fn expect(what: &str, wanted: &Digest, got: &Digest) -> Result<(), Error> {
    if wanted == got {
        return Ok(());
    }
    Err(Error::new(Kind::Corrupt, format!("{what}: the digest is {got}, but the image says {wanted}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_real_digests_parse() {
        let good = format!("sha256:{}", "0a".repeat(32));
        assert_eq!(good.parse::<Digest>().unwrap().to_string(), good);
        let hex = "0a".repeat(32);
        for bad in [
            "",
            "sha256",
            "sha256:",
            &format!("sha256:{}", &hex[1..]),
            &format!("sha256:{hex}0"),
            &format!("sha256:{}", hex.to_uppercase()),
            &format!("SHA256:{hex}"),
            &format!("md5:{}", &hex[..32]),
            &format!("sha256:../../{}", &hex[6..]),
            &format!("sha256:{}\n", &hex[1..]),
            &format!("sha512:{hex}"),
        ] {
            assert!(bad.parse::<Digest>().is_err(), "{bad}");
        }
    }

    #[test]
    fn known_answers() {
        let empty = Digest::of(Algorithm::Sha256, b"");
        assert_eq!(empty.hex(), "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855");
        assert!(Digest::of(Algorithm::Sha512, b"").hex().starts_with("cf83e1357eefb8bd"));
    }
}
