//! Real User-Mode Linux as a judge. Other crates' tests include this file.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

/// A program that runs `linux.uml`, whatever the processor is (`host/uml-xstate.c`).
///
/// # Panics
/// There is no `linux.uml`, or no C compiler.
pub fn linux_uml() -> &'static Path {
    static PROGRAM: OnceLock<PathBuf> = OnceLock::new();
    PROGRAM.get_or_init(|| {
        let version = Command::new("linux.uml").arg("--version").output();
        assert!(version.is_ok(), "linux.uml is missing; run: apt-get install user-mode-linux");
        let source = Path::new(env!("CARGO_MANIFEST_DIR")).ancestors().map(|dir| dir.join("tests/host/uml-xstate.c"));
        let source = source.into_iter().find(|file| file.is_file()).unwrap();
        // Test programs that run at the same time have one each, which is left to cargo's target directory.
        let test = std::env::current_exe().unwrap();
        let (library, program) = (test.with_extension("uml-xstate.so"), test.with_extension("linux.uml"));
        let mut compiler = Command::new("gcc");
        let compiled = compiler.args(["-O1", "-shared", "-fPIC", "-o"]).arg(&library).arg(&source).status();
        assert!(compiled.is_ok_and(|status| status.success()), "{} does not compile", source.display());
        let script = format!("#!/bin/sh\nLD_PRELOAD='{}' exec linux.uml \"$@\"\n", library.display());
        fs::write(&program, script).unwrap();
        fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).unwrap();
        program
    })
}
