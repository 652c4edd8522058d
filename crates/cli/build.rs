//! Builds the programs that this one carries:
//!
//! - the freestanding kernel image, which the `direct` platform maps into guest processes: a program for the same processor,
//!   but without `std`;
//! - process 1 of a real User-Mode Linux (`umlfs boot --kernel`) and the first program of a machine that builds a step (`umlfs build
//!   --sandbox umkernel`), linked statically: guests have no libraries of the host's.
//!
//! None can be built together with this crate, so cargo is called for each once more.

use std::env;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

fn main() -> ExitCode {
    let here = PathBuf::from(env::var_os("CARGO_MANIFEST_DIR").unwrap_or_default());
    let out = PathBuf::from(env::var_os("OUT_DIR").unwrap_or_default());
    let parts =
        ["kernel-image", "umkernel/src", "umkernel/Cargo.toml", "ext4/src", "ext4/Cargo.toml", "uml-init", "step-init"];
    for part in parts {
        watch(&here.join("..").join(part));
    }
    println!("cargo:rerun-if-changed=build.rs");

    let kernel = out.join("kernel");
    let built = cargo(&here.join("../kernel-image/Cargo.toml"), &kernel, |_| {});
    println!("cargo:rustc-env=UMLFS_KERNEL_IMAGE={}", kernel.join("release/umlfs-kernel").display());

    let guest = out.join("guest");
    // With its target named, the flags are for the program alone, not for what runs while it is built.
    let target = "x86_64-unknown-linux-gnu";
    let built = built
        && ["uml-init", "step-init"].into_iter().all(|program| {
            cargo(&here.join("..").join(program).join("Cargo.toml"), &guest, |cargo| {
                cargo.args(["--bin", program, "--target", target]).env("RUSTFLAGS", "-C target-feature=+crt-static");
                for (setting, value) in [("STRIP", "symbols"), ("OPT_LEVEL", "s"), ("DEBUG", "0")] {
                    cargo.env(format!("CARGO_PROFILE_RELEASE_{setting}"), value);
                }
            })
        });
    let programs = guest.join(target).join("release");
    println!("cargo:rustc-env=UMLFS_UML_INIT={}", programs.join("uml-init").display());
    println!("cargo:rustc-env=UMLFS_STEP_INIT={}", programs.join("step-init").display());
    if built { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// Builds the program of a manifest in `target`; says why if that fails.
fn cargo(manifest: &Path, target: &Path, with: impl FnOnce(&mut Command)) -> bool {
    let mut cargo = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    cargo.args(["build", "--release", "--locked", "--quiet", "--manifest-path"]).arg(manifest);
    cargo.arg("--target-dir").arg(target);
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
    with(&mut cargo);
    match cargo.status() {
        Ok(status) if status.success() => return true,
        Ok(status) => eprintln!("building {} failed ({status})", manifest.display()),
        Err(e) => eprintln!("cannot run cargo for {}: {e}", manifest.display()),
    }
    false
}

/// Cargo looks at files below a directory; a build directory in it would always be new.
fn watch(path: &Path) {
    if ["kernel-image", "uml-init", "step-init"].iter().any(|part| path.ends_with(part)) {
        for part in ["src", "Cargo.toml", "Cargo.lock", "build.rs", "kernel.ld"].map(|part| path.join(part)) {
            if part.exists() {
                println!("cargo:rerun-if-changed={}", part.display());
            }
        }
    } else {
        println!("cargo:rerun-if-changed={}", path.display());
    }
}
