//! Helpers for the end-to-end tests: the `umlfs` binary, the judges (other people's tools), and runs of both.
//!
//! Nothing is skipped silently: a judge that is missing fails the test and names the Debian package that has it.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test may panic")]

pub mod ext;
pub mod guest;
pub mod machine;
pub mod place;
pub mod terminal;
pub mod tree;
pub mod uml;

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Stdio};
use std::sync::OnceLock;

/// Gives a test a copy of the binary under test to run. By a process of its own: a descriptor that this process has open
/// for writing, a child that another test starts at that moment inherits, and then the copy is "text file busy".
pub fn copy_umlfs(to: &Path) {
    let status = Command::new("cp").arg(umlfs_path()).arg(to).status().unwrap();
    assert!(status.success(), "cp to {}: {status}", to.display());
}

/// The path of the `umlfs` binary under test: the one that UMLFS_BIN names, otherwise the one of the profile these
/// tests are built with, brought up to date by cargo once for each test program.
pub fn umlfs_path() -> &'static Path {
    static PATH: OnceLock<PathBuf> = OnceLock::new();
    PATH.get_or_init(|| {
        if let Some(path) = std::env::var_os("UMLFS_BIN") {
            let path = PathBuf::from(path);
            assert!(path.is_file(), "UMLFS_BIN={} is no file", path.display());
            return path.canonicalize().unwrap();
        }
        // This program is TARGET/PROFILE/deps/NAME-HASH.
        let program = std::env::current_exe().unwrap();
        let profile_directory = program.parent().and_then(Path::parent).unwrap();
        let target = profile_directory.parent().unwrap();
        let profile = match profile_directory.file_name().and_then(OsStr::to_str).unwrap() {
            "debug" => "dev",
            other => other,
        };
        let output = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()))
            .args(["build", "--quiet", "--package", "cli", "--bin", "umlfs", "--profile", profile])
            .arg("--target-dir")
            .arg(target)
            .current_dir(repository())
            .output()
            .expect("cargo does not start");
        assert!(output.status.success(), "umlfs does not build:\n{}", String::from_utf8_lossy(&output.stderr));
        profile_directory.join("umlfs")
    })
}

/// The root of the source tree.
pub fn repository() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap()
}

/// A command that runs `umlfs` with no standard input and none of the caller's settings for it.
pub fn umlfs() -> Command {
    let mut command = Command::new(umlfs_path());
    command.stdin(Stdio::null());
    for name in ["UMLFS_LOG", "NO_COLOR", "CLICOLOR_FORCE", "SOURCE_DATE_EPOCH"] {
        command.env_remove(name);
    }
    command
}

/// A command that runs another project's tool. The sbin directories are searched too: an ordinary user's PATH
/// often lacks them.
///
/// # Panics
/// The tool is not there; says which package has it.
pub fn judge(tool: &str) -> Command {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let found = std::env::split_paths(&path)
        .chain(["/usr/sbin", "/sbin", "/usr/local/sbin"].map(PathBuf::from))
        .map(|directory| directory.join(tool))
        .find(|candidate| candidate.is_file());
    let package = match tool {
        "e2fsck" | "debugfs" | "dumpe2fs" | "mke2fs" | "mkfs.ext4" | "tune2fs" => "e2fsprogs",
        "fsck.fat" | "mkfs.fat" => "dosfstools",
        "cksum" => "coreutils",
        "sfdisk" => "fdisk",
        "swaplabel" => "util-linux",
        "sgdisk" => "gdisk",
        other => other,
    };
    let path = found.unwrap_or_else(|| panic!("{tool} is missing; run: apt-get install {package}"));
    let mut command = Command::new(path);
    // Tools speak English here, and e2fsck opens no terminal.
    command.stdin(Stdio::null()).env("LC_ALL", "C").env("TZ", "UTC");
    command
}

/// What a finished command left: status and both streams as text (invalid UTF-8 replaced).
#[derive(Debug)]
pub struct Run {
    /// The command line, for messages.
    pub command: String,
    /// How it ended.
    pub status: ExitStatus,
    /// Standard output.
    pub stdout: String,
    /// Standard error.
    pub stderr: String,
}

impl Run {
    /// Panics with everything the command said unless it exited with `code`.
    #[track_caller]
    pub fn expect_code(self, code: i32) -> Self {
        assert!(
            self.status.code() == Some(code),
            "{} ended with {} instead of {code}\n--- stdout\n{}\n--- stderr\n{}",
            self.command,
            self.status,
            self.stdout,
            self.stderr
        );
        self
    }

    /// Panics with everything the command said unless it exited with 0.
    #[track_caller]
    pub fn expect_success(self) -> Self {
        self.expect_code(0)
    }

    /// The command failed as one should: exit status 1 or 2, nothing on standard output, and one error line (plus
    /// at most one hint) that contains all of `needles`.
    #[track_caller]
    pub fn expect_one_error(self, needles: &[&str]) -> Self {
        let lines: Vec<&str> = self.stderr.lines().collect();
        let good = matches!(self.status.code(), Some(1 | 2))
            && self.stdout.is_empty()
            && (1..=2).contains(&lines.len())
            && lines.first().is_some_and(|line| line.starts_with("umlfs: error: "))
            && lines.get(1).is_none_or(|line| line.starts_with("  hint: "))
            && needles.iter().all(|needle| self.stderr.contains(needle));
        assert!(
            good,
            "{} ended with {}, expected one clear error that contains {needles:?}\n--- stdout\n{}\n--- stderr\n{}",
            self.command, self.status, self.stdout, self.stderr
        );
        self
    }
}

/// Runs a command to its end and keeps what it said.
///
/// # Panics
/// It does not start.
#[track_caller]
pub fn run(command: &mut Command) -> Run {
    let text = format!("{command:?}");
    let output = command.output().unwrap_or_else(|error| panic!("{text} does not start: {error}"));
    Run {
        command: text,
        status: output.status,
        stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
        stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
    }
}

/// `e2fsck -fn` finds nothing to mend in the image.
///
/// # Panics
/// It does; shows all it says.
#[track_caller]
pub fn expect_clean_ext(image: &Path) {
    run(judge("e2fsck").arg("-fn").arg(image)).expect_success();
}
