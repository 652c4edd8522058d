//! Machines whose host processes are killed at random moments: nothing of them is left running, and what the guest had synced is in
//! the image.
//!
//! `UMLFS_KILLS` sets the number of kills on each platform, `UMLFS_KILL_SEED` repeats a run's moments.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

use std::io::{BufRead, BufReader};
use std::process::{Child, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant, SystemTime};

use umlfs_tests::machine::{BOOT_TIMEOUT, Scratch, platforms};
use umlfs_tests::{expect_clean_ext, judge, run};

/// Looks whether all of an earlier machine's files, their number in `$0`, are there; then writes and syncs one after the other, and
/// tells of each.
const SCRIPT: &str = r#"
i=0
while [ $i -lt $0 ]; do
    i=$((i+1))
    read text <"/root/f$i" && [ "$text" = "file $i" ] || { echo "file $i is lost"; exit 1; }
done
while :; do
    i=$((i+1))
    echo "file $i" >"/root/f$i"
    sync || exit
    echo $i
done
"#;

/// Files after which the directory is emptied: later machines look at all of them.
const MANY: u64 = 1000;

fn kills() -> u32 {
    std::env::var("UMLFS_KILLS").map_or(12, |n| n.parse().unwrap())
}

fn seed() -> u64 {
    let now = || SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap().as_nanos() as u64 | 1;
    std::env::var("UMLFS_KILL_SEED").map_or_else(|_| now(), |n| n.parse().unwrap())
}

/// A machine with what it says, as it says it.
struct Machine {
    monitor: Child,
    lines: Arc<Mutex<Vec<String>>>,
    reader: std::thread::JoinHandle<()>,
}

impl Machine {
    fn boot(scratch: &Scratch, platform: &str, files: u64) -> Machine {
        let mut boot = scratch.boot();
        boot.args(["--platform", platform, "--", "/bin/sh", "-c", SCRIPT, &files.to_string()]);
        let mut monitor = boot.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
        let lines = Arc::new(Mutex::new(Vec::new()));
        let (output, heard) = (monitor.stdout.take().unwrap(), lines.clone());
        let reader = std::thread::spawn(move || {
            BufReader::new(output).lines().map_while(Result::ok).for_each(|line| heard.lock().unwrap().push(line));
        });
        Machine { monitor, lines, reader }
    }

    /// Whether the machine cannot do without this process of its: the monitor, the kernel process, and what that starts with, before
    /// all guests: the zygote and, on `direct`, the broker.
    fn needs(&self, platform: &str, process: i32) -> bool {
        let monitor = self.monitor.id() as i32;
        let Some(&kernel) = children(monitor).first() else { return process == monitor };
        let own = if platform == "direct" { 2 } else { 1 };
        process == monitor || process == kernel || children(kernel).iter().take(own).any(|&child| child == process)
    }

    /// Waits until it is over; returns what it said. Unless it `must_end`, it may go on: a guest may have been killed that was done, or a
    /// process that `direct` keeps in reserve. Then it is ended by killing its monitor.
    fn end(mut self, must_end: bool, what: &str) -> Vec<String> {
        /// Lines after which it goes on for sure.
        const LINES: usize = 20;
        let lines = || self.lines.lock().unwrap().len();
        let (before, give_up) = (lines(), Instant::now() + BOOT_TIMEOUT);
        while self.monitor.try_wait().unwrap().is_none() {
            assert!(Instant::now() < give_up, "{what}: the machine did not end");
            if !must_end && lines() > before + LINES {
                self.monitor.kill().unwrap();
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        self.reader.join().unwrap();
        Arc::try_unwrap(self.lines).unwrap().into_inner().unwrap()
    }
}

/// A process's children, those of each of its threads in the order in which they came.
fn children(process: i32) -> Vec<i32> {
    let threads = std::fs::read_dir(format!("/proc/{process}/task")).into_iter().flatten().flatten();
    let lists = threads.map(|thread| std::fs::read_to_string(thread.path().join("children")).unwrap_or_default());
    lists.flat_map(|list| list.split_whitespace().map(|pid| pid.parse().unwrap()).collect::<Vec<_>>()).collect()
}

#[test]
fn a_killed_machine_leaves_what_was_synced_and_nothing_else() {
    let seed = seed();
    eprintln!("UMLFS_KILL_SEED={seed}");
    let mut state = seed;
    let mut random = |below: u64| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state % below
    };
    for platform in platforms() {
        let scratch = Scratch::new();
        let mut files = 0;
        for kill in 0..kills() {
            let machine = Machine::boot(&scratch, platform, files);
            // Half of them while it boots and looks, half while it writes.
            std::thread::sleep(Duration::from_micros(random(if kill % 2 == 0 { 30_000 } else { 300_000 })));
            let processes = scratch.processes();
            let Some(victim) = processes.get(random(processes.len().max(1) as u64) as usize) else {
                panic!("kill {kill} on {platform}: no process is there: {:?}", machine.end(true, "nothing"));
            };
            let name = std::fs::read_to_string(format!("/proc/{victim}/comm")).unwrap_or_default();
            let must_end = machine.needs(platform, *victim);
            let what = format!("kill {kill} on {platform}, {} of {} processes", name.trim(), processes.len());
            let _ = nix::sys::signal::kill(nix::unistd::Pid::from_raw(*victim), nix::sys::signal::Signal::SIGKILL);
            let lines = machine.end(must_end, &what);
            scratch.expect_no_process();
            for line in &lines {
                let file: u64 = line.parse().unwrap_or_else(|_| panic!("{what}: {line}"));
                assert_eq!(file, files + 1, "{what}");
                files = file;
            }
            let checked = run(judge("e2fsck").arg("-fy").arg(scratch.image()));
            assert!(matches!(checked.status.code(), Some(0 | 1)), "{what}: {}", checked.stdout);
            if files >= MANY {
                files = 0;
                scratch.exec("rm /root/f*").expect_success();
            }
        }
        // The last one's files are looked at, too.
        let shell = format!("i=0; while [ $i -lt {files} ]; do i=$((i+1)); [ -s /root/f$i ] || exit 1; done");
        scratch.exec(&shell).expect_success();
        expect_clean_ext(&scratch.image());
    }
}
