//! Manifests, indexes and configurations.
#![no_main]
use coracle_image::limits::Limits;
use coracle_image::manifest::{Document, ImageConfig};

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    let _ = Document::parse(data, "", &Limits::default());
    let _ = ImageConfig::parse(data, 1);
});
