//! Guest programs that mean harm (`guest/hostile.c`), on both platforms: none reaches a file or a process of the host that the
//! user did not name, and what does not break into the kernel's own memory leaves the machine whole.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test may panic")]

use std::fs;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use umlfs_tests::expect_clean_ext;
use umlfs_tests::guest::GuestProgram;
use umlfs_tests::machine::{BOOT_TIMEOUT, Scratch, has_direct, platforms, run_within, wait_within};

/// What the program prints of all that must leave a machine whole; `int 0x80` does what it does without 32-bit programs.
const WHOLE: &str = "\
wrong results of generated code: 0
written: 4096
wrong results of a file's code: 0
x32 number: ENOSYS
number 5000: ENOSYS
number -1: ENOSYS
generated_code: exit 0
int 0x80: signal 11, code 0x80, 0 bytes on
other_gates: exit 0
narrow_code: signal 4
narrow_call: signal 11
narrow_loop: signal 14
pipe: 0
changes of the kernel's memory: 0
kernel_memory: exit 0
strange ends of jumps into the kernel: 0 of 3150
jumps: exit 0
a file after all descriptors were closed: 1
sendfile of what is closed: EBADF
descriptors: exit 0
forged frame 0: exit 0
forged frame 1: signal 11
forged frame 2: signal 11
forged frame 3: signal 11
forged frame 4: signal 11
forged frame 5: signal 11
forged frame 6: exit 0
forged frame 7: signal 11
forged frame 8: signal 11
forged frame 9: exit 0
forged frame 10: signal 11
forged frame 11: signal 11
forged frame 12: signal 11
forged frame 13: killed
forged_frames: exit 0
signals came: 1, wrong results: 0
storm: exit 0
fs to the kernel half: EPERM
gs to the kernel half: EPERM
fs read into the kernel: EFAULT
gs set: 0
gs points there: 42 1
wrong with a gs base: 0, in a child: 7
gs back: 0
after a selector was loaded: 1
clone with a thread area in the kernel half: EPERM
segment_bases: exit 0
with alignment checks: 1
with the direction flag: 1
with the nested task flag: 1
single steps through a call: 1 1
and no more afterwards: 0
an unaligned store with alignment checks: signal 7
flags: exit 0
a short robust list: EINVAL
rseq in the kernel: -1
still there: 0
registrations: signal 11
kill: refused
process_vm_writev: refused
ptrace: refused
pidfd_open: refused
the host's file: refused
its memory: refused
io ports: refused
names: exit 0
eat: signal 9
a tmpfs ends with: ENOSPC
eat_tmpfs: exit 0
threads end with: EAGAIN
thread_limit: exit 0
fork ends with: EAGAIN
all ended: 1
processes: exit 0
";

/// A host with a file and a process that a guest must not reach, and a machine with the program in it.
struct Victim {
    scratch: Scratch,
    file: PathBuf,
    process: Child,
}

impl Victim {
    fn new() -> Victim {
        let scratch = Scratch::without_image();
        GuestProgram::new("hostile", &scratch.path("."));
        let file = scratch.path("host-file");
        fs::write(&file, "the host's").unwrap();
        let process = Command::new("sleep").arg("600").stdin(Stdio::null()).spawn().unwrap();
        Victim { scratch, file, process }
    }

    fn boot(&self, platform: &str, part: &str) -> Command {
        let mut command = self.scratch.boot();
        command.args(["--platform", platform, "--mem", "256M", "--", "/hostile", part]);
        command.arg(&self.file).arg(self.process.id().to_string());
        command
    }

    #[track_caller]
    fn expect_host_untouched(&mut self) {
        assert_eq!(fs::read_to_string(&self.file).unwrap(), "the host's");
        assert!(self.process.try_wait().unwrap().is_none(), "the host's process has ended");
        let names: Vec<_> = fs::read_dir(self.scratch.path(".")).unwrap().map(|e| e.unwrap().file_name()).collect();
        let known = ["root", "t.img", "host-file", "umlfs"];
        assert!(names.iter().all(|name| known.iter().any(|k| name == k)), "{names:?}");
    }
}

impl Drop for Victim {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

fn leaves_the_machine_whole(platform: &str) {
    let mut victim = Victim::new();
    let mut boot = victim.boot(platform, "all");
    if std::env::var_os("UMLFS_LONG_TESTS").is_some() {
        boot.arg("200000");
    }
    let done = run_within(&mut boot, BOOT_TIMEOUT * 3).expect_success();
    for (n, (got, right)) in done.stdout.lines().zip(WHOLE.lines()).enumerate() {
        assert_eq!(got, right, "line {} on {platform}", n + 1);
    }
    assert_eq!(done.stdout, WHOLE, "on {platform}");
    victim.expect_host_untouched();
    victim.scratch.expect_no_process();
    expect_clean_ext(&victim.scratch.image());
}

#[test]
fn harm_without_a_key_leaves_the_machine_whole() {
    for platform in platforms() {
        leaves_the_machine_whole(platform);
    }
}

/// Behind the protection key, or through the kernel's own call instruction: the machine may break, the host may not.
#[test]
fn harm_with_an_open_key_stays_in_the_machine() {
    if !has_direct() {
        return;
    }
    let mut victim = Victim::new();
    let pristine = fs::read(victim.scratch.image()).unwrap();
    for part in ["smash", "smash_heap", "open_jumps", "unmap_kernel", "close_host", "leave_secretly"] {
        fs::write(victim.scratch.image(), &pristine).unwrap();
        let mut boot = victim.boot("direct", part);
        let mut machine = boot.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        if wait_within(&mut machine, Duration::from_secs(15)).is_none() {
            // It may well hang. What runs of it still is ended by whoever ends it.
            for pid in victim.scratch.processes() {
                let _ = nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid), nix::sys::signal::Signal::SIGKILL);
            }
            machine.wait().unwrap();
        }
        victim.scratch.expect_no_process();
        victim.expect_host_untouched();
    }
}

/// On `ptrace` there is nothing behind a key: the same leaves the machine whole. A processor without keys has no instruction
/// to open them either.
#[test]
fn harm_with_an_open_key_finds_nothing_on_ptrace() {
    let signal = if has_direct() { nix::libc::SIGSEGV } else { nix::libc::SIGILL };
    let mut victim = Victim::new();
    for part in ["smash", "smash_heap"] {
        let done = run_within(&mut victim.boot("ptrace", part), BOOT_TIMEOUT).expect_success();
        assert_eq!(done.stdout, format!("{part}: signal {signal}\n"));
    }
    victim.expect_host_untouched();
    expect_clean_ext(&victim.scratch.image());
}
