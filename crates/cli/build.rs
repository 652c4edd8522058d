//! Builds the freestanding kernel image, which goes into this program: the `direct` platform maps it into guest processes.
//!
//! It is a program of its own for the same processor, but without `std`, so cargo is called for it once more.

use std::env;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

fn main() -> ExitCode {
    let here = PathBuf::from(env::var_os("CARGO_MANIFEST_DIR").unwrap_or_default());
    let out = PathBuf::from(env::var_os("OUT_DIR").unwrap_or_default());
    for part in ["kernel-image", "umkernel/src", "umkernel/Cargo.toml", "ext4/src", "ext4/Cargo.toml"] {
        watch(&here.join("..").join(part));
    }
    println!("cargo:rerun-if-changed=build.rs");
    let target = out.join("kernel");
    let mut cargo = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    cargo
        .args(["build", "--release", "--locked", "--quiet", "--manifest-path"])
        .arg(here.join("../kernel-image/Cargo.toml"))
        .arg("--target-dir")
        .arg(&target);
    // What cargo sets for this build is not meant for that one: wrappers (clippy), flags (coverage), profiles.
    let kept = ["CARGO_HOME", "CARGO_NET_OFFLINE", "CARGO_TERM_COLOR"];
    let foreign = |name: &str| {
        name.starts_with("CARGO")
            && !kept.contains(&name)
            && !name.starts_with("CARGO_HTTP")
            && !name.starts_with("CARGO_REGISTR")
            || ["RUSTFLAGS", "RUSTC_WRAPPER", "RUSTC_WORKSPACE_WRAPPER", "RUSTDOCFLAGS", "LLVM_PROFILE_FILE"]
                .contains(&name)
    };
    env::vars().filter(|(name, _)| foreign(name)).for_each(|(name, _)| _ = cargo.env_remove(name));
    match cargo.status() {
        Ok(status) if status.success() => {}
        Ok(status) => {
            eprintln!("building the kernel image failed ({status})");
            return ExitCode::FAILURE;
        }
        Err(e) => {
            eprintln!("cannot run cargo for the kernel image: {e}");
            return ExitCode::FAILURE;
        }
    }
    println!("cargo:rustc-env=UMLFS_KERNEL_IMAGE={}", target.join("release/umlfs-kernel").display());
    ExitCode::SUCCESS
}

/// Cargo looks at files below a directory; a build directory in it would always be new.
fn watch(path: &Path) {
    if path.ends_with("kernel-image") {
        for part in ["src", "Cargo.toml", "Cargo.lock", "build.rs", "kernel.ld"] {
            println!("cargo:rerun-if-changed={}", path.join(part).display());
        }
    } else {
        println!("cargo:rerun-if-changed={}", path.display());
    }
}
