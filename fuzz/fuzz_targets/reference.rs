//! References: what parses is itself when it is parsed again.
#![no_main]
use coracle_image::reference::Reference;

libfuzzer_sys::fuzz_target!(|text: &str| {
    if let Ok(parsed) = text.parse::<Reference>() {
        assert_eq!(parsed.to_string().parse::<Reference>().unwrap(), parsed);
    }
});
