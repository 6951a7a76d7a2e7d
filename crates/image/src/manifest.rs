//! Indexes, manifests and configurations, parsed: a value of these types has passed every check that needs no file.
//!
//! Own types rather than oci-spec's: a digest is a [`Digest`], a size is unsigned, Go's `null` for an empty list is
//! read, and a document that is an index and a manifest at once is refused (CVE-2021-41190). Docker's media types
//! mean the same as the OCI's. Image specification: descriptor.md, image-index.md, manifest.md, config.md.

use crate::digest::{self, Digest};
use crate::error::{Doing, Error, Kind, Result, fail, shown};
use crate::limits::Limits;
use crate::platform::Platform;
use crate::reference::Reference;
use serde::{Deserialize, Deserializer, Serialize};
use std::collections::BTreeMap;

/// What a descriptor points to, by its media type.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Media {
    /// An index (docker: manifest list).
    Index,
    /// A manifest.
    Manifest,
    /// An image's configuration.
    Config,
    /// A layer, however compressed: its first bytes tell.
    Layer,
}

impl Media {
    /// The media type's meaning; `None` for anything that is not part of an image.
    pub fn parse(text: &str) -> Option<Self> {
        Some(match text {
            "application/vnd.oci.image.index.v1+json"
            | "application/vnd.docker.distribution.manifest.list.v2+json" => Self::Index,
            "application/vnd.oci.image.manifest.v1+json"
            | "application/vnd.docker.distribution.manifest.v2+json" => Self::Manifest,
            "application/vnd.oci.image.config.v1+json" | "application/vnd.docker.container.image.v1+json" => {
                Self::Config
            }
            "application/vnd.oci.image.layer.v1.tar"
            | "application/vnd.oci.image.layer.v1.tar+gzip"
            | "application/vnd.oci.image.layer.v1.tar+zstd"
            | "application/vnd.oci.image.layer.nondistributable.v1.tar"
            | "application/vnd.oci.image.layer.nondistributable.v1.tar+gzip"
            | "application/vnd.oci.image.layer.nondistributable.v1.tar+zstd"
            | "application/vnd.docker.image.rootfs.diff.tar"
            | "application/vnd.docker.image.rootfs.diff.tar.gzip"
            | "application/vnd.docker.image.rootfs.diff.tar.zstd"
            | "application/vnd.docker.image.rootfs.foreign.diff.tar"
            | "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip" => Self::Layer,
            _ => return None,
        })
    }
}

/// Reads `null` as the type's empty value, as Go writes it.
fn null_is_empty<'de, D: Deserializer<'de>, T: Default + Deserialize<'de>>(d: D) -> Result<T, D::Error> {
    Ok(Option::<T>::deserialize(d)?.unwrap_or_default())
}

/// Text to text, in order.
pub type Annotations = BTreeMap<String, String>;

/// A pointer to a blob (descriptor.md). Its `urls` are not read: nothing is ever fetched from elsewhere.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Descriptor {
    /// What the blob is.
    #[serde(default)]
    pub media_type: String,
    /// Its digest.
    pub digest: Digest,
    /// Its bytes.
    pub size: u64,
    /// Which platform it is for, within an index.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub platform: Option<Platform>,
    /// A tag (`org.opencontainers.image.ref.name`) and more.
    #[serde(default, deserialize_with = "null_is_empty", skip_serializing_if = "BTreeMap::is_empty")]
    pub annotations: Annotations,
}

impl Descriptor {
    /// What it points to.
    pub fn media(&self) -> Option<Media> {
        Media::parse(&self.media_type)
    }

    /// The tag that an index gives it.
    pub fn tag(&self) -> Option<&str> {
        self.annotations.get("org.opencontainers.image.ref.name").map(String::as_str)
    }

    /// Its whole name, where the index has it beside the tag (`docker save` since version 25, containerd); else its tag.
    pub fn name(&self) -> Option<&str> {
        self.annotations.get("io.containerd.image.name").map(String::as_str).or_else(|| self.tag())
    }

    /// Whether a tag, or a name as people write it, means this one.
    pub fn is_called(&self, wanted: &str) -> bool {
        let whole = wanted.parse::<Reference>().map(|r| r.to_string());
        self.tag().is_some_and(|tag| tag == wanted)
            || self.name().is_some_and(|name| {
                name == wanted
                    || name.strip_suffix(wanted).is_some_and(|n| n.ends_with(':'))
                    || whole.is_ok_and(|whole| whole == name)
            })
    }

    /// Refuses bytes that are not the ones described.
    pub fn check(&self, bytes: &[u8]) -> Result<()> {
        if bytes.len() as u64 != self.size {
            fail!(Corrupt, "blob {}: {} bytes, but the image says {}", self.digest, bytes.len(), self.size);
        }
        digest::expect("blob", &self.digest, &Digest::of(self.digest.algorithm(), bytes))
    }
}

/// An index: several images, or several platforms of one.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Index {
    /// Always 2.
    #[serde(default)]
    pub schema_version: u32,
    /// Its own media type.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub media_type: String,
    /// What it lists.
    #[serde(default, deserialize_with = "null_is_empty")]
    pub manifests: Vec<Descriptor>,
}

/// A manifest: one image for one platform.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Manifest {
    /// Always 2.
    #[serde(default)]
    pub schema_version: u32,
    /// Its configuration.
    pub config: Descriptor,
    /// Its layers, base first.
    #[serde(default, deserialize_with = "null_is_empty")]
    pub layers: Vec<Descriptor>,
    /// What its maker says of it.
    #[serde(default, deserialize_with = "null_is_empty", skip_serializing_if = "BTreeMap::is_empty")]
    pub annotations: Annotations,
}

/// Either, as a registry or an index hands it over.
#[derive(Debug, Clone)]
pub enum Document {
    /// An index.
    Index(Index),
    /// A manifest.
    Manifest(Box<Manifest>),
}

/// The members that tell an index from a manifest.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Shape {
    #[serde(default)]
    schema_version: u32,
    #[serde(default)]
    media_type: String,
    manifests: Option<serde::de::IgnoredAny>,
    config: Option<serde::de::IgnoredAny>,
    layers: Option<serde::de::IgnoredAny>,
    fs_layers: Option<serde::de::IgnoredAny>,
}

impl Document {
    /// Parses an index or a manifest. `media_type` is what the descriptor, or the registry's Content-Type, said.
    /// Errors: neither or both of the two; another media type inside than outside; an old schema; a limit.
    pub fn parse(bytes: &[u8], media_type: &str, limits: &Limits) -> Result<Self> {
        let shape: Shape = json(bytes, "manifest")?;
        if shape.schema_version == 1 || shape.fs_layers.is_some() {
            fail!(
                Unsupported,
                "a manifest of Docker's schema 1; re-push the image with a tool of this decade"
            );
        }
        if !shape.media_type.is_empty() && !media_type.is_empty() && shape.media_type != media_type {
            fail!(
                Corrupt,
                "a manifest that says {} was announced as {}",
                shown(shape.media_type.as_bytes()),
                shown(media_type.as_bytes())
            );
        }
        let is_manifest = shape.config.is_some() || shape.layers.is_some();
        let said = Media::parse(if media_type.is_empty() { &shape.media_type } else { media_type });
        match (shape.manifests.is_some(), is_manifest, said) {
            (true, true, _) => {
                fail!(Corrupt, "a document that is a manifest and an index at once (CVE-2021-41190)")
            }
            (true, false, Some(Media::Index) | None) => Ok(Self::Index(Index::parse(bytes, limits)?)),
            (false, true, Some(Media::Manifest) | None) => {
                Ok(Self::Manifest(Box::new(Manifest::parse(bytes, limits)?)))
            }
            (false, false, _) => fail!(Corrupt, "a document that is neither a manifest nor an index"),
            _ => fail!(
                Corrupt,
                "a manifest's members contradict its media type {}",
                shown(media_type.as_bytes())
            ),
        }
    }
}

impl Index {
    /// Parses an index. Errors: not JSON of that shape, too many members.
    pub fn parse(bytes: &[u8], limits: &Limits) -> Result<Self> {
        let index: Self = json(bytes, "index")?;
        if index.manifests.len() > limits.manifests {
            fail!(
                Limit,
                "an index of {} manifests; at most {} are read",
                index.manifests.len(),
                limits.manifests
            );
        }
        Ok(index)
    }
}

impl Manifest {
    /// Parses a manifest. Errors: not JSON of that shape, layers or a configuration of unknown media type, too many layers.
    pub fn parse(bytes: &[u8], limits: &Limits) -> Result<Self> {
        let manifest: Self = json(bytes, "manifest")?;
        if manifest.layers.len() > limits.layers {
            fail!(Limit, "an image of {} layers; at most {} are read", manifest.layers.len(), limits.layers);
        }
        if manifest.config.media() != Some(Media::Config) {
            fail!(
                Unsupported,
                "not a container image: its configuration is a {}",
                shown(manifest.config.media_type.as_bytes())
            );
        }
        for layer in &manifest.layers {
            if layer.media() != Some(Media::Layer) {
                fail!(
                    Unsupported,
                    "layer {}: media type {} is none that can be unpacked",
                    layer.digest,
                    shown(layer.media_type.as_bytes())
                );
            }
        }
        Ok(manifest)
    }
}

/// An image's configuration (config.md), with the members that mean something to a runtime.
#[derive(Debug, Clone, Default, Deserialize)]
pub struct ImageConfig {
    /// os, architecture, variant.
    #[serde(flatten)]
    pub platform: Platform,
    /// `os.version`.
    #[serde(default, rename = "os.version")]
    pub os_version: Option<String>,
    /// `os.features`.
    #[serde(default, rename = "os.features", deserialize_with = "null_is_empty")]
    pub os_features: Vec<String>,
    /// Who made it.
    #[serde(default)]
    pub author: Option<String>,
    /// When it was made, RFC 3339.
    #[serde(default)]
    pub created: Option<String>,
    /// How to run it.
    #[serde(default, deserialize_with = "null_is_empty")]
    pub config: Execution,
    /// Its layers.
    pub rootfs: RootFs,
}

/// `config`: how to run the image.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct Execution {
    /// `user[:group]`, names or numbers.
    #[serde(default, deserialize_with = "null_is_empty")]
    pub user: String,
    /// `80/tcp` and the like; the values are empty objects.
    #[serde(default, deserialize_with = "null_is_empty")]
    pub exposed_ports: BTreeMap<String, serde::de::IgnoredAny>,
    /// `NAME=value`.
    #[serde(default, deserialize_with = "null_is_empty")]
    pub env: Vec<String>,
    /// The program and its first arguments.
    #[serde(default, deserialize_with = "null_is_empty")]
    pub entrypoint: Vec<String>,
    /// Further arguments, which a user's replace.
    #[serde(default, deserialize_with = "null_is_empty")]
    pub cmd: Vec<String>,
    /// Directories that should outlive the container; the values are empty objects.
    #[serde(default, deserialize_with = "null_is_empty")]
    pub volumes: BTreeMap<String, serde::de::IgnoredAny>,
    /// Where the program starts.
    #[serde(default, deserialize_with = "null_is_empty")]
    pub working_dir: String,
    /// What its maker says of it.
    #[serde(default, deserialize_with = "null_is_empty")]
    pub labels: Annotations,
    /// The signal that asks it to stop.
    #[serde(default, deserialize_with = "null_is_empty")]
    pub stop_signal: String,
}

/// `rootfs`: the digests of the uncompressed layers, base first.
#[derive(Debug, Clone, Default, Deserialize)]
pub struct RootFs {
    /// Always `layers`.
    #[serde(rename = "type")]
    pub kind: String,
    /// One for each layer of the manifest.
    #[serde(deserialize_with = "null_is_empty")]
    pub diff_ids: Vec<Digest>,
}

impl ImageConfig {
    /// Parses a configuration for a manifest of `layers` layers.
    /// Errors: not JSON of that shape; another number of diff_ids than of layers; no operating system or architecture.
    pub fn parse(bytes: &[u8], layers: usize) -> Result<Self> {
        let config: Self = json(bytes, "image configuration")?;
        if config.rootfs.kind != "layers" {
            fail!(
                Unsupported,
                "image configuration: rootfs.type is {}, not layers",
                shown(config.rootfs.kind.as_bytes())
            );
        }
        if config.rootfs.diff_ids.len() != layers {
            fail!(
                Corrupt,
                "the image has {layers} layers, but its configuration lists {} diff_ids",
                config.rootfs.diff_ids.len()
            );
        }
        Ok(config)
    }
}

/// Parses JSON; the error says what was being parsed and where it went wrong.
pub(crate) fn json<'a, T: Deserialize<'a>>(bytes: &'a [u8], what: &str) -> Result<T> {
    serde_json::from_slice(bytes)
        .map_err(|e| Error::new(Kind::Corrupt, e.to_string()))
        .doing(|| format!("{what} is not valid"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    const HEX: &str = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
    const OCI: &str = "application/vnd.oci.image.manifest.v1+json";

    fn parse(v: serde_json::Value, media: &str) -> Result<Document> {
        Document::parse(v.to_string().as_bytes(), media, &Limits::default())
    }

    fn manifest() -> serde_json::Value {
        json!({"schemaVersion": 2, "config": {"mediaType": "application/vnd.oci.image.config.v1+json",
            "digest": format!("sha256:{HEX}"), "size": 2}, "layers": [{"mediaType":
            "application/vnd.docker.image.rootfs.diff.tar.gzip", "digest": format!("sha256:{HEX}"), "size": 7}]})
    }

    #[test]
    fn manifests_and_indexes() {
        assert!(matches!(parse(manifest(), OCI), Ok(Document::Manifest(m)) if m.layers.len() == 1));
        assert!(matches!(parse(json!({"schemaVersion": 2, "manifests": []}), ""), Ok(Document::Index(_))));
    }

    #[test]
    fn what_is_refused() {
        let with = |key: &str, value: serde_json::Value| {
            let mut m = manifest();
            m[key] = value;
            m
        };
        assert!(parse(with("manifests", json!([])), OCI).unwrap_err().to_string().contains("at once"));
        assert!(parse(with("mediaType", json!("application/vnd.oci.image.index.v1+json")), OCI).is_err());
        assert!(parse(manifest(), "application/vnd.oci.image.index.v1+json").is_err());
        assert!(parse(json!({"schemaVersion": 2}), OCI).is_err());
        assert!(
            parse(json!({"schemaVersion": 1, "fsLayers": []}), OCI)
                .unwrap_err()
                .to_string()
                .contains("schema 1")
        );
        for size in [json!(-1), json!(1.5), json!("7"), json!(1e30)] {
            let mut m = manifest();
            m["layers"][0]["size"] = size;
            assert!(parse(m, OCI).is_err());
        }
        let mut encrypted = manifest();
        encrypted["layers"][0]["mediaType"] = json!("application/vnd.oci.image.layer.v1.tar+gzip+encrypted");
        assert_eq!(parse(encrypted, OCI).unwrap_err().kind(), Kind::Unsupported);
    }

    #[test]
    fn diff_ids_must_be_as_many_as_layers() {
        let text = json!({"os": "linux", "architecture": "amd64", "config": null,
            "rootfs": {"type": "layers", "diff_ids": [format!("sha256:{HEX}")]}})
        .to_string();
        assert!(ImageConfig::parse(text.as_bytes(), 1).is_ok());
        assert!(
            ImageConfig::parse(text.as_bytes(), 2).is_err()
                && ImageConfig::parse(text.as_bytes(), 0).is_err()
        );
    }

    #[test]
    fn a_blob_must_be_what_its_descriptor_says() {
        let mut d = Descriptor {
            media_type: String::new(),
            digest: empty_digest(),
            size: 0,
            platform: None,
            annotations: Annotations::new(),
        };
        assert!(d.check(b"").is_ok() && d.check(b"x").is_err());
        d.size = 1;
        assert!(d.check(b"").is_err() && d.check(b"x").is_err());
    }

    fn empty_digest() -> Digest {
        format!("sha256:{HEX}").parse().unwrap()
    }
}
