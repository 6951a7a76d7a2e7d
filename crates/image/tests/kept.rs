//! Every input that is kept for the fuzzers (`fuzz/inputs`), run through its target by the compiler at hand: no panic, and
//! none that takes long.
#![allow(missing_docs)]

#[path = "../../../fuzz/targets.rs"]
mod targets;

use std::path::Path;
use std::time::{Duration, Instant};

#[test]
fn kept_inputs_do_no_harm() {
    let inputs = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fuzz/inputs");
    for (name, target) in targets::ALL {
        let list: Vec<_> = std::fs::read_dir(inputs.join(name)).unwrap().map(|e| e.unwrap().path()).collect();
        assert!(list.len() > 10, "{name} has {} inputs", list.len());
        for path in list {
            let bytes = std::fs::read(&path).unwrap();
            let began = Instant::now();
            // The whole of it, and every beginning of what is small.
            target(&bytes);
            let cuts = if bytes.len() <= 4096 { bytes.len() } else { 0 };
            (0..cuts).for_each(|cut| target(&bytes[..cut]));
            assert!(began.elapsed() < Duration::from_secs(20), "{path:?} took {:?}", began.elapsed());
        }
    }
}
