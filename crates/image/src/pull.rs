//! An image from a registry into a store: manifest, configuration, then the layers, several at once.
//!
//! A blob that is not whole lies in `partial` under its digest, locked while someone fetches it; whoever comes later goes
//! on where it ended. Its digest is computed over every byte, old and new, before it gets its place.

use crate::digest::{self, Digest};
use crate::error::{Doing, Error, Kind, Result, fail};
use crate::events::{Event, Events};
use crate::limits::Limits;
use crate::manifest::{Descriptor, Document, ImageConfig, Manifest, Media};
use crate::platform::Platform;
use crate::reference::Reference;
use crate::registry::{self, Fetched, Options, Registry};
use crate::store::Store;
use coracle_sys::{fs, libc};
use std::fs::{File, OpenOptions};
use std::io::{Read, Seek, SeekFrom, Write};
use std::os::fd::AsFd;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

/// Layers fetched at once.
const AT_ONCE: usize = 3;
/// Times that the same is asked for, when a connection breaks or the server cannot now.
const PATIENCE: usize = 4;
/// The longest that a server may keep a command waiting, in seconds, before it is asked again.
const LONGEST: u64 = 60;

/// What was pulled.
#[derive(Debug, Clone)]
pub struct Pulled {
    /// Its name in the store.
    pub name: String,
    /// Its manifest's digest.
    pub digest: Digest,
    /// Compressed bytes of its layers.
    pub bytes: u64,
}

/// Pulls an image for a platform (the host's by default). Errors: no server has it; any byte is not what it should be.
pub fn pull(
    store: &Store,
    reference: &Reference,
    platform: Option<&Platform>,
    options: &Options,
    limits: &Limits,
    events: &dyn Events,
) -> Result<Pulled> {
    let _hold = store.hold()?;
    let (registry, first) = reach(reference, options, limits, events)?;
    let wanted = platform.cloned().unwrap_or_else(Platform::host);
    let (fetched, manifest) = resolve(&registry, first, &wanted, limits, events)?;
    let job = Job { store, registry: &registry, events };
    let config = job.small(&manifest.config, limits).doing(|| "the image's configuration")?;
    let config = ImageConfig::parse(&config, manifest.layers.len())?;
    if config.platform.suits(&wanted).is_none() {
        let mine = &config.platform;
        fail!(
            Unsupported,
            "the image is for {mine}, not for {wanted}; --platform {mine} takes it all the same"
        );
    }
    let bytes = manifest.layers.iter().fold(0u64, |sum, l| sum.saturating_add(l.size));
    if bytes > limits.total_bytes {
        fail!(Limit, "the image's layers have {bytes} bytes; --max-size allows more");
    }
    job.layers(&manifest.layers)?;
    let size = fetched.bytes.len() as u64;
    store.put(&fetched.digest, &fetched.bytes)?;
    let media_type = match fetched.media_type.as_str() {
        "" => "application/vnd.oci.image.manifest.v1+json".to_owned(),
        other => other.to_owned(),
    };
    let name = reference.to_string();
    let digest = fetched.digest.clone();
    let platform = Some(config.platform);
    store.name(&name, Descriptor { media_type, digest, size, platform, annotations: Default::default() })?;
    Ok(Pulled { name, digest: fetched.digest, bytes })
}

/// The first server that has it.
fn reach(
    reference: &Reference,
    options: &Options,
    limits: &Limits,
    events: &dyn Events,
) -> Result<(Registry, Fetched)> {
    let mut failed: Option<Error> = None;
    for connect in registry::servers(reference, options)? {
        let tried = patiently(events, &connect).and_then(|r| {
            let fetched = patiently(events, || r.manifest(&r.reference.version(), limits))?;
            Ok((r, fetched))
        });
        match tried {
            Ok(found) => return Ok(found),
            Err(e) => {
                if let Some(before) = failed.replace(e) {
                    events.event(Event::Note(&before.to_string()));
                }
            }
        }
    }
    Err(failed.unwrap_or_else(|| Error::new(Kind::NotFound, "no server to ask")))
}

/// Asks again while the server says that it cannot now.
fn patiently<T>(events: &dyn Events, ask: impl Fn() -> Result<T>) -> Result<T> {
    let mut attempt = 1;
    loop {
        match ask() {
            Err(e) if matches!(e.kind(), Kind::Later(_)) && may_wait(&e, attempt, events) => attempt += 1,
            other => return other,
        }
    }
}

/// Waits before the next attempt, as long as the server asks for, and longer each time. False: it is not worth it.
fn may_wait(failed: &Error, attempt: usize, events: &dyn Events) -> bool {
    let asked = if let Kind::Later(seconds) = failed.kind() { seconds } else { 0 };
    if attempt >= PATIENCE || asked > LONGEST {
        return false;
    }
    events.event(Event::Note(&format!("{failed}; trying again")));
    std::thread::sleep(Duration::from_secs(asked).max(Duration::from_millis(200 << attempt)));
    true
}

/// Through indexes to the manifest for a platform.
fn resolve(
    registry: &Registry,
    mut at: Fetched,
    wanted: &Platform,
    limits: &Limits,
    events: &dyn Events,
) -> Result<(Fetched, Manifest)> {
    for _ in 0..=limits.index_depth {
        match Document::parse(&at.bytes, &at.media_type, limits)? {
            Document::Manifest(manifest) => return Ok((at, *manifest)),
            Document::Index(index) => {
                let chosen = choose(&index.manifests, wanted)?.clone();
                at = patiently(events, || registry.manifest(&chosen.digest.to_string(), limits))?;
                chosen.check(&at.bytes)?;
                // What leads to it decides what it is; the registry's word must not differ.
                if at.media_type.is_empty() {
                    at.media_type = chosen.media_type;
                } else if at.media_type != chosen.media_type {
                    fail!(Corrupt, "{}: the index and the registry differ on what it is", chosen.digest);
                }
            }
        }
    }
    fail!(Limit, "indexes within indexes, more than {} deep", limits.index_depth)
}

fn choose<'a>(all: &'a [Descriptor], wanted: &Platform) -> Result<&'a Descriptor> {
    let images: Vec<&Descriptor> =
        all.iter().filter(|d| matches!(d.media(), Some(Media::Index | Media::Manifest))).collect();
    let score = |d: &&&Descriptor| d.platform.as_ref().and_then(|p| p.suits(wanted));
    if let [only] = images[..]
        && only.platform.is_none()
    {
        return Ok(only);
    }
    // Of equals, the first (image-index.md, "manifests").
    match images.iter().rev().filter(|d| score(d).is_some()).max_by_key(score) {
        Some(best) => Ok(best),
        None => {
            let platforms: Vec<String> = images
                .iter()
                .filter_map(|d| d.platform.as_ref())
                .filter(|p| p.os != "unknown")
                .map(ToString::to_string)
                .collect();
            fail!(NotFound, "the image is not made for {wanted}; --platform can be {}", platforms.join(", "))
        }
    }
}

/// A pull under way.
struct Job<'a> {
    store: &'a Store,
    registry: &'a Registry,
    events: &'a dyn Events,
}

impl Job<'_> {
    /// A small blob: fetched, verified, kept.
    fn small(&self, descriptor: &Descriptor, limits: &Limits) -> Result<Vec<u8>> {
        if descriptor.size > limits.json_bytes {
            fail!(Limit, "it has {} bytes; at most {} are read", descriptor.size, limits.json_bytes);
        }
        self.blob(descriptor)?;
        let path = self.store.blob_path(&descriptor.digest);
        let bytes = std::fs::read(&path).doing(|| format!("read {}", path.display()))?;
        descriptor.check(&bytes)?;
        Ok(bytes)
    }

    /// All layers, a few at a time; the first failure ends the rest.
    fn layers(&self, all: &[Descriptor]) -> Result<()> {
        let mut distinct: Vec<&Descriptor> = Vec::new();
        for layer in all {
            if !distinct.iter().any(|d| d.digest == layer.digest) {
                distinct.push(layer);
            }
        }
        let (queue, stop) = (Mutex::new(distinct.into_iter()), AtomicBool::new(false));
        let work = || -> Result<()> {
            while !stop.load(Ordering::Relaxed) {
                let next = queue.lock().unwrap_or_else(|e| e.into_inner()).next();
                let Some(layer) = next else { break };
                self.blob(layer).inspect_err(|_| stop.store(true, Ordering::Relaxed))?;
            }
            Ok(())
        };
        std::thread::scope(|scope| {
            let threads: Vec<_> = (0..AT_ONCE.min(all.len())).map(|_| scope.spawn(work)).collect();
            let results = threads
                .into_iter()
                .map(|t| t.join().unwrap_or_else(|_| Err(Error::new(Kind::Network, "a thread gave up"))));
            results.collect::<Vec<_>>().into_iter().collect()
        })
    }

    /// One blob into its place, unless it is there.
    fn blob(&self, wanted: &Descriptor) -> Result<()> {
        let place = self.store.blob_path(&wanted.digest);
        let part = self.store.partial_path(&wanted.digest);
        let open = || {
            OpenOptions::new()
                .read(true)
                .write(true)
                .create(true)
                .truncate(false)
                .mode(0o600)
                .custom_flags(libc::O_NOFOLLOW)
                .open(&part)
                .doing(|| format!("open {}", part.display()))
        };
        loop {
            let file = open()?;
            // Someone else who fetches the same blob is waited for.
            fs::flock(file.as_fd(), libc::LOCK_EX).doing(|| format!("lock {}", part.display()))?;
            if is_whole(&place, wanted)? {
                std::fs::remove_file(&part).ok();
                self.told(wanted, wanted.size);
                return Ok(());
            }
            if fs::fstat(file.as_fd())?.nlink == 0 {
                continue;
            }
            self.fetch(wanted, &file).doing(|| format!("blob {}", wanted.digest))?;
            return std::fs::rename(&part, &place).doing(|| format!("write {}", place.display()));
        }
    }

    fn fetch(&self, wanted: &Descriptor, file: &File) -> Result<()> {
        for attempt in 1.. {
            let resumed = file.metadata()?.len() > 0;
            match self.fetch_once(wanted, file) {
                // What is here is kept, for the next attempt and the next command.
                Err(e)
                    if matches!(e.kind(), Kind::Network | Kind::Later(_))
                        && may_wait(&e, attempt, self.events) => {}
                // Wrong bytes are of no use to anyone; but those of another time may be to blame, or another server's.
                Err(e) if e.kind() == Kind::Corrupt => {
                    file.set_len(0).doing(|| "drop what is wrong")?;
                    if !resumed || attempt >= PATIENCE {
                        return Err(e);
                    }
                    self.events.event(Event::Note(&format!("{e}; from the beginning once more")));
                }
                other => return other,
            }
        }
        Ok(())
    }

    fn fetch_once(&self, wanted: &Descriptor, mut file: &File) -> Result<()> {
        let mut hasher = wanted.digest.algorithm().hasher();
        let mut buffer = vec![0; 128 << 10];
        let have = file.metadata()?.len();
        let have = if have > wanted.size { 0 } else { have };
        let mut done = 0;
        if have < wanted.size || wanted.size == 0 {
            let (start, mut body) = self.registry.blob(&wanted.digest, have)?;
            file.set_len(start)?;
            hash_file(file, start, &mut hasher, &mut buffer)?;
            done = start;
            file.seek(SeekFrom::Start(start))?;
            loop {
                let n = body.read(&mut buffer).map_err(|e| broke_off(wanted, done, Some(&e)))?;
                if n == 0 {
                    break;
                }
                if done + n as u64 > wanted.size {
                    fail!(Corrupt, "more than the {} bytes that the image says", wanted.size);
                }
                file.write_all(&buffer[..n]).doing(|| "write")?;
                hasher.update(&buffer[..n]);
                done += n as u64;
                self.told(wanted, done);
            }
        } else {
            hash_file(file, have, &mut hasher, &mut buffer)?;
            done += have;
        }
        if done < wanted.size {
            return Err(broke_off(wanted, done, None));
        }
        digest::expect("blob", &wanted.digest, &hasher.finish())
    }

    fn told(&self, wanted: &Descriptor, done: u64) {
        let digest = wanted.digest.to_string();
        self.events.event(Event::Download { digest: &digest, done, of: wanted.size });
    }
}

/// A download that ended early: by an error of the connection, or as if all of it had come.
fn broke_off(wanted: &Descriptor, done: u64, why: Option<&std::io::Error>) -> Error {
    let why = why.map(|e| format!(": {e}")).unwrap_or_default();
    Error::new(Kind::Network, format!("the connection broke off after {done} of {} bytes{why}", wanted.size))
}

fn hash_file(mut file: &File, length: u64, hasher: &mut digest::Hasher, buffer: &mut [u8]) -> Result<()> {
    file.seek(SeekFrom::Start(0))?;
    let mut left = length;
    while left > 0 {
        let most = buffer.len().min(usize::try_from(left).unwrap_or(usize::MAX));
        let n = file.read(&mut buffer[..most])?;
        if n == 0 {
            fail!(Corrupt, "a file became shorter while it was read");
        }
        hasher.update(&buffer[..n]);
        left -= n as u64;
    }
    Ok(())
}

/// Whether a blob is there, every byte of it: a damaged one is fetched again.
fn is_whole(place: &Path, wanted: &Descriptor) -> Result<bool> {
    let file = match OpenOptions::new().read(true).custom_flags(libc::O_NOFOLLOW).open(place) {
        Ok(file) => file,
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(false),
        Err(e) => return Err(Error::from(e).within(format!("open {}", place.display()))),
    };
    if file.metadata()?.len() != wanted.size {
        return Ok(false);
    }
    let mut hasher = wanted.digest.algorithm().hasher();
    hash_file(&file, wanted.size, &mut hasher, &mut vec![0; 128 << 10])?;
    Ok(hasher.finish() == wanted.digest)
}

impl Store {
    /// Where a blob is, or will be.
    fn blob_path(&self, digest: &Digest) -> PathBuf {
        let path = self.images_path().join(digest.blob_path());
        if let Some(parent) = path.parent() {
            // sha512 is rare: its directory is made when it is needed.
            std::fs::create_dir_all(parent).ok();
        }
        path
    }

    fn partial_path(&self, digest: &Digest) -> PathBuf {
        self.path().join("partial").join(digest.to_string().replace(':', "-"))
    }

    /// Keeps a small blob.
    fn put(&self, digest: &Digest, bytes: &[u8]) -> Result<()> {
        self.place(&self.blob_path(digest), bytes)
    }
}
