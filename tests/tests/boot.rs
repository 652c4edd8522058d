//! `umlfs boot` with the tiny system: commands, streams, disks, bad input, hostile guests, other users, and Debian's own
//! User-Mode Linux on the same image.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test may panic")]

use std::fs::{self, File};
use std::io::{Read, Seek, SeekFrom, Write};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use umlfs_tests::machine::{BOOT_TIMEOUT, Scratch, run_within, wait_within};
use umlfs_tests::terminal::Terminal;
use umlfs_tests::uml::linux_uml;
use umlfs_tests::{Run, expect_clean_ext, judge, run};

/// An ordinary user: `nobody`.
const NOBODY: u32 = 65534;

/// The bytes that some tests send through a guest: 64 MiB that no run-length trick survives.
fn stream_of_bytes() -> Vec<u8> {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut next = move || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state
    };
    (0..8 << 20).flat_map(|_| next().to_le_bytes()).collect()
}

#[test]
fn a_command_sees_the_whole_machine() {
    let scratch = Scratch::new();
    let done = scratch.exec("uname -a; cat /etc/os-release; ps; echo $((6*7)); mount; df /").expect_success();
    assert_eq!(done.stderr, "");
    for needle in [
        "Linux ",
        "x86_64",
        "ID=umlfs",
        "PID   USER     TIME  COMMAND\n    1 root",
        " ps\n42\n",
        "/dev/root on / type ext4 (rw,relatime)\n",
        "proc on /proc type proc (",
        "devtmpfs on /dev type devtmpfs (",
        "Filesystem           1K-blocks      Used Available Use% Mounted on\n/dev/root ",
    ] {
        assert!(done.stdout.contains(needle), "{needle:?} is missing in:\n{}", done.stdout);
    }
    scratch.expect_no_process();
    expect_clean_ext(&scratch.image());
}

/// What `free`, `top` and `uptime` make of the machine's figures.
#[test]
fn figures_about_the_machine_add_up() {
    let scratch = Scratch::new();
    let done =
        scratch.exec("free | grep Mem:; sleep 5 | sh -c 'read -t 5 x' & sleep 1; grep -h ^State /proc/[0-9]*/status");
    let done = done.expect_success();
    let figures: Vec<u64> =
        done.stdout.lines().next().unwrap().split_whitespace().skip(1).map(|n| n.parse().unwrap()).collect();
    let [total, used, free, _, cached, available] = figures[..] else { panic!("{}", done.stdout) };
    assert!(used + free + cached <= total && available <= total && free > total / 2, "{}", done.stdout);
    // Who waits in poll(2) sleeps, too.
    assert_eq!(done.stdout.matches("R (running)").count(), 1, "{}", done.stdout);
}

#[test]
fn the_exit_status_is_the_commands_own() {
    let scratch = Scratch::new();
    scratch.exec("exit 7").expect_code(7);
    scratch.exec("true").expect_code(0);
    scratch.exec("exit 255").expect_code(255);
    scratch.exec("kill -9 $$").expect_code(128 + 9);
    scratch.exec("kill -SEGV $$").expect_code(128 + 11);
    scratch.exec("nonesuch").expect_code(127);
    scratch.exec("/etc/passwd").expect_code(126);
}

#[test]
fn each_standard_stream_is_its_own() {
    let scratch = Scratch::new();
    fs::write(scratch.path("in"), "first\nsecond\n").unwrap();
    let mut command = scratch.boot();
    command.args(["--exec", "read a; echo out $a; echo err >&2; cat"]);
    command.stdin(File::open(scratch.path("in")).unwrap());
    let done = run_within(&mut command, BOOT_TIMEOUT).expect_success();
    assert_eq!((done.stdout.as_str(), done.stderr.as_str()), ("out first\nsecond\n", "err\n"));
    // None of them is a terminal here, and there are no others.
    let done = scratch.exec("for fd in 0 1 2; do test -t $fd && echo $fd; done; ls /proc/self/fd").expect_success();
    assert_eq!(done.stdout, "0\n1\n2\n3\n");
}

#[test]
fn sixty_four_megabytes_go_in_and_come_out_unchanged() {
    let scratch = Scratch::new();
    let bytes = stream_of_bytes();
    let input = scratch.path("in");
    fs::write(&input, &bytes).unwrap();
    let sum = run(judge("sha256sum").arg("-b").stdin(File::open(&input).unwrap())).expect_success().stdout;
    let limit = Duration::from_secs(280);

    let mut command = scratch.boot();
    command.args(["--exec", "cat | sha256sum -b"]).stdin(File::open(&input).unwrap());
    let done = run_within(&mut command, limit).expect_success();
    assert_eq!(done.stdout.split_whitespace().next(), sum.split_whitespace().next());

    let output = scratch.path("out");
    let mut command = scratch.boot();
    command.args(["--", "/bin/cat"]);
    command.stdin(File::open(&input).unwrap()).stdout(File::create(&output).unwrap());
    let status = wait_within(&mut command.spawn().unwrap(), limit).expect("cat did not end");
    assert!(status.success());
    assert!(fs::read(&output).unwrap() == bytes, "the bytes came back changed");
}

#[test]
fn a_reader_that_leaves_ends_the_guests_writer() {
    let scratch = Scratch::new();
    let mut child = scratch.boot().args(["--", "/usr/bin/yes"]).stdout(Stdio::piped()).spawn().unwrap();
    let mut start = [0; 4];
    child.stdout.take().unwrap().read_exact(&mut start).unwrap();
    assert_eq!(&start, b"y\ny\n");
    let status = wait_within(&mut child, BOOT_TIMEOUT).expect("yes did not end");
    assert_eq!(status.code(), Some(128 + 13));
    scratch.expect_no_process();
}

#[test]
fn what_the_guest_writes_is_in_the_image() {
    let scratch = Scratch::new();
    scratch.exec("echo kept >/root/f; mkdir -p /root/d/e; ln /root/f /root/d/g; ln -s ../f /root/d/s").expect_success();
    expect_clean_ext(&scratch.image());
    let cat = |path: &str| run(scratch.umlfs().args(["image", "cat"]).arg(format!("t.img:{path}")));
    assert_eq!(cat("/root/f").expect_success().stdout, "kept\n");
    assert_eq!(cat("/root/d/s").expect_success().stdout, "kept\n");
    let done = scratch.exec("cat /root/d/g; rm -r /root/d /root/f").expect_success();
    assert_eq!(done.stdout, "kept\n");
    expect_clean_ext(&scratch.image());
    cat("/root/f").expect_one_error(&["/root/f"]);
}

/// `. /dev/stdin` of a shell: who wrote to the pipe has left it by then.
#[test]
fn a_pipe_is_opened_again_without_waiting_for_its_writer() {
    let shell = "echo through | (sleep 0.3; cat /proc/self/fd/0; cat /proc/self/fd/0; echo end)";
    let native = run(Command::new("sh").args(["-c", shell])).expect_success().stdout;
    assert_eq!(Scratch::new().exec(shell).expect_success().stdout, native);
}

#[test]
fn a_program_runs_without_a_shell() {
    let scratch = Scratch::new();
    let done = run_within(scratch.boot().args(["--", "/bin/ls", "-l", "/"]), BOOT_TIMEOUT).expect_success();
    for name in ["bin", "dev", "etc", "proc", "root", "sbin", "tmp"] {
        assert!(done.stdout.lines().any(|line| line.ends_with(&format!(" {name}"))), "{name}: {}", done.stdout);
    }
    // Arguments arrive as they are.
    let mut command = scratch.boot();
    command.args(["--", "printf", "<%s>", "a b", "", "$x", "'"]);
    assert_eq!(run_within(&mut command, BOOT_TIMEOUT).expect_success().stdout, "<a b><><$x><'>");
}

#[test]
fn kernel_arguments_as_user_mode_linux_takes_them() {
    let scratch = Scratch::new();
    let boot = |words: &[&str], shell: &str| {
        run_within(scratch.umlfs().arg("boot").args(words).args(["--exec", shell]), BOOT_TIMEOUT).expect_success()
    };
    let words = ["ubda=t.img", "root=/dev/ubda", "rw", "mem=128M", "con0=fd:0,fd:1", "COLOUR=red", "mod.opt=1"];
    let done = boot(&words, "cat /proc/cmdline; echo $COLOUR; grep MemTotal /proc/meminfo");
    let lines: Vec<&str> = done.stdout.lines().collect();
    assert_eq!(lines[0], "root=/dev/ubda rw mem=128M con0=fd:0,fd:1 COLOUR=red mod.opt=1");
    assert_eq!(lines[1], "red");
    let kilobytes: u64 = lines[2].split_whitespace().nth(1).unwrap().parse().unwrap();
    assert!((100 << 10..=128 << 10).contains(&kilobytes), "{}", lines[2]);

    let done = boot(&["ubda=t.img", "ro"], "touch /root/x; grep ' / ' /proc/mounts");
    assert!(done.stderr.contains("Read-only file system"), "{}", done.stderr);
    assert!(done.stdout.contains("ext4 ro,"), "{}", done.stdout);
}

#[test]
fn a_read_only_machine_leaves_the_image_alone() {
    let scratch = Scratch::new();
    let before = fs::read(scratch.image()).unwrap();
    fs::set_permissions(scratch.image(), fs::Permissions::from_mode(0o444)).unwrap();
    run_within(scratch.umlfs().args(["boot", "t.img", "ro", "--exec", "cat /etc/passwd"]), BOOT_TIMEOUT)
        .expect_success();
    assert!(fs::read(scratch.image()).unwrap() == before);
}

#[test]
fn one_image_has_one_writer() {
    let scratch = Scratch::new();
    let mut first =
        scratch.boot().args(["--", "/bin/cat"]).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    let mut keys = first.stdin.take().unwrap();
    keys.write_all(b"up\n").unwrap();
    let mut answer = [0; 3];
    first.stdout.take().unwrap().read_exact(&mut answer).unwrap();
    scratch.exec("true").expect_one_error(&["t.img", "in use"]);
    drop(keys);
    assert!(wait_within(&mut first, BOOT_TIMEOUT).expect("cat did not end").success());
    scratch.exec("true").expect_success();
}

/// Makes a file in the scratch from what `make` writes into it.
fn file(scratch: &Scratch, name: &str, make: impl FnOnce(&mut File)) {
    let mut file =
        File::options().read(true).write(true).create(true).truncate(false).open(scratch.path(name)).unwrap();
    make(&mut file);
}

#[test]
fn each_bad_image_gives_one_clear_error() {
    let scratch = Scratch::without_image();
    let boot = |image: &str| run_within(scratch.umlfs().args(["boot", image, "--exec", "true"]), BOOT_TIMEOUT);
    file(&scratch, "empty.img", |_| {});
    boot("empty.img").expect_one_error(&["empty.img", "empty"]);
    file(&scratch, "blank.img", |f| f.set_len(8 << 20).unwrap());
    boot("blank.img").expect_one_error(&["blank.img", "zero bytes only"]);

    let size = fs::metadata(scratch.copy_image("short.img")).unwrap().len();
    file(&scratch, "short.img", |f| f.set_len(size / 2).unwrap());
    boot("short.img").expect_one_error(&["short.img", "truncated", &size.to_string(), &(size / 2).to_string()]);

    file(&scratch, "fat.img", |f| f.set_len(8 << 20).unwrap());
    run(judge("mkfs.fat").arg(scratch.path("fat.img"))).expect_success();
    boot("fat.img").expect_one_error(&["fat.img", "FAT"]);

    let noise = &stream_of_bytes()[..1 << 20];
    file(&scratch, "noise.img", |f| f.write_all(noise).unwrap());
    boot("noise.img").expect_one_error(&["noise.img", "nothing that umlfs knows"]);

    let damage = |name: &str, at: u64, bytes: &[u8]| {
        scratch.copy_image(name);
        file(&scratch, name, |f| {
            f.seek(SeekFrom::Start(at)).unwrap();
            f.write_all(bytes).unwrap();
        });
    };
    damage("superblock.img", 1024, &noise[..1024]);
    // With one block group there is no backup that would tell what this was.
    boot("superblock.img").expect_one_error(&["superblock.img is no ext2"]);
    damage("blocksize.img", 1024 + 24, &[0xff; 4]);
    boot("blocksize.img").expect_one_error(&["blocksize.img", "s_log_block_size"]);
    // A flipped bit where only the checksum sees it.
    damage("label.img", 1024 + 120, b"\x01\x02\x03");
    boot("label.img").expect_one_error(&["label.img", "superblock", "checksum"]);

    fs::create_dir(scratch.path("dir")).unwrap();
    boot("dir").expect_one_error(&["dir is a directory", "umlfs image create"]);
    boot("nowhere.img").expect_one_error(&["nowhere.img", "No such file"]);
    boot("/dev/null").expect_one_error(&["/dev/null"]);
    scratch.expect_no_process();
}

#[test]
fn each_bad_program_gives_one_clear_error() {
    let scratch = Scratch::new();
    let init = |init: &str| {
        let mut command = scratch.umlfs();
        run_within(command.args(["boot", "t.img", "quiet"]).arg(format!("init={init}")), BOOT_TIMEOUT)
    };
    init("/sbin/nonesuch").expect_one_error(&["init /sbin/nonesuch", "No such file"]);
    init("/etc/passwd").expect_one_error(&["init /etc/passwd", "Permission denied"]);
    init("/etc").expect_one_error(&["init /etc", "Permission denied"]);
    let program = |argv: &[&str]| run_within(scratch.boot().arg("--").args(argv), BOOT_TIMEOUT);
    program(&["/bin/nonesuch"]).expect_one_error(&["/bin/nonesuch", "No such file"]);
    program(&["nonesuch"]).expect_one_error(&["nonesuch", "No such file"]);
    program(&["/etc/passwd"]).expect_one_error(&["/etc/passwd", "Permission denied"]);
    scratch.expect_no_process();
    expect_clean_ext(&scratch.image());

    // An image whose every init is gone.
    scratch.exec("cd /; /bin/busybox rm -f /sbin/init /etc/init /bin/init /bin/sh").expect_success();
    run_within(scratch.umlfs().args(["boot", "t.img", "quiet"]), BOOT_TIMEOUT).expect_one_error(&[
        "no working init",
        "/sbin/init",
        "init=PATH",
    ]);
    scratch.exec("true").expect_one_error(&["/bin/sh"]);
}

#[test]
fn each_senseless_argument_gives_one_clear_error() {
    let scratch = Scratch::new();
    let boot = |words: &[&str]| run_within(scratch.umlfs().arg("boot").args(words), BOOT_TIMEOUT);
    boot(&["t.img", "other.img"]).expect_one_error(&["two images", "other.img"]);
    boot(&["rw"]).expect_one_error(&["no image"]);
    boot(&["t.img", "root=/dev/sda1"]).expect_one_error(&["/dev/sda1", "/dev/ubda"]);
    boot(&["t.img", "mem=lots"]).expect_one_error(&["mem=lots"]);
    boot(&["t.img", "ubdz=second.img"]).expect_one_error(&["ubdz=second.img"]);
}

#[test]
fn ten_boots_in_a_row_and_eight_at_once_leave_nothing_behind() {
    let scratch = Scratch::new();
    for number in 1..=10 {
        let shell = "n=$(cat /root/n 2>/dev/null || echo 0); echo $((n+1)) | tee /root/n";
        assert_eq!(scratch.exec(shell).expect_success().stdout, format!("{number}\n"));
    }
    scratch.expect_no_process();
    expect_clean_ext(&scratch.image());

    let names: Vec<String> = (0..8).map(|number| format!("{number}.img")).collect();
    std::thread::scope(|threads| {
        for name in &names {
            let image = scratch.copy_image(name);
            let mut command = scratch.umlfs();
            command.arg("boot").arg(image).args(["--exec", "echo $$ | cat; seq 1 2000 >/root/f; sleep 0.2"]);
            threads.spawn(move || run_within(&mut command, BOOT_TIMEOUT).expect_success());
        }
    });
    scratch.expect_no_process();
    for name in &names {
        expect_clean_ext(&scratch.path(name));
    }
}

#[test]
fn a_fork_bomb_hurts_only_its_guest() {
    let scratch = Scratch::new();
    // Each copy starts two more and stays; who ends it all has nothing left to fork once the bomb has gone off.
    let bomb = "sleep 3 & timer=$!; b() { b | b & sleep 1000; }; b & wait $timer; exec poweroff -f";
    let mut command = scratch.umlfs();
    command.args(["boot", "t.img", "--mem", "64M", "--exec", bomb]);
    run_within(&mut command, Duration::from_secs(200)).expect_success();
    scratch.expect_no_process();
    expect_clean_ext(&scratch.image());
}

#[test]
fn a_guest_gets_no_more_memory_than_the_machine_has() {
    let scratch = Scratch::new();
    let boot = |shell: &str| {
        let mut command = scratch.umlfs();
        command.args(["boot", "t.img", "--mem", "64M", "--exec", shell]);
        run_within(&mut command, BOOT_TIMEOUT)
    };
    // One request for more than there is fails; many small ones end the process that made most of them.
    let doubled = boot("x=xxxxxxxxxxxxxxxx; while :; do x=$x$x; done");
    assert!(matches!(doubled.status.code(), Some(1 | 2 | 137)), "{doubled:?}");
    let many = boot("seq 1 100000000 | sort >/dev/null; dmesg | grep -o 'Out of memory: Killed process [0-9]* (sort)'");
    assert!(many.stdout.starts_with("Out of memory: Killed process"), "{many:?}");
    scratch.expect_no_process();
}

/// Runs as `nobody`, where this test runs as root; otherwise as who runs it.
fn as_ordinary_user(scratch: &Scratch, shell: &str) -> Run {
    let mut command = scratch.boot();
    command.args(["--exec", shell]);
    if nix::unistd::geteuid().is_root() {
        std::os::unix::fs::chown(scratch.image(), Some(NOBODY), Some(NOBODY)).unwrap();
        std::os::unix::fs::chown(scratch.path("."), Some(NOBODY), Some(NOBODY)).unwrap();
        command.uid(NOBODY).gid(NOBODY);
    }
    run_within(&mut command, BOOT_TIMEOUT)
}

#[test]
fn an_ordinary_user_is_root_in_the_guest() {
    let scratch = Scratch::new();
    let shell = "id -u; echo kept >/root/f; chown 1000:1000 /root/f; mknod /root/null c 1 3; stat -c '%u %t' /root/f /root/null; \
                 mount -t tmpfs tmpfs /mnt; df /mnt | tail -1";
    let done = as_ordinary_user(&scratch, shell).expect_success();
    assert!(done.stdout.starts_with("0\n1000 0\n0 1\ntmpfs "), "{}", done.stdout);
    scratch.expect_no_process();
    expect_clean_ext(&scratch.image());
}

#[test]
fn a_kill_of_the_kernel_process_loses_nothing_that_was_synced() {
    let scratch = Scratch::new();
    let mut child = scratch
        .boot()
        .args(["--exec", "echo kept >/root/f; sync; echo synced; while :; do echo more >>/root/g; done"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut said = [0; 7];
    child.stdout.as_mut().unwrap().read_exact(&mut said).unwrap();
    assert_eq!(&said, b"synced\n");
    std::thread::sleep(Duration::from_millis(300));
    kill_kernel(child.id());
    let status = wait_within(&mut child, BOOT_TIMEOUT).expect("the monitor did not end");
    let mut stderr = String::new();
    child.stderr.take().unwrap().read_to_string(&mut stderr).unwrap();
    assert_eq!(status.code(), Some(1), "{stderr}");
    assert!(stderr.starts_with("umlfs: error: ") && stderr.contains("SIGKILL"), "{stderr}");
    scratch.expect_no_process();

    fs::copy(scratch.image(), scratch.path("copy.img")).unwrap();
    // e2fsck replays the journal (exit status 1: mended) and then finds nothing wrong.
    let mended = run(judge("e2fsck").arg("-fy").arg(scratch.path("copy.img")));
    assert!(matches!(mended.status.code(), Some(0 | 1)), "{mended:?}");
    for word in ["Inode ", "Block bitmap", "Free blocks count wrong", "Unattached"] {
        assert!(!mended.stdout.contains(word), "{}", mended.stdout);
    }
    // So does the next boot.
    assert_eq!(scratch.exec("cat /root/f").expect_success().stdout, "kept\n");
    expect_clean_ext(&scratch.image());
}

/// Kills the kernel process of a monitor: its only child.
fn kill_kernel(monitor: u32) {
    let children = fs::read_to_string(format!("/proc/{monitor}/task/{monitor}/children")).unwrap();
    let kernel: i32 = children.split_whitespace().next().expect("no kernel process").parse().unwrap();
    nix::sys::signal::kill(nix::unistd::Pid::from_raw(kernel), nix::sys::signal::Signal::SIGKILL).unwrap();
}

#[test]
fn the_real_user_mode_linux_boots_the_image() {
    let scratch = Scratch::new();
    scratch.exec("echo from umlfs >/root/f").expect_success();
    let mut command = Command::new(linux_uml());
    command.arg(format!("ubda={}", scratch.image().display()));
    command.args(["root=/dev/ubda", "rw", "mem=128M", "con=null", "con0=fd:0,fd:1", "init=/bin/sh", "umid="]);
    command.env("HOME", scratch.path("."));
    let mut terminal = Terminal::start(&mut command, 24, 80);
    terminal.expect_within("# ", Duration::from_secs(180));
    terminal.send("cat /root/f; echo from linux >/root/g; sync; echo $((6*7))\n");
    assert!(terminal.expect("42").contains("from umlfs"), "{}", terminal.transcript());
    terminal.send("mount -o remount,ro /; poweroff -f\n");
    terminal.wait(Duration::from_secs(60));
    assert_eq!(scratch.exec("cat /root/g").expect_success().stdout, "from linux\n");
    expect_clean_ext(&scratch.image());
}

/// The prompt of root's login shell.
const PROMPT: &str = "# ";

/// Boots init on a terminal and waits for the shell.
fn session(scratch: &Scratch) -> Terminal {
    let mut terminal = Terminal::start(scratch.boot().env("TERM", "xterm"), 24, 80);
    terminal.expect_within(PROMPT, BOOT_TIMEOUT);
    terminal
}

fn expect_power_off(scratch: &Scratch, terminal: &mut Terminal) {
    let status = terminal.wait(BOOT_TIMEOUT);
    assert_eq!(status.code(), Some(0), "{}", terminal.transcript());
    scratch.expect_no_process();
    expect_clean_ext(&scratch.image());
}

#[test]
fn a_session_with_init_a_shell_and_job_control() {
    let scratch = Scratch::new();
    let mut command = scratch.boot();
    command.env("TERM", "xterm");
    let mut terminal = Terminal::start(&mut command, 24, 80);
    terminal.expect_within(PROMPT, BOOT_TIMEOUT);
    // Answers are computed, so that the echo of what was typed is not taken for them.
    terminal.send("echo $((6*7)) $$ $TERM; tty\r");
    terminal.expect("42 ");
    terminal.expect(" xterm");
    terminal.expect("/dev/console");
    terminal.expect(PROMPT);

    terminal.send("sleep 1000\r");
    std::thread::sleep(Duration::from_millis(500));
    terminal.send("\x03");
    terminal.expect(PROMPT);
    terminal.send("echo status $?\r");
    terminal.expect("status 130");
    terminal.expect(PROMPT);

    terminal.send("sleep 1001\r");
    std::thread::sleep(Duration::from_millis(500));
    terminal.send("\x1a");
    terminal.expect("Stopped");
    terminal.expect(PROMPT);
    terminal.send("bg\r");
    terminal.expect("sleep 1001");
    terminal.expect(PROMPT);
    terminal.send("jobs\r");
    terminal.expect("Running");
    terminal.expect(PROMPT);
    terminal.send("fg\r");
    terminal.expect("sleep 1001");
    // The shell prints the name before it gives the terminal away.
    std::thread::sleep(Duration::from_millis(500));
    terminal.send("\x03");
    terminal.expect(PROMPT);
    terminal.send("jobs; echo none left $?\r");
    let said = terminal.expect("none left 0");
    assert!(!said.contains("Running") && !said.contains("Stopped"), "{said}");
    terminal.expect(PROMPT);

    terminal.send("stty size\r");
    terminal.expect("24 80");
    terminal.expect(PROMPT);
    terminal.resize(40, 132);
    std::thread::sleep(Duration::from_millis(300));
    terminal.send("stty size\r");
    terminal.expect("40 132");
    terminal.expect(PROMPT);

    terminal.send("ls /proc/self/fd >/dev/null && cat /proc/mounts | wc -l && poweroff\r");
    expect_power_off(&scratch, &mut terminal);
}

#[test]
fn the_shell_edits_lines_and_vi_and_top_run() {
    let scratch = Scratch::new();
    let mut terminal = session(&scratch);
    // Left arrow, insert; up arrow repeats.
    terminal.send(&format!("echo ac=$((40+1)){}b\r", "\x1b[D".repeat("c=$((40+1))".len())));
    terminal.expect("abc=41\r\n");
    terminal.expect(PROMPT);
    terminal.send("\x1b[A\r");
    terminal.expect("abc=41\r\n");
    terminal.expect(PROMPT);

    terminal.send("vi /root/text\r");
    terminal.expect("/root/text");
    terminal.send("ihello from vi\x1b");
    std::thread::sleep(Duration::from_millis(500));
    terminal.send(":wq\r");
    terminal.expect(PROMPT);
    terminal.send("wc -c </root/text\r");
    terminal.expect("14\r\n");
    terminal.expect(PROMPT);

    terminal.send("top -d 1\r");
    terminal.expect("Mem:");
    terminal.expect("Load average:");
    terminal.expect("top");
    terminal.send("q");
    terminal.expect(PROMPT);
    terminal.send("poweroff\r");
    expect_power_off(&scratch, &mut terminal);
}

#[test]
fn the_terminal_is_restored_whatever_ends_the_machine() {
    let scratch = Scratch::new();
    // In order: power-off, the kernel process killed, the monitor killed, the monitor asked to end.
    for way in ["poweroff", "kernel", "monitor", "term"] {
        let mut command = scratch.boot();
        command.env("TERM", "xterm");
        let mut terminal = Terminal::unstarted(24, 80);
        let before = terminal.settings();
        terminal.run(&mut command);
        terminal.expect_within(PROMPT, BOOT_TIMEOUT);
        assert_ne!(terminal.settings(), before, "the terminal is raw while the machine has it");
        let monitor = terminal.pid();
        let signal = |signal| nix::sys::signal::kill(nix::unistd::Pid::from_raw(monitor as i32), signal).unwrap();
        match way {
            "poweroff" => terminal.send("poweroff\r"),
            "kernel" => kill_kernel(monitor),
            "monitor" => signal(nix::sys::signal::Signal::SIGKILL),
            _ => signal(nix::sys::signal::Signal::SIGTERM),
        }
        let status = terminal.wait(BOOT_TIMEOUT);
        let code = match way {
            "poweroff" => Some(0),
            "kernel" => Some(1),
            "monitor" => None,
            _ => Some(128 + 15),
        };
        assert_eq!(status.code(), code, "{way}: {}", terminal.transcript());
        scratch.expect_no_process();
        assert_eq!(terminal.settings(), before, "{way}: the terminal's settings changed");
        if way != "kernel" {
            expect_clean_ext(&scratch.image());
        }
    }
    scratch.exec("true").expect_success();
    expect_clean_ext(&scratch.image());
}

#[test]
fn reboot_boots_again() {
    let scratch = Scratch::new();
    let mut terminal = session(&scratch);
    terminal.send("echo again >/root/f; reboot\r");
    terminal.expect("init process");
    terminal.expect_within(PROMPT, BOOT_TIMEOUT);
    terminal.send("cat /root/f; cut -d. -f1 /proc/uptime\r");
    terminal.expect("again\r\n");
    terminal.expect(PROMPT);
    terminal.send("poweroff\r");
    expect_power_off(&scratch, &mut terminal);
}

#[test]
fn ctrl_alt_del_is_inits_to_answer() {
    let scratch = Scratch::new();
    let script = "#!/bin/sh\nmount -t proc proc /proc\ntrap 'echo told; poweroff -f' INT\n\
                  echo 0 >/proc/sys/kernel/ctrl-alt-del\necho ready\nwhile :; do sleep 0.1; done\n";
    scratch
        .exec(&format!("printf '{}' >/root/init; chmod +x /root/init", script.replace('\'', "'\\''")))
        .expect_success();
    let mut command = scratch.boot();
    command.args(["--init", "/root/init"]);
    let mut terminal = Terminal::unstarted(24, 80);
    terminal.run(&mut command);
    terminal.expect_within("ready", BOOT_TIMEOUT);
    let monitor = nix::unistd::Pid::from_raw(terminal.pid() as i32);
    nix::sys::signal::kill(monitor, nix::sys::signal::Signal::SIGUSR1).unwrap();
    terminal.expect("told");
    expect_power_off(&scratch, &mut terminal);
}

#[test]
fn a_login_prompt_as_inittab_offers_it() {
    let scratch = Scratch::new();
    scratch
        .exec("sed -i 's|^console::respawn:.*|console::respawn:/sbin/getty -L console 0 linux|' /etc/inittab && grep -c '^console.*getty' /etc/inittab")
        .expect_success();
    let mut terminal = Terminal::start(&mut scratch.boot(), 24, 80);
    terminal.expect_within("login: ", BOOT_TIMEOUT);
    terminal.send("root\r");
    terminal.expect(PROMPT);
    terminal.send("id -un; tty; echo $((6*7))\r");
    terminal.expect("root\r\n");
    terminal.expect("/dev/console");
    terminal.expect("42");
    terminal.send("exit\r");
    terminal.expect("login: ");
    terminal.send("root\r");
    terminal.expect(PROMPT);
    terminal.send("poweroff\r");
    expect_power_off(&scratch, &mut terminal);
}

#[test]
fn init_takes_commands_from_a_pipe() {
    let scratch = Scratch::new();
    fs::write(scratch.path("in"), "echo $((6*7))\npoweroff\n").unwrap();
    let mut command = scratch.boot();
    command.stdin(File::open(scratch.path("in")).unwrap());
    let done = run_within(&mut command, BOOT_TIMEOUT).expect_success();
    assert!(done.stdout.contains("42\r\n"), "{}", done.stdout);
    scratch.expect_no_process();
    expect_clean_ext(Path::new(&scratch.image()));
}
