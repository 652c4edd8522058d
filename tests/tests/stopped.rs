//! Machines whose host processes are all stopped for a while, as by Ctrl-Z or a debugger, go on where they were.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

use std::process::Stdio;
use std::time::Duration;

use umlfs_tests::expect_clean_ext;
use umlfs_tests::machine::{BOOT_TIMEOUT, Scratch, platforms, wait_within};

fn signal(processes: &[i32], signal: nix::sys::signal::Signal) {
    for &process in processes {
        // It may have ended meanwhile.
        let _ = nix::sys::signal::kill(nix::unistd::Pid::from_raw(process), signal);
    }
}

/// Sleepers with and without a limit of time, in the guest and in the kernel, and one that works.
#[test]
fn a_machine_that_is_stopped_goes_on() {
    for platform in platforms() {
        let scratch = Scratch::new();
        let mut boot = scratch.boot();
        boot.args(["--platform", platform, "--exec"]);
        boot.arg("(sleep 4; echo slept) & (read line; echo $line) & while kill -0 $! 2>/dev/null; do sleep 0.1; done; wait; echo over");
        let mut monitor = boot.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        std::thread::sleep(Duration::from_secs(1));
        for _ in 0..3 {
            let processes = scratch.processes();
            assert!(processes.len() > 2, "{platform}: {processes:?}");
            signal(&processes, nix::sys::signal::SIGSTOP);
            std::thread::sleep(Duration::from_millis(300));
            signal(&processes, nix::sys::signal::SIGCONT);
            std::thread::sleep(Duration::from_millis(300));
        }
        drop(monitor.stdin.take());
        let status = wait_within(&mut monitor, BOOT_TIMEOUT);
        let output = monitor.wait_with_output().unwrap();
        let said = String::from_utf8_lossy(&output.stdout);
        assert!(status.is_some_and(|status| status.success()), "{platform}: {status:?}: {said}");
        assert!(said.contains("slept\n") && said.ends_with("over\n"), "{platform}: {said}");
        scratch.expect_no_process();
        expect_clean_ext(&scratch.image());
    }
}
