//! What each fuzz target does with an input, without libFuzzer: `fuzz_targets/` runs it at length, and
//! `crates/image/tests/kept.rs` with every input that is kept in `inputs/`, on any compiler.

use coracle_image::layer::inflate::{Limited, inflater};
use coracle_image::limits::Limits;
use coracle_image::manifest::{Document, ImageConfig};
use coracle_image::reference::Reference;
use coracle_image::registry;
use coracle_image::tar::Reader;
use std::io::BufReader;

/// A target: its name, and what it does.
pub(crate) type Target = (&'static str, fn(&[u8]));

/// All of them.
pub(crate) const ALL: [Target; 4] =
    [("layer", layer), ("document", document), ("reference", reference), ("challenge", challenge)];

/// A layer, however compressed: inflated and read to its end within limits.
pub(crate) fn layer(data: &[u8]) {
    let limits = Limits::default();
    let Ok(plain) = inflater(data) else { return };
    let mut reader = Reader::new(BufReader::new(Limited::new(plain, 16 << 20)), &limits);
    while let Ok(Some(_)) = reader.next_entry() {}
}

/// Manifests, indexes and configurations.
pub(crate) fn document(data: &[u8]) {
    let _ = Document::parse(data, "", &Limits::default());
    let _ = ImageConfig::parse(data, 1);
}

/// References: what parses is itself when it is parsed again, and may stand in a URL.
pub(crate) fn reference(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    if let Ok(parsed) = text.parse::<Reference>() {
        let shown = parsed.to_string();
        assert!(!shown.contains("..") && !shown.contains(['%', '?', '#', ' ', '\n']), "{shown:?}");
        assert_eq!(shown.parse::<Reference>().unwrap(), parsed);
    }
}

/// WWW-Authenticate, a line a header: what is made of it comes out of it.
pub(crate) fn challenge(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    if let Some(realm) = registry::realm(text.lines()) {
        let plain = text.replace('\\', "");
        assert!(plain.contains(&realm.replace('\\', "")), "{realm:?} is not in {text:?}");
    }
}
