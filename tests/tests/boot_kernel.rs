//! `umlfs boot --kernel`: the same image, commands and session in a real User-Mode Linux as in our own kernel.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

use std::fs;
use std::io::Write;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use umlfs_tests::machine::{BOOT_TIMEOUT, Scratch, run_within, uml_runs, wait_within};
use umlfs_tests::terminal::Terminal;
use umlfs_tests::uml::linux_uml;
use umlfs_tests::{Run, expect_clean_ext, run};

/// Machines of both kernels in a directory of their own, which is also where they keep their temporary files.
struct Both {
    scratch: Scratch,
}

impl Both {
    /// Nothing where the judge cannot run.
    fn new() -> Option<Both> {
        if !uml_runs() {
            eprintln!("NOT TESTED: boot --kernel: linux.uml does not start on this host");
            return None;
        }
        let scratch = Scratch::new();
        fs::create_dir(scratch.path("tmp")).unwrap();
        Some(Both { scratch })
    }

    fn boot(&self, uml: bool, image: &str) -> Command {
        let mut command = self.scratch.umlfs();
        command.args(["boot", image, "--mem", "256M"]).env("TMPDIR", self.scratch.path("tmp")).env("TERM", "xterm");
        if uml {
            command.arg("--kernel").arg(linux_uml());
        }
        command
    }

    /// Boots for one shell command.
    fn exec(&self, uml: bool, options: &[&str], shell: &str) -> Run {
        run_within(self.boot(uml, "t.img").args(options).args(["--exec", shell]), BOOT_TIMEOUT)
    }

    /// No process and no file is left, at once or within a few seconds.
    fn expect_nothing_left(&self) {
        self.scratch.expect_no_process();
        let end = Instant::now() + Duration::from_secs(20);
        loop {
            let files: Vec<_> = fs::read_dir(self.scratch.path("tmp")).unwrap().flatten().map(|e| e.path()).collect();
            let kernels = self.kernels();
            if files.is_empty() && kernels.is_empty() {
                return;
            }
            assert!(Instant::now() < end, "left behind: {files:?}, processes {kernels:?}");
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    /// The kernel's processes: their command lines name files of ours.
    fn kernels(&self) -> Vec<i32> {
        let ours = format!("ubda={}", self.scratch.path("tmp").canonicalize().unwrap().display());
        let is_ours = |pid: &i32| {
            fs::read(format!("/proc/{pid}/cmdline")).is_ok_and(|line| String::from_utf8_lossy(&line).contains(&ours))
        };
        let pid = |entry: fs::DirEntry| entry.file_name().to_str()?.parse::<i32>().ok();
        fs::read_dir("/proc").unwrap().filter_map(|entry| pid(entry.ok()?)).filter(is_ours).collect()
    }
}

#[test]
fn a_command_finds_the_same_in_both_kernels() {
    let Some(both) = Both::new() else { return };
    let same = |command: &dyn Fn(&mut Command), input: &[u8]| {
        let runs = [false, true].map(|uml| {
            let mut machine = both.boot(uml, "t.img");
            command(&mut machine);
            machine.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
            let mut child = machine.spawn().unwrap();
            let (mut stdin, input) = (child.stdin.take().unwrap(), input.to_vec());
            // Who does not read it all breaks the pipe.
            let writer = std::thread::spawn(move || drop(stdin.write_all(&input)));
            let output = child.wait_with_output().unwrap();
            writer.join().unwrap();
            output
        });
        let [ours, real] = &runs;
        let text = String::from_utf8_lossy;
        assert_eq!(text(&real.stdout), text(&ours.stdout));
        assert_eq!(text(&real.stderr), text(&ours.stderr));
        assert_eq!(real.status.code(), ours.status.code());
        assert_eq!(real.stdout, ours.stdout);
        runs
    };
    let shell = |text: &'static str| {
        move |command: &mut Command| {
            command.args(["--exec", text]);
        }
    };

    let [ours, _] = same(
        &shell(
            "echo out; echo err >&2; pwd; id -u; umask; uname -n; env | sort; tty; cut -d' ' -f2,3 /proc/mounts; \
             ls /dev/pts; for n in fd stdin stdout stderr; do readlink /dev/$n; done; echo x | cat /dev/stdin; \
             ip addr show lo | grep -c 127.0.0.1; printf 'a\\0\\377\\r\\n\\n'; exit 7",
        ),
        b"",
    );
    assert_eq!(ours.status.code(), Some(7));
    assert!(ours.stdout.ends_with(b"a\0\xff\r\n\n") && ours.stderr == b"err\n", "{ours:?}");
    let input: Vec<u8> = (0..300_000u32).map(|n| (n % 251) as u8).collect();
    same(&shell("cksum; echo end >&2"), &input);
    same(&shell("head -c 5; sleep 1"), &input);
    let [ours, _] = same(&shell("sleep 1000 & kill -TERM $$; sleep 5"), b"");
    assert_eq!(ours.status.code(), Some(128 + 15));
    same(
        &|command| {
            command.args(["--append", "A=1 PATH=/bin", "--", "sh", "-c", "echo $A$PATH$0$1", "", "b  c"]);
        },
        b"",
    );
    // Who stops reading ends the writer.
    for uml in [false, true] {
        let program = both.scratch.path("umlfs").display().to_string();
        let kernel = if uml { format!("--kernel {}", linux_uml().display()) } else { String::new() };
        let line = format!("{program} boot t.img --mem 256M {kernel} --exec 'yes; echo $? >/root/status' | head -c 4");
        let mut command = Command::new("sh");
        command.args(["-c", &line]).current_dir(both.scratch.path(".")).stdin(Stdio::null());
        command.env("TMPDIR", both.scratch.path("tmp"));
        assert_eq!(run_within(&mut command, BOOT_TIMEOUT).stdout, "y\ny\n", "{uml}");
        let status = run(both.scratch.umlfs().args(["image", "cat", "t.img:/root/status"])).expect_success();
        assert_eq!(status.stdout, "141\n", "{uml}");
    }
    both.expect_nothing_left();
    expect_clean_ext(&both.scratch.image());
}

#[test]
fn what_one_kernel_writes_the_other_reads() {
    let Some(both) = Both::new() else { return };
    both.exec(
        false,
        &[],
        "echo ours >/root/f; mkdir /root/d; dd if=/dev/urandom of=/root/d/big bs=64k count=40 2>/dev/null",
    )
    .expect_success();
    let real = both.exec(true, &[], "cat /root/f; cksum </root/d/big; echo real >/root/g; rm /root/f").expect_success();
    let ours =
        both.exec(false, &[], "echo ours; cksum </root/d/big; cat /root/g >/dev/null; ls /root").expect_success();
    assert_eq!(ours.stdout.strip_suffix("d\ng\n").unwrap(), real.stdout);
    let read = run(both.scratch.umlfs().args(["image", "cat", "t.img:/root/g"])).expect_success();
    assert_eq!(read.stdout, "real\n");
    expect_clean_ext(&both.scratch.image());
    both.expect_nothing_left();
}

#[test]
fn shares_are_read_and_written_and_the_rest_of_the_host_is_not_there() {
    let Some(both) = Both::new() else { return };
    let path = |name: &str| both.scratch.path(name);
    for name in ["a b", "ro"] {
        fs::create_dir(path(name)).unwrap();
        fs::write(path(name).join("in"), format!("{name}\n")).unwrap();
    }
    // A link is the guest's to follow: there is no such file in the image.
    fs::write(path("secret"), "secret\n").unwrap();
    symlink(path("secret"), path("a b").join("out")).unwrap();
    symlink("/etc/os-release", path("a b").join("release")).unwrap();
    let shell = "cat /mnt/in /opt/new/in; cat /mnt/out; cmp /mnt/release /etc/os-release && echo guest; \
                 mkdir /mnt/d && echo written >/mnt/d/f && mv /mnt/in /mnt/in2; echo x >/opt/new/x; echo $?; \
                 grep -c hostfs /proc/mounts";
    for uml in [true, false] {
        let run = both.exec(uml, &["--share", "a b:/mnt", "--share", "ro:/opt/new:ro"], shell).expect_success();
        assert_eq!(run.stdout, "a b\nro\nguest\n1\n2\n", "{}", run.stderr);
        assert!(run.stderr.contains("out") && run.stderr.contains("Read-only file system"), "{}", run.stderr);
        assert_eq!(fs::read_to_string(path("a b").join("d/f")).unwrap(), "written\n");
        assert!(path("a b").join("in2").exists() && !path("ro").join("x").exists());
        // As it was.
        fs::rename(path("a b").join("in2"), path("a b").join("in")).unwrap();
        fs::remove_dir_all(path("a b").join("d")).unwrap();
    }
    both.expect_nothing_left();
}

#[test]
fn an_overlay_takes_what_either_kernel_writes() {
    let Some(both) = Both::new() else { return };
    let before = fs::read(both.scratch.image()).unwrap();
    let cow = ["--cow", "x.cow"];
    both.exec(true, &cow, "echo real >/root/f; cp /bin/busybox /root/b").expect_success();
    let ours = both.exec(false, &cow, "cat /root/f; cmp /root/b /bin/busybox && echo ours >>/root/f; rm /root/b");
    assert_eq!(ours.expect_success().stdout, "real\n");
    let real = both.exec(true, &cow, "cat /root/f; ls /root/b").expect_code(1);
    assert_eq!(real.stdout, "real\nours\n");
    // The next one has it for itself: nothing is written.
    let overlay = fs::read(both.scratch.path("x.cow")).unwrap();
    let only_read = run_within(
        both.boot(true, "x.cow").args([
            "ro",
            "--exec",
            "cat /root/f; touch /root/x || grep -o ' / ext4 ro' /proc/mounts",
        ]),
        BOOT_TIMEOUT,
    );
    assert_eq!(only_read.expect_success().stdout, "real\nours\n / ext4 ro\n");
    assert!(fs::read(both.scratch.path("x.cow")).unwrap() == overlay, "a read-only machine wrote to the overlay");
    assert!(fs::read(both.scratch.image()).unwrap() == before, "the image changed");
    run(both.scratch.umlfs().args(["image", "check", "x.cow"])).expect_success();
    run(both.scratch.umlfs().args(["image", "cow", "commit", "x.cow"])).expect_success();
    expect_clean_ext(&both.scratch.image());
    let hidden = fs::read_dir(both.scratch.path(".")).unwrap().flatten();
    assert_eq!(hidden.filter(|entry| entry.file_name().to_string_lossy().starts_with('.')).count(), 0);
    both.expect_nothing_left();
}

#[test]
fn a_session_on_the_console() {
    let Some(both) = Both::new() else { return };
    let mut terminal = Terminal::unstarted(24, 80);
    let before = terminal.settings();
    terminal.run(&mut both.boot(true, "t.img"));
    terminal.expect_within("# ", BOOT_TIMEOUT);
    // As in a session of our own kernel; answers are computed, so that the echo of what was typed is not taken for them.
    terminal.send("echo $((6*7)) $$ $TERM; tty; stty size\r");
    terminal.expect("42 ");
    terminal.expect(" xterm");
    terminal.expect("/dev/console");
    terminal.expect("24 80");
    terminal.expect("# ");
    terminal.send("sleep 1000\r");
    std::thread::sleep(Duration::from_millis(500));
    terminal.send("\x03");
    terminal.expect("# ");
    terminal.send("echo status $?\r");
    terminal.expect("status 130");
    terminal.expect("# ");
    terminal.resize(30, 100);
    std::thread::sleep(Duration::from_millis(500));
    terminal.send("stty size\r");
    terminal.expect("30 100");
    terminal.send("echo kept >/root/f; poweroff\r");
    let status = terminal.wait(BOOT_TIMEOUT);
    assert_eq!(status.code(), Some(0), "{}", terminal.transcript());
    assert!(terminal.settings() == before, "the terminal's settings are not as before");
    both.expect_nothing_left();
    expect_clean_ext(&both.scratch.image());
    let read = run(both.scratch.umlfs().args(["image", "cat", "t.img:/root/f"])).expect_success();
    assert_eq!(read.stdout, "kept\n");
}

#[test]
fn a_command_on_a_terminal_has_the_console_and_says_no_more() {
    let Some(both) = Both::new() else { return };
    let shown = [false, true].map(|uml| {
        let mut terminal = Terminal::start(
            both.boot(uml, "t.img").args(["--exec", "tty; stty size; read x; echo \"<$x>\"; exit 3"]),
            25,
            81,
        );
        terminal.expect_within("25 81", BOOT_TIMEOUT);
        terminal.send("typed\r");
        assert_eq!(terminal.wait(BOOT_TIMEOUT).code(), Some(3), "{}", terminal.transcript());
        terminal.transcript().to_string()
    });
    assert_eq!(shown[1], shown[0]);
    both.expect_nothing_left();
}

fn signal(pid: u32, signal: Signal) {
    kill(Pid::from_raw(pid as i32), signal).unwrap();
}

/// Waits until the guest has printed a line.
fn first_line(child: &mut std::process::Child) -> String {
    use std::io::BufRead;
    let mut line = String::new();
    std::io::BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
    line
}

#[test]
fn it_stops_when_it_is_told_to_and_leaves_nothing_when_it_is_killed() {
    let Some(both) = Both::new() else { return };
    let command = |name: &str, more: &[&str]| {
        let mut command = both.boot(true, name);
        command.args(more).args(["--exec", "echo kept >/root/f; sync; echo synced; echo open >>/root/f; sleep 1000"]);
        command.stdout(Stdio::piped()).stderr(Stdio::piped());
        command
    };
    let mut stopped = command("t.img", &[]).spawn().unwrap();
    assert_eq!(first_line(&mut stopped), "synced\n");
    let other = run_within(&mut command("t.img", &[]), BOOT_TIMEOUT);
    other.expect_one_error(&["t.img is in use"]);
    signal(stopped.id(), Signal::SIGTERM);
    assert_eq!(wait_within(&mut stopped, BOOT_TIMEOUT).unwrap().code(), Some(128 + 15));
    both.expect_nothing_left();
    expect_clean_ext(&both.scratch.image());

    // A session, with nothing typed; it halts in the midst of it.
    let mut terminal = Terminal::start(&mut both.boot(true, "t.img"), 24, 80);
    terminal.expect_within("# ", BOOT_TIMEOUT);
    terminal.send("echo session >/root/s\r");
    terminal.expect("# ");
    signal(terminal.pid(), Signal::SIGTERM);
    assert_eq!(terminal.wait(BOOT_TIMEOUT).code(), Some(128 + 15), "{}", terminal.transcript());
    both.expect_nothing_left();
    expect_clean_ext(&both.scratch.image());
    let read = run(both.scratch.umlfs().args(["image", "cat", "t.img:/root/s"])).expect_success();
    assert_eq!(read.stdout, "session\n");

    // The kernel killed: one clear error. The image's journal is replayed by the next kernel, the real one this time.
    let mut broken = command("t.img", &[]).spawn().unwrap();
    assert_eq!(first_line(&mut broken), "synced\n");
    // The one that no other started: numbers begin anew after the largest, so that the smallest need not be the first.
    let kernels = both.kernels();
    let parent = |pid: i32| {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
        stat.rsplit(") ").next().unwrap().split(' ').nth(1).unwrap().parse::<i32>().unwrap()
    };
    let main = kernels.iter().copied().find(|pid| !kernels.contains(&parent(*pid))).unwrap();
    signal(main as u32, Signal::SIGKILL);
    let output = broken.wait_with_output().unwrap();
    let error = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(1), "{error}");
    assert!(error.starts_with("umlfs: error: ") && error.contains("SIGKILL") && error.lines().count() <= 2, "{error}");
    both.expect_nothing_left();
    assert!(both.exec(true, &["ro"], "cat /root/f").expect_success().stdout.starts_with("kept\n"));

    // umlfs itself killed: its other process stops the machine, and the overlay has what was written.
    let mut killed = command("t.img", &["--cow", "x.cow"]).spawn().unwrap();
    assert_eq!(first_line(&mut killed), "synced\n");
    // What comes after that line.
    std::thread::sleep(Duration::from_millis(500));
    signal(killed.id(), Signal::SIGKILL);
    killed.wait().unwrap();
    both.expect_nothing_left();
    let kept = run(both.scratch.umlfs().args(["image", "cat", "x.cow:/root/f"])).expect_success();
    assert_eq!(kept.stdout, "kept\nopen\n");
}

#[test]
fn what_cannot_be_is_one_clear_error() {
    let Some(both) = Both::new() else { return };
    let attempt = |kernel: &Path, more: &[&str]| {
        let mut command = both.scratch.umlfs();
        command.args(["boot", "t.img", "--kernel"]).arg(kernel).args(more).env("TMPDIR", both.scratch.path("tmp"));
        run_within(&mut command, BOOT_TIMEOUT)
    };
    let uml = linux_uml();
    attempt(Path::new("/bin/cat"), &[]).expect_code(1).expect_one_error(&["/bin/cat is no User-Mode Linux"]);
    attempt(Path::new("/nonexistent/linux"), &[]).expect_code(1).expect_one_error(&["cannot run /nonexistent/linux"]);
    for (options, word) in [
        (&["--platform", "ptrace"][..], "--platform"),
        (&["--trace"], "--trace"),
        (&["--stats"], "--stats"),
        (&["--cpus", "2"], "CONFIG_SMP"),
    ] {
        attempt(uml, &[options, &["--exec", "true"]].concat()).expect_code(2).expect_one_error(&[word]);
    }
    for share in ["/nonexistent:/mnt", "tmp:mnt", "tmp"] {
        assert_eq!(attempt(uml, &["--share", share]).status.code(), Some(2), "{share}");
    }
    attempt(uml, &["--", "nothing"]).expect_code(1).expect_one_error(&["cannot run nothing in the guest", "ENOENT"]);
    attempt(uml, &["--init", "/bin/nothing", "quiet"]).expect_code(1);
    attempt(uml, &["--mem", "100000G", "--exec", "true"]).expect_code(1).expect_one_error(&["guest memory", "--mem"]);
    let broken = attempt(uml, &["--exec", "echo c >/proc/sysrq-trigger"]);
    broken.expect_code(1).expect_one_error(&["the guest's kernel panicked", "sysrq"]);
    both.expect_nothing_left();
}
