//! Machines under test: the tiny image, made once per test program, scratch copies of it, and runs that cannot hang.

use std::fs::{self, File};
use std::io::Read;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use crate::uml::linux_uml;
use crate::{Run, copy_umlfs, run, umlfs, umlfs_path};

/// How long a boot may take until its test fails: far more than it does, for slow and busy hosts.
pub const BOOT_TIMEOUT: Duration = Duration::from_secs(120);

/// The tiny system's image as `umlfs build` and `umlfs image create` make it, or the one that UMLFS_TEST_IMAGE names.
/// For reading only: tests boot copies.
///
/// # Panics
/// It cannot be made; shows why.
pub fn tiny_image() -> &'static Path {
    static IMAGE: OnceLock<PathBuf> = OnceLock::new();
    IMAGE.get_or_init(|| {
        if let Some(path) = std::env::var_os("UMLFS_TEST_IMAGE") {
            let path = PathBuf::from(path);
            assert!(path.is_file(), "UMLFS_TEST_IMAGE={} is no file", path.display());
            return path;
        }
        let dir = shared_directory();
        // Test programs that run at the same time make it one after the other; each result is complete.
        let lock = File::create(dir.join("lock")).unwrap();
        lock.lock().unwrap();
        let (tar, image) = (dir.join("tiny.tar"), dir.join("tiny.img"));
        run(umlfs().arg("build").arg("--out").arg(&tar)).expect_success();
        run(umlfs().args(["image", "create", "--force", "--size", "64M", "--from"]).arg(&tar).arg(&image))
            .expect_success();
        image
    })
}

/// Where test programs keep what they share: beside the program under test's profile, in cargo's target directory.
fn shared_directory() -> PathBuf {
    // This program is TARGET/PROFILE/deps/NAME-HASH.
    let program = std::env::current_exe().unwrap();
    let dir = program.ancestors().nth(2).unwrap().join("e2e");
    fs::create_dir_all(&dir).unwrap();
    dir
}

/// Whether this host has what the `direct` platform needs: only one that has can judge it.
pub fn has_direct() -> bool {
    fs::read_to_string("/proc/cpuinfo").unwrap().contains(" ospke")
}

/// The platforms that run here.
pub fn platforms() -> &'static [&'static str] {
    if has_direct() {
        return &["ptrace", "direct"];
    }
    eprintln!("this processor has no protection keys: the direct platform is not tried");
    &["ptrace"]
}

/// Whether a real User-Mode Linux starts here at all: hosts without ptrace, or without a place for its memory, have none.
///
/// # Panics
/// There is no `linux.uml`, or no C compiler.
pub fn uml_runs() -> bool {
    static RUNS: OnceLock<bool> = OnceLock::new();
    *RUNS.get_or_init(|| {
        let directory = tempfile::tempdir().unwrap();
        let mut command = Command::new(linux_uml());
        command
            .args(["mem=64M", "con=null", "con0=null,fd:1", "umid=m"])
            .arg(format!("uml_dir={}/", directory.path().display()));
        // Without a disk it gets as far as to miss it.
        let output = command.stdin(Stdio::null()).output().unwrap();
        [output.stdout, output.stderr].iter().any(|text| String::from_utf8_lossy(text).contains("Kernel panic"))
    })
}

/// A directory of a test's own with a program of its own, by which its processes are told from all others, and a copy
/// of the tiny image.
pub struct Scratch {
    dir: tempfile::TempDir,
}

impl Default for Scratch {
    fn default() -> Self {
        Self::new()
    }
}

impl Scratch {
    /// With an image.
    pub fn new() -> Scratch {
        let scratch = Scratch::without_image();
        scratch.copy_image("t.img");
        scratch
    }

    /// Without one.
    pub fn without_image() -> Scratch {
        let dir = tempfile::tempdir().unwrap();
        fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o755)).unwrap();
        let program = dir.path().join("umlfs");
        // A link has its own name in /proc/PID/exe, as a copy has.
        if fs::hard_link(umlfs_path(), &program).is_err() {
            copy_umlfs(&program);
        }
        Scratch { dir }
    }

    /// A path in the directory.
    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// The copy of the tiny image.
    pub fn image(&self) -> PathBuf {
        self.path("t.img")
    }

    /// Another copy.
    pub fn copy_image(&self, name: &str) -> PathBuf {
        let path = self.path(name);
        fs::copy(tiny_image(), &path).unwrap();
        path
    }

    /// This test's own `umlfs`, with no standard input.
    pub fn umlfs(&self) -> Command {
        let mut command = Command::new(self.path("umlfs"));
        for name in ["UMLFS_LOG", "NO_COLOR", "CLICOLOR_FORCE", "SOURCE_DATE_EPOCH"] {
            command.env_remove(name);
        }
        command.stdin(Stdio::null()).current_dir(self.dir.path());
        command
    }

    /// `umlfs boot t.img`.
    pub fn boot(&self) -> Command {
        let mut command = self.umlfs();
        command.args(["boot", "t.img"]);
        command
    }

    /// Boots for one shell command.
    #[track_caller]
    pub fn exec(&self, shell: &str) -> Run {
        run_within(self.boot().args(["--exec", shell]), BOOT_TIMEOUT)
    }

    /// Processes that run this scratch's program: monitors, kernels, guests. Zombies are none.
    pub fn processes(&self) -> Vec<i32> {
        let program = self.path("umlfs").canonicalize().unwrap();
        let pid = |entry: fs::DirEntry| entry.file_name().to_str()?.parse::<i32>().ok();
        let runs = |pid: &i32| fs::read_link(format!("/proc/{pid}/exe")).is_ok_and(|exe| exe == program);
        fs::read_dir("/proc").unwrap().filter_map(|entry| pid(entry.ok()?)).filter(runs).collect()
    }

    /// No process is left, at once or within a few seconds.
    #[track_caller]
    pub fn expect_no_process(&self) {
        let left = || {
            let pids = self.processes();
            (!pids.is_empty()).then_some(pids)
        };
        let end = Instant::now() + Duration::from_secs(20);
        while let Some(pids) = left() {
            if Instant::now() > end {
                let status: Vec<String> = pids.iter().map(|pid| describe(*pid)).collect();
                panic!("processes are left behind: {status:#?}");
            }
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}

impl Drop for Scratch {
    /// A failed test leaves no machine running.
    fn drop(&mut self) {
        for pid in self.processes() {
            let _ = nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid), nix::sys::signal::Signal::SIGKILL);
        }
    }
}

fn describe(pid: i32) -> String {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let wanted = ["Name:", "State:", "PPid:", "TracerPid:"];
    let lines: Vec<&str> = status.lines().filter(|line| wanted.iter().any(|w| line.starts_with(w))).collect();
    format!("{pid}: {}", lines.join(", ").replace('\t', " "))
}

/// Runs a command to its end and keeps what it said; kills it when it takes longer than `limit`.
///
/// # Panics
/// It does not start or does not end in time.
#[track_caller]
pub fn run_within(command: &mut Command, limit: Duration) -> Run {
    let text = format!("{command:?}");
    let mut child = command
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap_or_else(|error| panic!("{text} does not start: {error}"));
    let stdout = collect(child.stdout.take().unwrap());
    let stderr = collect(child.stderr.take().unwrap());
    let status = wait_within(&mut child, limit);
    if status.is_none() {
        child.kill().unwrap();
        child.wait().unwrap();
    }
    let (stdout, stderr) = (stdout.join().unwrap(), stderr.join().unwrap());
    let Some(status) = status else {
        panic!("{text} did not end within {limit:?}\n--- stdout\n{stdout}\n--- stderr\n{stderr}");
    };
    Run { command: text, status, stdout, stderr }
}

/// Waits for a child; `None` when it runs for longer than `limit`.
pub fn wait_within(child: &mut Child, limit: Duration) -> Option<ExitStatus> {
    let end = Instant::now() + limit;
    loop {
        if let Some(status) = child.try_wait().unwrap() {
            return Some(status);
        }
        if Instant::now() > end {
            return None;
        }
        std::thread::sleep(Duration::from_millis(5));
    }
}

fn collect(mut from: impl Read + Send + 'static) -> std::thread::JoinHandle<String> {
    std::thread::spawn(move || {
        let mut bytes = Vec::new();
        from.read_to_end(&mut bytes).unwrap();
        String::from_utf8_lossy(&bytes).into_owned()
    })
}
