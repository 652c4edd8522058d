//! A place to build in: recipes of a test's own, a cache, and the program.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

use crate::{copy_umlfs, judge};

const HOST: &str = "\
tools:
  base:
    summary: shell and file tools
    debian: [coreutils]
    commands: [bash, cat, chmod, cp, dd, dirname, id, ln, ls, mkdir, sh, sleep, touch, uname]
";

/// An ordinary user, for builds without root: `nobody`.
pub const NOBODY: u32 = 65534;

/// Whether a process with all these texts in its command line lives.
pub fn lives(texts: &[&str]) -> bool {
    fs::read_dir("/proc").unwrap().flatten().any(|entry| {
        fs::read(entry.path().join("cmdline")).is_ok_and(|line| {
            let line = String::from_utf8_lossy(&line);
            texts.iter().all(|text| line.contains(text))
        })
    })
}

/// Waits for something that another process does.
///
/// # Panics
/// It does not happen within a minute.
#[track_caller]
pub fn wait_until(what: &str, condition: impl Fn() -> bool) {
    let started = Instant::now();
    while !condition() {
        assert!(started.elapsed() < Duration::from_secs(60), "{what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// A configuration directory, a cache, and the program, all in one temporary directory.
pub struct Place {
    dir: tempfile::TempDir,
    uid: Option<u32>,
}

impl Place {
    /// A place for the user who runs the tests.
    #[allow(clippy::new_without_default, reason = "making one starts programs")]
    pub fn new() -> Place {
        Place::owned_by(None)
    }

    /// For a user of one's own: only root can become another.
    pub fn owned_by(uid: Option<u32>) -> Place {
        let dir = tempfile::tempdir().unwrap();
        fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o755)).unwrap();
        let place = Place { dir, uid };
        for sub in ["configs/recipes", "configs/profiles", "configs/files", "cache", "sources"] {
            fs::create_dir_all(place.path(sub)).unwrap();
        }
        copy_umlfs(&place.path("umlfs"));
        place.write("configs/host.yaml", HOST);
        if let Some(uid) = uid {
            std::os::unix::fs::chown(place.path("cache"), Some(uid), Some(uid)).unwrap();
        }
        place
    }

    /// A path in it.
    pub fn path(&self, relative: &str) -> PathBuf {
        self.dir.path().join(relative)
    }

    /// Writes a file in it.
    pub fn write(&self, relative: &str, text: &str) {
        fs::write(self.path(relative), text).unwrap();
    }

    /// A recipe with one stage `final`; `stage` is its lines from `phases:` or `needs:` on, indented by four.
    pub fn recipe(&self, name: &str, sources: &str, stage: &str) {
        let text = format!(
            "name: {name}\nversion: 1\nsummary: a test\nlicense: MIT\n{sources}stages:\n  final:\n    summary: a test\n    host: [base]\n{stage}"
        );
        self.write(&format!("configs/recipes/{name}.yaml"), &text);
    }

    /// A profile `p` of these recipes' stages `final`.
    pub fn profile(&self, packages: &[&str]) {
        let list: String = packages.iter().map(|p| format!("  - {p}/final\n")).collect();
        self.write("configs/profiles/p.yaml", &format!("name: p\nsummary: a test\npackages:\n{list}"));
    }

    /// A source archive with one file; the value is the recipe's `sources`.
    pub fn source(&self, pin: Option<&str>) -> String {
        let top = self.path("sources/src-1");
        fs::create_dir_all(&top).unwrap();
        fs::write(top.join("hello"), "hello\n").unwrap();
        let archive = self.path("sources/src-1.tar.gz");
        let made =
            judge("tar").arg("-czf").arg(&archive).arg("-C").arg(self.path("sources")).arg("src-1").status().unwrap();
        assert!(made.success());
        let pin = pin.map_or_else(|| sha256(&archive), str::to_owned);
        format!("sources:\n  - file: src-1.tar.gz\n    sha256: {pin}\n    urls: [file://{}]\n", archive.display())
    }

    /// `umlfs build` with these arguments and, unless they say otherwise, profile `p` and two jobs.
    pub fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(self.path("umlfs"));
        command
            .arg("build")
            .args(["--config-dir".as_ref(), self.path("configs").as_os_str()])
            .args(args)
            .env("XDG_CACHE_HOME", self.path("cache"))
            .stdin(Stdio::null());
        for (option, value) in [("--profile", "p"), ("--jobs", "2")] {
            if !args.contains(&option) {
                command.args([option, value]);
            }
        }
        if let Some(uid) = self.uid {
            command.uid(uid).gid(uid);
        }
        command
    }

    /// Runs that command to its end.
    pub fn build(&self, args: &[&str]) -> Output {
        self.command(args).output().unwrap()
    }

    /// The archive of a step, as its path is printed by a build.
    pub fn archive(&self, output: &Output, step: &str) -> PathBuf {
        let text = String::from_utf8_lossy(&output.stdout);
        let line = text.lines().find(|l| l.split(' ').next() == Some(step)).unwrap_or_else(|| panic!("{step}: {text}"));
        PathBuf::from(line.rsplit(' ').next().unwrap())
    }
}

/// SHA-256 of a file, by a judge.
pub fn sha256(file: &Path) -> String {
    let output = judge("sha256sum").arg(file).output().unwrap();
    String::from_utf8(output.stdout).unwrap().split(' ').next().unwrap().to_owned()
}

/// What a program wrote to standard error.
pub fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// It succeeded; otherwise the test fails with what it said.
#[track_caller]
pub fn succeeds(output: &Output) {
    assert!(output.status.success(), "{}: {}", output.status, stderr(output));
}

/// It fails with that status, says each of these, and does not panic.
#[track_caller]
pub fn fails(output: &Output, status: i32, says: &[&str]) {
    let text = stderr(output);
    assert_eq!(output.status.code(), Some(status), "{text}");
    for part in says {
        assert!(text.contains(part), "{part:?} is not in: {text}");
    }
    assert!(!text.contains("panicked"), "{text}");
}
