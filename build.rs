//! Hands the linker the order of the functions that a run calls, see `src/layout/used.ld`, and where the program begins,
//! see `crates/sys/src/entry.rs`.

fn main() {
    // Cargo sets it for every build script.
    let manifest = std::env::var("CARGO_MANIFEST_DIR").unwrap_or_else(|_| ".".into());
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rerun-if-changed=src/layout/used.ld");
    println!("cargo::rustc-link-arg-bins=-Wl,-T,{manifest}/src/layout/used.ld");
    if std::env::var("CARGO_CFG_TARGET_ARCH").is_ok_and(|arch| arch == "x86_64") {
        println!("cargo::rustc-link-arg-bins=-Wl,-e,coracle_entry");
    }
}
