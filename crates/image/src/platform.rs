//! Platforms: which of an index's images runs on this machine.
//!
//! Image specification, image-index.md, "Platform variants"; the names are Go's GOOS and GOARCH.

use crate::error::{Error, Kind};
use serde::{Deserialize, Serialize};
use std::fmt;
use std::str::FromStr;

/// An operating system, a processor architecture and its variant.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Platform {
    /// `linux`.
    #[serde(default)]
    pub os: String,
    /// `amd64`, `arm64`, `arm`, `386`, `riscv64`…
    #[serde(default)]
    pub architecture: String,
    /// `v7`, `v8`…: empty when it is the architecture's usual one.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub variant: String,
}

impl Platform {
    /// The platform that this program was built for, which is the one that it runs on.
    pub fn host() -> Self {
        let architecture = match std::env::consts::ARCH {
            "x86_64" => "amd64",
            "x86" => "386",
            "aarch64" => "arm64",
            "powerpc64" => "ppc64le",
            other => other,
        };
        Self { os: "linux".into(), architecture: architecture.into(), variant: String::new() }
    }

    /// How well an image of this platform suits one who asked for `wanted`: `None` not at all, else higher is better.
    pub fn suits(&self, wanted: &Platform) -> Option<u8> {
        let (mine, asked) = (self.usual(), wanted.usual());
        if mine.os != asked.os || mine.architecture != asked.architecture {
            return None;
        }
        if !wanted.variant.is_empty() || mine.variant == asked.variant {
            return (mine.variant == asked.variant).then_some(u8::MAX);
        }
        // Nothing asked for: older variants run on newer processors, so the newest that every such host runs.
        let level = mine.variant.strip_prefix('v').and_then(|v| v.parse::<u8>().ok());
        let most = match asked.architecture.as_str() {
            "amd64" => 1,
            "arm" => 7,
            _ => 8,
        };
        level.filter(|&l| l <= most)
    }

    /// The same with other spellings and usual variants made one (arm64/v8 is arm64, amd64/v1 is amd64, arm is arm/v7).
    fn usual(&self) -> Self {
        let (architecture, variant) = match (self.architecture.as_str(), self.variant.as_str()) {
            ("x86_64" | "x86-64", v) => ("amd64", v),
            ("aarch64", v) => ("arm64", v),
            ("armhf", _) => ("arm", "v7"),
            ("i386" | "i686", v) => ("386", v),
            other => other,
        };
        let variant = match (architecture, variant) {
            ("amd64", "") => "v1",
            ("arm64", "" | "8") => "v8",
            ("arm", "" | "7") => "v7",
            (_, v) => v,
        };
        Self { os: self.os.to_lowercase(), architecture: architecture.into(), variant: variant.into() }
    }
}

impl FromStr for Platform {
    type Err = Error;

    /// `os/architecture[/variant]`, or an architecture alone.
    fn from_str(s: &str) -> Result<Self, Error> {
        let parts: Vec<&str> = s.split('/').collect();
        let (os, architecture, variant) = match parts[..] {
            [a] => ("linux", a, ""),
            [os, a] => (os, a, ""),
            [os, a, v] => (os, a, v),
            _ => ("", "", ""),
        };
        if os.is_empty() || architecture.is_empty() {
            return Err(Error::new(
                Kind::Usage,
                format!("{s:?} is no platform; write os/architecture, as linux/arm64"),
            ));
        }
        Ok(Self { os: os.into(), architecture: architecture.into(), variant: variant.into() })
    }
}

impl fmt::Display for Platform {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.os.escape_debug(), self.architecture.escape_debug())?;
        if !self.variant.is_empty() {
            write!(f, "/{}", self.variant.escape_debug())?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn suits(image: &str, wanted: &str) -> Option<u8> {
        image.parse::<Platform>().unwrap().suits(&wanted.parse().unwrap())
    }

    #[test]
    fn usual_variants_are_one() {
        assert_eq!(suits("linux/arm64/v8", "linux/arm64"), Some(u8::MAX));
        assert_eq!(suits("linux/arm64", "linux/aarch64/v8"), Some(u8::MAX));
        assert_eq!(suits("linux/amd64", "amd64"), Some(u8::MAX));
    }

    #[test]
    fn an_older_variant_runs_a_newer_does_not() {
        assert!(suits("linux/arm/v7", "linux/arm") > suits("linux/arm/v6", "linux/arm"));
        assert!(suits("linux/arm/v6", "linux/arm").is_some());
        assert_eq!(suits("linux/amd64/v3", "linux/amd64"), None);
        assert_eq!(suits("linux/amd64/v3", "linux/amd64/v3"), Some(u8::MAX));
    }

    #[test]
    fn others_do_not_suit() {
        assert_eq!(suits("windows/amd64", "linux/amd64"), None);
        assert_eq!(suits("linux/386", "linux/amd64"), None);
        assert!("".parse::<Platform>().is_err() && "a/b/c/d".parse::<Platform>().is_err());
    }
}
