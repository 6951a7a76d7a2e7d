//! The OCI's layout: `oci-layout`, `index.json`, `blobs/`. image-layout.md, image-index.md.

use super::{Files, Image, Layer, Listed, Query, check_platform, choose, read_json};
use crate::digest::Digest;
use crate::error::{Doing, Result, fail, shown};
use crate::limits::Limits;
use crate::manifest::{Descriptor, Document, ImageConfig, Index, Manifest, Media, json};
use crate::platform::Platform;
use serde::Deserialize;

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Marker {
    image_layout_version: String,
}

/// Refuses a layout of another version.
pub(super) fn check_version(files: &dyn Files) -> Result<()> {
    let marker: Marker = json(&read_json(files, "oci-layout", &Limits::default())?, "oci-layout")?;
    if !marker.image_layout_version.starts_with("1.") {
        fail!(Unsupported, "a layout of version {}", shown(marker.image_layout_version.as_bytes()));
    }
    Ok(())
}

fn index(files: &dyn Files, limits: &Limits) -> Result<Index> {
    Index::parse(&read_json(files, "index.json", limits)?, limits)
}

/// A small blob, verified.
fn read(files: &dyn Files, descriptor: &Descriptor, limits: &Limits) -> Result<Vec<u8>> {
    let bytes = read_json(files, &descriptor.digest.blob_path(), limits)?;
    descriptor.check(&bytes)?;
    Ok(bytes)
}

fn document(files: &dyn Files, descriptor: &Descriptor, limits: &Limits) -> Result<Document> {
    let bytes = read(files, descriptor, limits)?;
    Document::parse(&bytes, &descriptor.media_type, limits).doing(|| format!("read {}", descriptor.digest))
}

/// Everything that the index names.
pub(super) fn list(files: &dyn Files, limits: &Limits) -> Result<Vec<Listed>> {
    let roots = index(files, limits)?.manifests;
    let images = roots.iter().filter(|d| matches!(d.media(), Some(Media::Index | Media::Manifest)));
    images.map(|root| listed(files, root, limits)).collect()
}

fn listed(files: &dyn Files, root: &Descriptor, limits: &Limits) -> Result<Listed> {
    let mut platforms = Vec::new();
    for descriptor in flatten(files, root, limits)? {
        platforms.push(platform(files, &descriptor, limits)?);
    }
    platforms.retain(|p| p.os != "unknown");
    Ok(Listed {
        name: root.name().unwrap_or_default().to_owned(),
        digest: Some(root.digest.clone()),
        platforms,
    })
}

/// All manifests below a descriptor, however indexes are nested.
fn flatten(files: &dyn Files, root: &Descriptor, limits: &Limits) -> Result<Vec<Descriptor>> {
    let (mut all, mut level) = (Vec::new(), vec![root.clone()]);
    for _ in 0..=limits.index_depth {
        let mut below = Vec::new();
        for descriptor in level {
            match descriptor.media() {
                Some(Media::Manifest) => all.push(descriptor),
                Some(Media::Index) => match document(files, &descriptor, limits)? {
                    Document::Index(index) => below.extend(index.manifests),
                    Document::Manifest(_) => fail!(Corrupt, "{} should be an index", descriptor.digest),
                },
                // Indexes may list what is no image (attestations, artifacts).
                _ => {}
            }
        }
        if all.len() + below.len() > limits.manifests {
            fail!(Limit, "more than {} manifests below {}", limits.manifests, root.digest);
        }
        if below.is_empty() {
            return Ok(all);
        }
        level = below;
    }
    fail!(Limit, "indexes within indexes, more than {} deep", limits.index_depth)
}

/// The platform that an index says, or else the image's configuration.
fn platform(files: &dyn Files, descriptor: &Descriptor, limits: &Limits) -> Result<Platform> {
    match &descriptor.platform {
        Some(platform) if !platform.os.is_empty() => Ok(platform.clone()),
        _ => Ok(parts(files, descriptor, limits)?.1.platform),
    }
}

fn parts(
    files: &dyn Files,
    descriptor: &Descriptor,
    limits: &Limits,
) -> Result<(Box<Manifest>, ImageConfig)> {
    let Document::Manifest(manifest) = document(files, descriptor, limits)? else {
        fail!(Corrupt, "{} should be a manifest", descriptor.digest);
    };
    let config = read(files, &manifest.config, limits).doing(|| "read the image's configuration")?;
    let config = ImageConfig::parse(&config, manifest.layers.len())?;
    Ok((manifest, config))
}

/// The one image that is asked for.
pub(super) fn image(files: &dyn Files, query: &Query, limits: &Limits) -> Result<Image> {
    let wanted = query.platform.clone().unwrap_or_else(Platform::host);
    let (name, manifests) = candidates(files, query, limits)?;
    let chosen = best(files, manifests, &wanted, limits)?;
    let (manifest, config) = parts(files, &chosen, limits)?;
    check_platform(&config, &wanted)?;
    let layers = manifest.layers.iter().zip(&config.rootfs.diff_ids);
    let layers =
        layers.map(|(descriptor, diff_id)| layer(files, descriptor, diff_id)).collect::<Result<_>>()?;
    Ok(Image { name, digest: Some(chosen.digest), config, annotations: manifest.annotations, layers })
}

/// The manifests among which the platform decides, and the name under which they were found.
fn candidates(files: &dyn Files, query: &Query, limits: &Limits) -> Result<(String, Vec<Descriptor>)> {
    let roots: Vec<Descriptor> = index(files, limits)?.manifests;
    let roots: Vec<Descriptor> =
        roots.into_iter().filter(|d| matches!(d.media(), Some(Media::Index | Media::Manifest))).collect();
    // An index without tags that lists platforms is one image (as skopeo and others write it).
    let bare = query.tag.is_none() && query.digest.is_none() && roots.len() > 1;
    if bare && roots.iter().all(|d| d.tag().is_none() && d.platform.is_some()) {
        return Ok((String::new(), roots));
    }
    if let Some(digest) = &query.digest {
        return pinned(files, &roots, digest, limits);
    }
    let fits = |d: &&Descriptor| query.tag.as_ref().is_none_or(|tag| d.is_called(tag));
    let mut fitting: Vec<&Descriptor> = roots.iter().filter(fits).collect();
    if query.tag.is_none() && fitting.len() > 1 && fitting.iter().all(|d| d.digest == fitting[0].digest) {
        fitting.truncate(1);
    }
    // One name for several platforms: the platform decides.
    if query.tag.is_some()
        && fitting.len() > 1
        && fitting.iter().all(|d| d.name() == fitting[0].name() && d.platform.is_some())
    {
        let name = fitting[0].name().unwrap_or_default().to_owned();
        return Ok((name, fitting.into_iter().cloned().collect()));
    }
    let choices: Vec<String> =
        roots.iter().map(|d| d.name().map_or(d.digest.to_string(), |n| shown(n.as_bytes()))).collect();
    let root = choose(fitting, query.tag.as_deref().unwrap_or_default(), &choices)?;
    Ok((root.name().unwrap_or_default().to_owned(), flatten(files, root, limits)?))
}

/// What a digest names: a root, or anything below one.
fn pinned(
    files: &dyn Files,
    roots: &[Descriptor],
    digest: &Digest,
    limits: &Limits,
) -> Result<(String, Vec<Descriptor>)> {
    for root in roots {
        let name = root.name().unwrap_or_default().to_owned();
        if root.digest == *digest {
            return Ok((name, flatten(files, root, limits)?));
        }
        if let Some(found) = flatten(files, root, limits)?.into_iter().find(|d| d.digest == *digest) {
            return Ok((name, vec![found]));
        }
    }
    fail!(NotFound, "no image {digest} in it")
}

/// The manifest that suits the platform best; of equals, the first (image-index.md, "manifests").
fn best(
    files: &dyn Files,
    manifests: Vec<Descriptor>,
    wanted: &Platform,
    limits: &Limits,
) -> Result<Descriptor> {
    if let [only] = &manifests[..]
        && only.platform.is_none()
    {
        return Ok(only.clone());
    }
    let mut found: Option<(u8, &Descriptor)> = None;
    let mut seen = Vec::new();
    for descriptor in &manifests {
        let platform = platform(files, descriptor, limits)?;
        if let Some(score) = platform.suits(wanted)
            && found.is_none_or(|(best, _)| score > best)
        {
            found = Some((score, descriptor));
        }
        seen.push(platform.to_string());
    }
    seen.retain(|p| !p.starts_with("unknown"));
    match found {
        Some((_, descriptor)) => Ok(descriptor.clone()),
        None => fail!(NotFound, "the image is not made for {wanted}; --platform can be {}", seen.join(", ")),
    }
}

fn layer(files: &dyn Files, descriptor: &Descriptor, diff_id: &Digest) -> Result<Layer> {
    let blob = files.file(&descriptor.digest.blob_path()).doing(|| format!("layer {}", descriptor.digest))?;
    if blob.len() != descriptor.size {
        fail!(
            Corrupt,
            "layer {}: {} bytes, but the image says {}",
            descriptor.digest,
            blob.len(),
            descriptor.size
        );
    }
    Ok(Layer { blob, digest: Some(descriptor.digest.clone()), diff_id: diff_id.clone() })
}
