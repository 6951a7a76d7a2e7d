//! A layer, however compressed: inflated and read to its end within limits.
#![no_main]
use coracle_image::layer::inflate::{Limited, inflater};
use coracle_image::limits::Limits;
use coracle_image::tar::Reader;
use std::io::BufReader;

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    let limits = Limits::default();
    let Ok(plain) = inflater(data) else { return };
    let mut reader = Reader::new(BufReader::new(Limited::new(plain, 16 << 20)), &limits);
    while let Ok(Some(_)) = reader.next_entry() {}
});
