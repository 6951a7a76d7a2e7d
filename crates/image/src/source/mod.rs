//! Where images come from: a layout directory, an oci-archive, a docker-archive, told apart by looking.
//!
//! What belongs here: finding the one image that the caller means, and opening its parts. An archive is a set of
//! named files just as a directory is ([`Files`]); what the names mean is in [`oci`] and [`docker`]. Image
//! specification, image-layout.md. Verifying layers happens while they are unpacked ([`crate::layer::stream`]).

mod archive;
mod directory;
mod docker;
mod oci;

use crate::blob::Blob;
use crate::digest::Digest;
use crate::error::{Doing, Error, Kind, Result, fail};
use crate::limits::Limits;
use crate::manifest::{Annotations, ImageConfig};
use crate::platform::Platform;
use std::path::Path;

pub use directory::Directory;

/// A set of named files.
pub trait Files {
    /// The regular file of this name. Errors: none, or something else than a regular file.
    fn file(&self, name: &str) -> Result<Blob>;

    /// Whether there is such a name.
    fn has(&self, name: &str) -> bool;
}

/// Which image of a source.
#[derive(Debug, Clone, Default)]
pub struct Query {
    /// By its tag, or by its whole name.
    pub tag: Option<String>,
    /// By its digest: of the manifest, or of the index that leads to it.
    pub digest: Option<Digest>,
    /// For this platform; otherwise the host's.
    pub platform: Option<Platform>,
}

/// One image for one platform, verified but for its layers.
#[derive(Debug, Clone)]
pub struct Image {
    /// The name that the source gives it, for messages and annotations.
    pub name: String,
    /// The digest of its manifest; a docker archive has none.
    pub digest: Option<Digest>,
    /// Its configuration.
    pub config: ImageConfig,
    /// The manifest's annotations.
    pub annotations: Annotations,
    /// Its layers, base first.
    pub layers: Vec<Layer>,
}

/// A layer, not read yet.
#[derive(Debug, Clone)]
pub struct Layer {
    /// Its compressed bytes.
    pub blob: Blob,
    /// The digest of these; a docker archive gives none.
    pub digest: Option<Digest>,
    /// The digest of the plain tar.
    pub diff_id: Digest,
}

/// What a source holds, for `inspect` and for error messages.
#[derive(Debug, Clone)]
pub struct Listed {
    /// Its tag or name; empty when it has none.
    pub name: String,
    /// The digest of its manifest or index.
    pub digest: Option<Digest>,
    /// The platforms of an index; one for a single image.
    pub platforms: Vec<Platform>,
}

enum Form {
    Oci,
    Docker,
}

/// An opened source.
pub struct Source {
    files: Box<dyn Files>,
    form: Form,
    limits: Limits,
}

impl Source {
    /// Opens a layout directory or an archive; `-` is standard input.
    /// Errors: nothing there, or neither of the three forms.
    pub fn open(location: &str, limits: &Limits) -> Result<Self> {
        let files: Box<dyn Files> = if location != "-" && Path::new(location).is_dir() {
            Box::new(Directory::open(Path::new(location))?)
        } else {
            Box::new(archive::Archive::open(location, limits)?)
        };
        Self::of(files, limits).doing(|| format!("read image {}", location.escape_debug()))
    }

    /// Reads images out of these files. Both forms at once (docker save since version 25): the OCI's counts.
    pub fn of(files: Box<dyn Files>, limits: &Limits) -> Result<Self> {
        let form = if files.has("oci-layout") || files.has("index.json") {
            oci::check_version(files.as_ref())?;
            Form::Oci
        } else if files.has("manifest.json") {
            Form::Docker
        } else {
            fail!(Unsupported, "no image: there is neither an oci-layout nor a manifest.json in it");
        };
        Ok(Self { files, form, limits: limits.clone() })
    }

    /// Everything in it.
    pub fn list(&self) -> Result<Vec<Listed>> {
        match self.form {
            Form::Oci => oci::list(self.files.as_ref(), &self.limits),
            Form::Docker => docker::list(self.files.as_ref(), &self.limits),
        }
    }

    /// The one image that is asked for. Errors: none or several fit, with the choices; one that cannot run here.
    pub fn image(&self, query: &Query) -> Result<Image> {
        match self.form {
            Form::Oci => oci::image(self.files.as_ref(), query, &self.limits),
            Form::Docker => docker::image(self.files.as_ref(), query, &self.limits),
        }
    }
}

/// Reads a small file whole.
fn read_json(files: &dyn Files, name: &str, limits: &Limits) -> Result<Vec<u8>> {
    let blob = files.file(name)?;
    if blob.len() > limits.json_bytes {
        fail!(Limit, "{name} has {} bytes; at most {} are read", blob.len(), limits.json_bytes);
    }
    blob.bytes().doing(|| format!("read {name}"))
}

/// Refuses an image that is not for the platform asked for (by default the host's).
fn check_platform(config: &ImageConfig, wanted: &Platform) -> Result<()> {
    if config.platform.suits(wanted).is_some() {
        return Ok(());
    }
    let mine = &config.platform;
    Err(Error::new(
        Kind::Unsupported,
        format!("the image is for {mine}, not for {wanted}; --platform {mine} takes it all the same"),
    ))
}

/// The error for a name that is not there, or not the only one.
fn choose<'a, T>(fitting: Vec<&'a T>, asked: &str, choices: &[String]) -> Result<&'a T> {
    let list = || if choices.is_empty() { "nothing".to_owned() } else { choices.join(", ") };
    match fitting[..] {
        [one] => Ok(one),
        [] => fail!(NotFound, "no image {asked} in it; there is {}", list()),
        _ => fail!(Ambiguous, "several images; name one of {}", list()),
    }
}

/// Splits `path[:tag][@digest]`. A path that exists as it stands is taken whole.
/// Errors: a malformed digest.
pub fn split_location(text: &str) -> Result<(String, Query)> {
    let mut query = Query::default();
    if Path::new(text).exists() {
        return Ok((text.to_owned(), query));
    }
    let (rest, digest) = match text.split_once('@') {
        Some((rest, digest)) => (rest, Some(digest.parse::<Digest>()?)),
        None => (text, None),
    };
    query.digest = digest;
    if Path::new(rest).exists() || rest == "-" {
        return Ok((rest.to_owned(), query));
    }
    // The shortest path that exists: a tag may itself hold colons (a whole reference).
    for (i, _) in rest.match_indices(':') {
        if Path::new(&rest[..i]).exists() || &rest[..i] == "-" {
            query.tag = Some(rest[i + 1..].to_owned());
            return Ok((rest[..i].to_owned(), query));
        }
    }
    Err(Error::new(Kind::NotFound, format!("{}: there is no such file or directory", rest.escape_debug())))
}
