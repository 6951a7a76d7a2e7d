//! Drives the crate by hand: `image unpack SRC BUNDLE`.
#![allow(clippy::print_stderr, clippy::print_stdout)]
use coracle_image::*;
fn main() {
    let a: Vec<String> = std::env::args().skip(1).collect();
    if let Err(e) = run(&a) {
        eprintln!("{e}");
        std::process::exit(1);
    }
}
fn run(a: &[String]) -> Result<()> {
    let limits = limits::Limits::default();
    let (path, query) = source::split_location(&a[1])?;
    let src = source::Source::open(&path, &limits)?;
    if a[0] == "inspect" {
        println!("{:#?}", src.list()?);
        return Ok(());
    }
    let image = src.image(&query)?;
    let how = unpack::How {
        owners: layer::apply::Owners::Kept,
        style: layer::apply::Style::Flat,
        limits: &limits,
        events: &events::Silent,
    };
    let (s, w) = bundle::fill(&image, std::path::Path::new(&a[2]), &how, |_| Ok(b"{}".to_vec()))?;
    println!("{s:?} {w:?}");
    Ok(())
}
