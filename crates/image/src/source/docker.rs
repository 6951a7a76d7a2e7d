//! What `docker save` writes: `manifest.json`, which names a configuration and layers by file.
//!
//! It has no digests but the diffIDs within the configuration; a file name that is a digest is checked as one.
//! Docker's image specification v1.2, "Combined Image JSON + Filesystem Changeset Format".

use super::{Files, Image, Layer, Listed, Query, check_platform, choose, read_json};
use crate::digest::{Algorithm, Digest};
use crate::error::{Result, fail, shown};
use crate::limits::Limits;
use crate::manifest::{Annotations, ImageConfig, json};
use crate::platform::Platform;
use serde::Deserialize;

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Saved {
    config: String,
    #[serde(default)]
    repo_tags: Option<Vec<String>>,
    #[serde(default)]
    layers: Option<Vec<String>>,
}

impl Saved {
    fn tags(&self) -> &[String] {
        self.repo_tags.as_deref().unwrap_or_default()
    }

    fn layers(&self) -> &[String] {
        self.layers.as_deref().unwrap_or_default()
    }

    fn read_config(&self, files: &dyn Files, limits: &Limits) -> Result<ImageConfig> {
        let bytes = read_json(files, &self.config, limits)?;
        if let Some(named) = digest_in(&self.config)
            && named != Digest::of(Algorithm::Sha256, &bytes)
        {
            fail!(
                Corrupt,
                "{}: its content does not have the digest that is its name",
                shown(self.config.as_bytes())
            );
        }
        ImageConfig::parse(&bytes, self.layers().len())
    }
}

fn saved(files: &dyn Files, limits: &Limits) -> Result<Vec<Saved>> {
    let all: Vec<Saved> = json(&read_json(files, "manifest.json", limits)?, "manifest.json")?;
    if all.len() > limits.manifests || all.iter().any(|s| s.layers().len() > limits.layers) {
        fail!(Limit, "manifest.json lists too many images or layers");
    }
    Ok(all)
}

/// The digest that a file name is: `<hex>.json`, or `blobs/sha256/<hex>`. A layer's own file is called otherwise.
fn digest_in(name: &str) -> Option<Digest> {
    let last = name.rsplit('/').next().unwrap_or(name);
    format!("sha256:{}", last.strip_suffix(".json").unwrap_or(last)).parse().ok()
}

/// Everything that manifest.json names.
pub(super) fn list(files: &dyn Files, limits: &Limits) -> Result<Vec<Listed>> {
    let mut all = Vec::new();
    for image in saved(files, limits)? {
        let platforms = vec![image.read_config(files, limits)?.platform];
        let names = if image.tags().is_empty() { vec![String::new()] } else { image.tags().to_vec() };
        all.extend(names.into_iter().map(|name| Listed { name, digest: None, platforms: platforms.clone() }));
    }
    Ok(all)
}

/// The one image that is asked for; a digest here is that of the configuration.
pub(super) fn image(files: &dyn Files, query: &Query, limits: &Limits) -> Result<Image> {
    let all = saved(files, limits)?;
    let wanted = query.platform.clone().unwrap_or_else(Platform::host);
    let fits = |s: &&Saved| {
        let tag = query
            .tag
            .as_ref()
            .is_none_or(|tag| s.tags().iter().any(|t| t == tag || t.ends_with(&format!(":{tag}"))));
        tag && query.digest.as_ref().is_none_or(|d| digest_in(&s.config).as_ref() == Some(d))
    };
    let choices: Vec<String> = all.iter().flat_map(|s| s.tags()).map(|t| shown(t.as_bytes())).collect();
    let one = choose(all.iter().filter(fits).collect(), query.tag.as_deref().unwrap_or_default(), &choices)?;
    let config = one.read_config(files, limits)?;
    check_platform(&config, &wanted)?;
    let layers = one.layers().iter().zip(&config.rootfs.diff_ids);
    let layers = layers.map(|(name, diff_id)| layer(files, name, diff_id)).collect::<Result<_>>()?;
    let name = one.tags().first().cloned().unwrap_or_default();
    Ok(Image { name, digest: None, config, annotations: Annotations::new(), layers })
}

fn layer(files: &dyn Files, name: &str, diff_id: &Digest) -> Result<Layer> {
    let digest = name.starts_with("blobs/").then(|| digest_in(name)).flatten();
    Ok(Layer { blob: files.file(name)?, digest, diff_id: diff_id.clone() })
}
