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
    /// The platform that this program runs on; the variant is the processor's, where there are several that it may be.
    pub fn host() -> Self {
        let architecture = match std::env::consts::ARCH {
            "x86_64" => "amd64",
            "x86" => "386",
            "aarch64" => "arm64",
            "powerpc64" => "ppc64le",
            other => other,
        };
        Self { os: "linux".into(), architecture: architecture.into(), variant: processor().into() }
    }

    /// How well an image of this platform suits one who asked for `wanted`: `None` not at all, else higher is better.
    /// A processor of one variant runs the older ones too; the newest of them is the best. One of amd64 runs 386 as well.
    pub fn suits(&self, wanted: &Platform) -> Option<u8> {
        let (mine, asked) = (self.usual(), wanted.usual());
        if mine.os != asked.os || mine.architecture != asked.architecture {
            let older = mine.architecture == "386" && asked.architecture == "amd64";
            return (mine.os == asked.os && older).then_some(0);
        }
        if mine.variant == asked.variant {
            return Some(u8::MAX);
        }
        let level = |variant: &str| variant.strip_prefix('v')?.parse::<u8>().ok();
        level(&mine.variant).filter(|mine| level(&asked.variant).is_some_and(|asked| *mine < asked))
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

/// The variant that this processor is of, by the features that each has: x86-64 psABI, "Micro-Architecture Levels".
#[cfg(target_arch = "x86_64")]
fn processor() -> &'static str {
    macro_rules! has {
        ($($feature:tt)*) => { $(std::arch::is_x86_feature_detected!($feature))&&* };
    }
    let second = has!("cmpxchg16b" "popcnt" "sse3" "ssse3" "sse4.1" "sse4.2");
    let third = second && has!("avx" "avx2" "bmi1" "bmi2" "f16c" "fma" "lzcnt" "movbe");
    let fourth = third && has!("avx512f" "avx512bw" "avx512cd" "avx512dq" "avx512vl");
    match (second, third, fourth) {
        (_, _, true) => "v4",
        (_, true, _) => "v3",
        (true, ..) => "v2",
        _ => "",
    }
}

/// Others are of the usual variant.
#[cfg(not(target_arch = "x86_64"))]
fn processor() -> &'static str {
    ""
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
        let order = |wanted: &str, images: &[&str]| {
            let scores: Vec<_> = images.iter().map(|image| suits(image, wanted)).collect();
            assert!(scores.iter().all(Option::is_some) && scores.is_sorted_by(|a, b| a > b), "{scores:?}");
        };
        order("linux/arm", &["linux/arm/v7", "linux/arm/v6", "linux/arm/v5"]);
        order("linux/arm/v6", &["linux/arm/v6", "linux/arm/v5"]);
        order("linux/amd64/v3", &["linux/amd64/v3", "linux/amd64/v2", "linux/amd64", "linux/386"]);
        order("linux/arm64/v9", &["linux/arm64/v9", "linux/arm64"]);
        for (image, wanted) in [
            ("linux/amd64/v3", "linux/amd64"),
            ("linux/amd64/v4", "linux/amd64/v3"),
            ("linux/arm/v7", "linux/arm/v6"),
            ("linux/riscv64/rva23u64", "linux/riscv64"),
            ("linux/amd64/vx", "linux/amd64/v3"),
        ] {
            assert_eq!(suits(image, wanted), None, "{image} for {wanted}");
        }
    }

    /// Told by the kernel's names of the features, of which each level brings some: proc_cpuinfo(5).
    #[test]
    #[cfg(target_arch = "x86_64")]
    fn the_hosts_variant_is_the_processors() {
        let text = std::fs::read_to_string("/proc/cpuinfo").unwrap();
        let flags = text.lines().find(|line| line.starts_with("flags")).unwrap();
        let has = |names: &str| names.split(' ').all(|n| flags.split_whitespace().any(|flag| flag == n));
        let levels = [
            "cx16 popcnt pni ssse3 sse4_1 sse4_2",
            "avx avx2 bmi1 bmi2 f16c fma abm movbe",
            "avx512f avx512bw avx512cd avx512dq avx512vl",
        ];
        let level = 1 + levels.iter().take_while(|names| has(names)).count();
        let wanted = if level == 1 { String::new() } else { format!("v{level}") };
        assert_eq!(Platform::host().variant, wanted);
    }

    /// An image for any machine of the architecture runs on this one.
    #[test]
    fn the_host_takes_the_usual_variant() {
        let usual = Platform { variant: String::new(), ..Platform::host() };
        assert!(usual.suits(&Platform::host()).is_some());
        assert_eq!(Platform::host().suits(&Platform::host()), Some(u8::MAX));
    }

    #[test]
    fn others_do_not_suit() {
        assert_eq!(suits("windows/amd64", "linux/amd64"), None);
        assert_eq!(suits("linux/amd64", "linux/386"), None);
        assert_eq!(suits("windows/386", "linux/amd64"), None);
        assert!("".parse::<Platform>().is_err() && "a/b/c/d".parse::<Platform>().is_err());
    }
}
