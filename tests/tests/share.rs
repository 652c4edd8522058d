//! `umlfs boot --share`: a directory of the host in the guest, on both platforms, judged by what lies on the host's side.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::process::{Child, ChildStdin, ChildStdout, Stdio};
use std::time::{Duration, SystemTime};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use umlfs_tests::machine::{BOOT_TIMEOUT, Scratch, platforms, run_within};
use umlfs_tests::{Run, expect_clean_ext};

/// A machine, and a directory `d` to share.
struct Shared {
    scratch: Scratch,
    platform: &'static str,
}

impl Shared {
    fn new(platform: &'static str) -> Shared {
        let scratch = Scratch::new();
        fs::create_dir(scratch.path("d")).unwrap();
        Shared { scratch, platform }
    }

    fn path(&self, name: &str) -> std::path::PathBuf {
        self.scratch.path("d").join(name)
    }

    fn exec_with(&self, options: &[&str], shell: &str) -> Run {
        let mut command = self.scratch.boot();
        run_within(command.args(["--platform", self.platform]).args(options).args(["--exec", shell]), BOOT_TIMEOUT)
    }

    fn exec(&self, shell: &str) -> Run {
        self.exec_with(&["--share", "d:/mnt"], shell)
    }

    /// Starts a shell command in the guest, to be talked with.
    fn talk(&self, shell: &str) -> (Child, ChildStdin, BufReader<ChildStdout>) {
        let mut command = self.scratch.boot();
        command.args(["--platform", self.platform, "--share", "d:/mnt", "--exec", shell]);
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let (input, output) = (child.stdin.take().unwrap(), child.stdout.take().unwrap());
        (child, input, BufReader::new(output))
    }
}

#[test]
fn files_are_the_same_on_both_sides() {
    for platform in platforms() {
        let shared = Shared::new(platform);
        let big: Vec<u8> = (0..300_000u32).flat_map(|n| n.to_le_bytes()).collect();
        fs::write(shared.path("big"), &big).unwrap();
        fs::set_permissions(shared.path("big"), fs::Permissions::from_mode(0o640)).unwrap();
        let time = SystemTime::UNIX_EPOCH + Duration::new(1_000_000_000, 123_456_789);
        fs::File::options().write(true).open(shared.path("big")).unwrap().set_modified(time).unwrap();
        fs::create_dir_all(shared.path("deep/er")).unwrap();
        for n in 0..500 {
            fs::write(shared.path(&format!("deep/er/{n}")), n.to_string()).unwrap();
        }
        let run = shared.exec(
            "set -e; cd /mnt; md5sum big; stat -c '%a %s %u %Y %h' big; ls deep/er | wc -l; cat deep/er/499; echo; \
             cp big copy; cmp big copy; mkdir -p new/dir; echo hello >new/dir/f; ln new/dir/f new/hard; ln -s dir/f new/soft; \
             cat new/soft; stat -c %h new/hard; mv new/dir/f new/moved; echo more >>new/moved; cat new/hard; rm big; \
             chmod 600 copy; touch -d '2001-02-03 04:05:06' copy; rm -r deep; truncate -s 7 new/moved; mkfifo new/fifo; \
             (echo through >new/fifo) & cat new/fifo; rmdir new/dir; df /mnt | tail -1 | grep -o '/mnt$'; sync; \
             exec 3>new/gone; rm new/gone; echo kept >&3; ls new",
        );
        // The judge of the first half: the same commands' results, made here.
        let sum =
            umlfs_tests::run(std::process::Command::new("md5sum").arg(shared.path("copy"))).expect_success().stdout;
        let sum = sum.split_whitespace().next().unwrap();
        let expected = format!(
            "{sum}  big\n640 1200000 0 1000000000 1\n500\n499\nhello\n2\nhello\nmore\nthrough\n/mnt\nfifo\nhard\nmoved\nsoft\n"
        );
        assert_eq!(run.expect_success().stdout, expected);
        assert!(fs::read(shared.path("copy")).unwrap() == big);
        let copy = fs::metadata(shared.path("copy")).unwrap();
        assert_eq!((copy.mode(), copy.mtime()), (0o100_600, 981_173_106));
        assert!(!shared.path("big").exists() && !shared.path("deep").exists());
        assert_eq!(fs::read_to_string(shared.path("new/hard")).unwrap(), "hello\nm");
        assert_eq!(fs::read_link(shared.path("new/soft")).unwrap().to_str(), Some("dir/f"));
        assert_eq!(fs::metadata(shared.path("new/moved")).unwrap().nlink(), 2);
        shared.scratch.expect_no_process();
        expect_clean_ext(&shared.scratch.image());
    }
}

#[test]
fn programs_run_from_a_share() {
    for platform in platforms() {
        let shared = Shared::new(platform);
        // A program and its library, which are mapped; then changed by the guest, and run again.
        let run = shared.exec(
            "cd /mnt; mkdir b c; b=/mnt/b/busybox; cp /bin/busybox b && $b echo one && cp $b c && c/busybox sh -c \"$b echo two\" && \
             printf \"#!$b sh\\necho script \\$1\\n\" >s && chmod +x s && ./s arg; \
             ($b sleep 100 & sleep 0.2; (echo x >b/busybox) 2>&1 | grep -o 'Text file busy'; kill $!)",
        );
        assert_eq!(run.expect_success().stdout, "one\ntwo\nscript arg\nText file busy\n");
    }
}

#[test]
fn the_host_changes_files_under_a_running_guest() {
    for platform in platforms() {
        let shared = Shared::new(platform);
        fs::write(shared.path("f"), "first\n").unwrap();
        let shell = "cd /mnt; cat f; ls; read x; cat f; ls; read x; cat f 2>&1; cat g/h; read x; sh p; read x; sh p";
        let (mut child, mut input, mut output) = shared.talk(shell);
        let mut expect = |lines: &[&str]| {
            for line in lines {
                let mut got = String::new();
                output.read_line(&mut got).unwrap();
                assert_eq!(got.trim_end(), *line, "{platform}");
            }
        };
        // What is known of names is believed for a tenth of a second.
        let mut go_on = || {
            std::thread::sleep(Duration::from_millis(150));
            input.write_all(b"\n").unwrap();
        };
        expect(&["first", "f"]);
        fs::write(shared.path("f"), "second, longer\n").unwrap();
        fs::write(shared.path("e"), "").unwrap();
        go_on();
        expect(&["second, longer", "e", "f"]);
        fs::remove_file(shared.path("f")).unwrap();
        fs::create_dir(shared.path("g")).unwrap();
        fs::write(shared.path("g/h"), "below\n").unwrap();
        fs::write(shared.path("p"), "echo version one\n").unwrap();
        go_on();
        expect(&["cat: can't open 'f': No such file or directory", "below"]);
        go_on();
        expect(&["version one"]);
        fs::write(shared.path("p.new"), "echo version two\n").unwrap();
        fs::rename(shared.path("p.new"), shared.path("p")).unwrap();
        go_on();
        expect(&["version two"]);
        assert!(child.wait().unwrap().success());
    }
}

#[test]
fn the_machine_goes_on_without_its_share_server() {
    for platform in platforms() {
        let shared = Shared::new(platform);
        fs::write(shared.path("f"), "here\n").unwrap();
        let shell = "cd /mnt; cat f; read x; sleep 0.2; cat f 2>&1; ls 2>&1; echo x 2>/dev/null >g; cd /; sync; umount /mnt && echo on";
        let (mut child, mut input, mut output) = shared.talk(shell);
        let mut line = String::new();
        output.read_line(&mut line).unwrap();
        assert_eq!(line, "here\n");
        // The only process of the machine that has the directory open.
        let directory = shared.scratch.path("d").canonicalize().unwrap();
        let has = |pid: &i32| {
            let files = fs::read_dir(format!("/proc/{pid}/fd")).into_iter().flatten().flatten();
            files.filter_map(|file| fs::read_link(file.path()).ok()).any(|path| path == directory)
        };
        let servers: Vec<i32> = shared.scratch.processes().into_iter().filter(has).collect();
        assert_eq!(servers.len(), 1, "{servers:?}");
        kill(Pid::from_raw(servers[0]), Signal::SIGKILL).unwrap();
        input.write_all(b"\n").unwrap();
        let rest: Vec<String> = output.lines().map(Result::unwrap).collect();
        assert!(rest[..2].iter().all(|line| line.contains("error")) && rest.last().unwrap() == "on", "{rest:?}");
        assert!(child.wait().unwrap().success());
        shared.scratch.expect_no_process();
    }
}

#[test]
fn nothing_but_what_is_shared_is_reached() {
    for platform in platforms() {
        let shared = Shared::new(platform);
        fs::write(shared.scratch.path("secret"), "secret\n").unwrap();
        symlink("../secret", shared.path("up")).unwrap();
        symlink(shared.scratch.path("secret"), shared.path("absolute")).unwrap();
        symlink("/etc/os-release", shared.path("guests")).unwrap();
        let run = shared.exec(
            "cd /mnt; cat up absolute 2>&1 | grep -c 'No such file'; cmp guests /etc/os-release && echo guest; ls -a .. | grep -c secret; \
             mknod dev c 1 3 2>&1 | grep -o 'not permitted'; mknod dev b 98 0 2>&1 | grep -o 'not permitted'; \
             chown 5 up 2>/dev/null; ls /proc/1/root/mnt/../secret 2>&1 | grep -c 'No such'; mount | grep -c '/mnt type hostfs'",
        );
        assert_eq!(run.expect_success().stdout, "2\nguest\n0\nnot permitted\nnot permitted\n1\n1\n");
        assert_eq!(fs::read_to_string(shared.scratch.path("secret")).unwrap(), "secret\n");
        let before = fs::metadata(shared.scratch.path("d")).unwrap();
        let run = shared.exec_with(
            &["--share", "d:/mnt:ro"],
            "cd /mnt; for c in 'touch x' 'rm up' 'mkdir y' 'mv up z' 'chmod 777 .' 'touch .' 'ln -s a b'; do $c 2>&1; done | \
             grep -c 'Read-only'; mount -o remount,rw /mnt 2>/dev/null; touch x 2>&1 | grep -o 'Read-only'",
        );
        assert_eq!(run.expect_success().stdout, "7\nRead-only\n");
        let after = fs::metadata(shared.scratch.path("d")).unwrap();
        assert_eq!((before.ctime(), before.ctime_nsec()), (after.ctime(), after.ctime_nsec()));
        shared.scratch.expect_no_process();
    }
}

#[test]
fn a_missing_directory_is_made_or_named() {
    let shared = Shared::new("auto");
    fs::write(shared.path("f"), "here\n").unwrap();
    let deep = ["--share", "d:/new/deep/er"];
    assert_eq!(shared.exec_with(&deep, "cat /new/deep/er/f").expect_success().stdout, "here\n");
    let options = ["ro", "--share", "d:/other"];
    shared.exec_with(&options, "true").expect_code(1).expect_one_error(&["/other", "Read-only", "boot without `ro`"]);
    let options = ["--share", "d:/etc/passwd"];
    shared.exec_with(&options, "true").expect_code(1).expect_one_error(&["/etc/passwd", "ENOTDIR"]);
    let both = ["--share", "d:/a", "--share", "d:/b:ro"];
    let run = shared.exec_with(&both, "echo x >/a/n; cat /b/n; stat -c %i /a/f /b/f | uniq | wc -l");
    assert_eq!(run.expect_success().stdout, "x\n1\n");
    for wrong in ["/nonexistent:/mnt", "d:mnt", "d", "d:/"] {
        assert_eq!(shared.exec_with(&["--share", wrong], "true").status.code(), Some(2), "{wrong}");
    }
    shared.scratch.expect_no_process();
}
