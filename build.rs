//! Hands the linker the order of the functions that a run calls, see `src/layout/used.ld`, and where the program begins,
//! see `crates/sys/src/entry.rs`.

fn main() {
    // Cargo sets it for every build script.
    let manifest = std::env::var("CARGO_MANIFEST_DIR").unwrap_or_else(|_| ".".into());
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rerun-if-changed=src/layout/used.ld");
    println!("cargo::rustc-link-arg-bins=-Wl,-T,{manifest}/src/layout/used.ld");
    let is = |name: &str, value: &str| std::env::var(name).is_ok_and(|found| found == value);
    // Not without optimization: then the compiler calls memcpy where it likes, which is not there yet.
    if is("CARGO_CFG_TARGET_ARCH", "x86_64") && !is("OPT_LEVEL", "0") {
        println!("cargo::rustc-link-arg-bins=-Wl,-e,coracle_entry");
    }
}
