//! Commands about images: words in, lines out. What they do is in crates/image.

mod inspect;
mod limits;
mod mounts;
mod network;
mod output;
mod ports;
mod refused;
mod run;
mod security;
mod store;
mod unpack;
mod wishes;

use crate::cli::Global;
use clap::Args;
use coracle_image::Kind;
use coracle_image::events::{Event, Events};
use coracle_image::limits::Limits;
use coracle_image::reference::Reference;
use coracle_image::source::{Image, Query, Source, split_location};
use coracle_image::store::Hold;
use std::collections::BTreeMap;
use std::io::Write;
use std::sync::Mutex;
use store::StoreArgs;
use wishes::WishArgs;

pub(crate) use inspect::inspect;
pub(crate) use output::Aside;
pub(crate) use refused::instead;
pub(crate) use run::{Home, run};
pub(crate) use store::{images, pull_image, rmi};
pub(crate) use unpack::unpack;

/// Which image, and how much of it.
#[derive(Args)]
pub(crate) struct Which {
    /// Layout directory or archive, with [:TAG][@DIGEST]; - is standard input; else the name of an image in the store
    image: String,
    #[command(flatten)]
    store: StoreArgs,
    /// os/architecture[/variant] instead of this machine's
    #[arg(long, value_name = "PLATFORM")]
    platform: Option<String>,
    /// Most bytes to unpack, with K, M, G or T; also lifts the limit on how far a layer may inflate
    #[arg(long, value_name = "SIZE", value_parser = size)]
    max_size: Option<u64>,
}

impl Which {
    fn limits(&self) -> Limits {
        let usual = Limits::default();
        match self.max_size {
            Some(total_bytes) => Limits { total_bytes, inflate_ratio: u64::MAX, ..usual },
            None => usual,
        }
    }

    /// What is read, and what of it is wanted; where that is the store, it is kept as it is meanwhile.
    fn source(&self) -> coracle_image::Result<(Source, Query, Option<Hold>)> {
        let (location, mut query, hold) = self.location()?;
        query.platform = self.platform.as_deref().map(str::parse).transpose()?;
        Ok((Source::open(&location, &self.limits())?, query, hold))
    }

    /// What lies at the path counts; a name that is no path is looked for in the store, without making one.
    fn location(&self) -> coracle_image::Result<(String, Query, Option<Hold>)> {
        let no_path = match split_location(&self.image) {
            Err(e) if e.kind() == Kind::NotFound && !self.image.starts_with(['/', '.']) => e,
            other => return other.map(|(location, query)| (location, query, None)),
        };
        let (Ok(name), Some(store)) = (self.image.parse::<Reference>(), self.store.existing()?) else {
            return Err(no_path);
        };
        let hold = store.hold()?;
        if !store.images()?.iter().any(|i| i.name == name.to_string()) {
            let text = format!("{no_path}, nor has the store an image {name} (coracle pull gets it)");
            return Err(coracle_image::Error::new(Kind::NotFound, text));
        }
        let query = Query { tag: Some(name.to_string()), ..Query::default() };
        Ok((store.images_path().to_string_lossy().into_owned(), query, Some(hold)))
    }

    fn open(&self) -> coracle_image::Result<(Image, Option<Hold>)> {
        let (source, query, hold) = self.source()?;
        let image = source.image(&query);
        let image = image.map_err(|e| e.within(format!("image {}", self.image.escape_debug())))?;
        Ok((image, hold))
    }
}

/// `512M`: a number with a binary unit.
fn size(text: &str) -> Result<u64, String> {
    let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let unit = match &text[digits.len()..] {
        "" | "B" => 0,
        "K" | "k" | "KiB" => 10,
        "M" | "m" | "MiB" => 20,
        "G" | "g" | "GiB" => 30,
        "T" | "t" | "TiB" => 40,
        other => return Err(format!("{other:?} is no unit; write K, M, G or T")),
    };
    let number: u64 = digits.parse().map_err(|_| format!("{text:?} is no size; write 512M or 2G"))?;
    number.checked_mul(1 << unit).ok_or_else(|| format!("{text} is too much"))
}

/// Bytes, for people.
fn sized(bytes: u64) -> String {
    match bytes {
        0..1_000 => format!("{bytes} B"),
        1_000..1_000_000 => format!("{} kB", bytes / 1_000),
        1_000_000..1_000_000_000 => format!("{}.{} MB", bytes / 1_000_000, bytes / 100_000 % 10),
        _ => format!("{}.{} GB", bytes / 1_000_000_000, bytes / 100_000_000 % 10),
    }
}

/// Shows events: JSON lines on standard output if asked for, else one line on a terminal that is written over.
struct Shown {
    json: bool,
    terminal: bool,
    /// Bytes here, and in all, of each blob that is on its way.
    downloads: Mutex<BTreeMap<String, (u64, u64)>>,
}

impl Shown {
    fn new(json: bool) -> Self {
        let terminal = !json && coracle_sys::tty::is_terminal(std::os::fd::AsFd::as_fd(&std::io::stderr()));
        Self { json, terminal, downloads: Mutex::default() }
    }

    fn nothing() -> Self {
        Self { json: false, terminal: false, downloads: Mutex::default() }
    }

    /// A bar over all downloads.
    fn progress(&self, digest: &str, now: (u64, u64)) {
        let Ok(mut all) = self.downloads.lock() else { return };
        let before = all.insert(digest.to_owned(), now);
        let percent = |(done, of): (u64, u64)| (done * 100).checked_div(of).unwrap_or(100);
        let (done, of) = all.values().fold((0, 0), |sum, one| (sum.0 + one.0, sum.1 + one.1));
        if before.is_some_and(|b| percent(b) == percent(now)) {
            return;
        }
        let whole = all.values().filter(|(done, of)| done == of).count();
        let filled = percent((done, of)) as usize * 30 / 100;
        let bar = format!("{}{}", "#".repeat(filled), ".".repeat(30 - filled));
        Self::status(&format!("[{bar}] {} of {}, {whole} of {} blobs", sized(done), sized(of), all.len()));
    }

    /// A JSON object as a line of its own.
    fn line(value: &serde_json::Value) {
        crate::inspect::print(&format!("{value}\n"));
    }

    fn status(text: &str) {
        let _ = write!(std::io::stderr(), "\r\x1b[K{text}");
    }

    /// Takes the status line away.
    fn done(&self) {
        if self.terminal {
            Self::status("");
        }
    }
}

impl Events for Shown {
    fn event(&self, event: Event<'_>) {
        if self.json {
            Self::line(&match event {
                Event::Layer { number, of, digest, bytes } => {
                    serde_json::json!({"event": "layer", "number": number, "of": of, "digest": digest, "bytes": bytes})
                }
                // A line a megabyte is enough.
                Event::Download { done, of, .. }
                    if done != of && done >> 20 == (done - done.min(128 << 10)) >> 20 =>
                {
                    return;
                }
                Event::Download { digest, done, of } => {
                    serde_json::json!({"event": "download", "digest": digest, "done": done, "of": of})
                }
                Event::Note(text) => serde_json::json!({"event": "note", "text": text}),
            });
        } else if self.terminal {
            match event {
                Event::Layer { number, of, bytes, .. } => {
                    Self::status(&format!("layer {number} of {of}, {} MB", bytes / 1_000_000))
                }
                Event::Download { digest, done, of } => self.progress(digest, (done, of)),
                Event::Note(text) => Self::status(&format!("{text}\n")),
            }
        }
    }
}

/// Says what the user should know.
fn notes(global: &Global, notes: &[String]) {
    crate::log::warnings(global, notes);
}
