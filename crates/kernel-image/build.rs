//! Links the image to lie at its fixed address, without libraries.

fn main() {
    println!("cargo:rerun-if-changed=kernel.ld");
    let script = std::path::Path::new("kernel.ld").canonicalize().expect("kernel.ld lies beside build.rs");
    for arg in ["-nostartfiles", "-nostdlib", "-static", "-no-pie", "-Wl,--build-id=none", "-Wl,-z,noexecstack"] {
        println!("cargo:rustc-link-arg-bins={arg}");
    }
    println!("cargo:rustc-link-arg-bins=-Wl,-T,{}", script.display());
}
