//! Hosts that forbid what a platform needs: machines run on the other one, or say what to do.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

use std::fs;
use std::process::{Command, Stdio};

use umlfs_tests::machine::{BOOT_TIMEOUT, Scratch, has_direct, run_within};
use umlfs_tests::{Run, judge, repository, run};

struct Host {
    scratch: Scratch,
}

impl Host {
    fn new() -> Host {
        let scratch = Scratch::new();
        let source = repository().join("tests/host/deny.c");
        run(judge("gcc").args(["-O1", "-Wall", "-o"]).arg(scratch.path("deny")).arg(source)).expect_success();
        Host { scratch }
    }

    /// Runs `umlfs` where these calls are forbidden.
    #[track_caller]
    fn without(&self, calls: &str, args: &[&str]) -> Run {
        let mut command = Command::new(self.scratch.path("deny"));
        command.current_dir(self.scratch.path(".")).stdin(Stdio::null()).env_remove("UMLFS_PLATFORM");
        command.arg(calls).arg(self.scratch.path("umlfs")).args(args);
        run_within(&mut command, BOOT_TIMEOUT)
    }

    /// Boots there for a command that tells the platform.
    #[track_caller]
    fn boot(&self, calls: &str, platform: &str) -> Run {
        let run = self
            .without(calls, &["boot", "t.img", "--platform", platform, "--exec", "dmesg | grep -o '(.* platform)'"]);
        self.scratch.expect_no_process();
        run
    }
}

/// The calls that `direct` needs and containers forbid.
const OF_DIRECT: [&str; 2] = ["pkey_alloc", "seccomp"];

#[test]
fn the_other_platform_takes_over() {
    let host = Host::new();
    for calls in OF_DIRECT {
        assert_eq!(host.boot(calls, "auto").expect_success().stdout, "(ptrace platform)\n", "without {calls}");
    }
    if has_direct() {
        assert_eq!(host.boot("none", "auto").expect_success().stdout, "(direct platform)\n");
        assert_eq!(host.boot("ptrace", "auto").expect_success().stdout, "(direct platform)\n");
    }
}

#[test]
fn what_cannot_run_says_what_to_do() {
    let host = Host::new();
    let said = host.boot("ptrace", "ptrace").expect_code(1);
    assert!(said.stderr.contains("ptrace") && said.stderr.contains("umlfs doctor"), "{}", said.stderr);
    for calls in OF_DIRECT {
        let said = host.boot(calls, "direct").expect_code(1);
        assert!(said.stderr.contains("--platform ptrace"), "{}", said.stderr);
        assert!(!has_direct() || said.stderr.contains(calls), "{}", said.stderr);
        let said = host.boot(&format!("ptrace,{calls}"), "auto").expect_code(1);
        assert!(said.stderr.contains("ptrace") && said.stderr.contains("umlfs doctor"), "{}", said.stderr);
    }
}

#[test]
fn the_doctor_tells_platforms_apart() {
    let host = Host::new();
    let state = |calls: &str, platform: &str| {
        let said = host.without(calls, &["doctor", "--json"]).stdout;
        let said: serde_json::Value = serde_json::from_str(&said).unwrap();
        let name = format!("platform {platform}");
        let check = said["checks"].as_array().unwrap().iter().find(|check| check["name"] == name.as_str()).unwrap();
        if check["state"] != "good" {
            assert!(!check["advice"].as_str().unwrap().is_empty());
        }
        check["state"].as_str().unwrap().to_owned()
    };
    let direct = if has_direct() { "good" } else { "limited" };
    assert_eq!((state("none", "direct").as_str(), state("none", "ptrace").as_str()), (direct, "good"));
    let lacking = if has_direct() { "limited" } else { "missing" };
    assert_eq!(state("ptrace", "ptrace"), lacking);
    for calls in OF_DIRECT {
        assert_eq!(state(calls, "direct"), "limited");
        let both = format!("ptrace,{calls}");
        assert_eq!((state(&both, "direct").as_str(), state(&both, "ptrace").as_str()), ("missing", "missing"));
    }
}

#[test]
fn a_limit_for_files_is_an_error_like_others() {
    let scratch = Scratch::new();
    let limited = |kibibytes: u32, command: &str| {
        let mut shell = judge("bash");
        shell.args(["-c", &format!("ulimit -f {kibibytes}; exec ./umlfs {command}")]).current_dir(scratch.path("."));
        run_within(shell.stdin(Stdio::null()), BOOT_TIMEOUT)
    };
    let made = limited(1000, "image create x.img --size 100M");
    made.expect_code(1).expect_one_error(&["x.img", "File too large", "ulimit -f"]);
    assert!(!scratch.path("x.img").exists(), "half an image");
    if has_direct() {
        let boot = limited(1000, "boot t.img --platform direct --exec true");
        boot.expect_code(1).expect_one_error(&["memory file", "ulimit -f", "--platform ptrace"]);
    }
    // An error of the disk for the guest, not the end of the machine.
    fs::File::options().write(true).open(scratch.image()).unwrap().set_len(64 << 20).unwrap();
    let write = "head -c 60000000 /dev/zero >/root/f && sync; echo ended $((!!$?))";
    let said = limited(20_000, &format!("boot t.img --mem 16M --platform ptrace --exec '{write}'"));
    assert_eq!(said.stdout, "ended 1\n", "{}", said.stderr);
}
