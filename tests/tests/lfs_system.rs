//! The system that `umlfs build --profile lfs` makes, at work: a user logs in, compiles, reads a manual, powers off; and programs say
//! in the machine what they say in a native chroot of the same root.
//!
//! The image takes an hour or two to build, so these tests run where UMLFS_LFS_IMAGE names it.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use umlfs_tests::machine::{BOOT_TIMEOUT, platforms};
use umlfs_tests::terminal::Terminal;
use umlfs_tests::{judge, run, umlfs};

/// The image, for reading only.
fn image() -> Option<PathBuf> {
    let image = std::env::var_os("UMLFS_LFS_IMAGE").map(PathBuf::from);
    if image.is_none() {
        eprintln!("NOT TESTED: UMLFS_LFS_IMAGE does not name an image of the profile lfs");
    }
    image
}

/// What the user types, and what then is on the terminal, where it is no echo.
const SESSION: &[(&str, &str)] = &[
    ("echo $((6*7)) $USER", "42 root"),
    ("printf '#include <stdio.h>\\nint main(void) { return puts(\"made here\") < 0; }\\n' > hello.c", ""),
    ("gcc -Wall hello.c && ./a.out", "made here"),
    ("printf '#include <iostream>\\nint main() { std::cout << 6 * 7 << \" too\\\\n\"; }\\n' > hello.cc", ""),
    ("g++ hello.cc -o hello && ./hello", "42 too"),
    ("perl -e 'print join(\"-\", 1..5), \"\\n\"'", "1-2-3-4-5"),
    ("awk 'BEGIN { print 2 ^ 10 }'", "1024"),
    ("mount | grep ' / '", "type ext4 (rw"),
    ("echo disks $(df / | grep -c /dev/)", "disks 1"),
    ("echo inits $(ps aux | grep -c '[s]bin/init')", "inits 1"),
    ("top -bn1 | head -1 | cut -c1-5", "top -"),
    ("echo manual $(man ls | head -1 | grep -c 'User Commands')", "manual 1"),
    ("vim -es -c 's/^/typed/' -c 'wq! note' /dev/null; cat note", "typed"),
    ("useradd -m somebody && su - somebody -c 'id -un; pwd' | tr '\\n' ' '", "somebody /home/somebody"),
    ("sleep 100 & jobs; kill %1; wait %1; echo status $?", "status 143"),
];

#[test]
fn a_user_at_work() {
    let Some(image) = image() else { return };
    for platform in platforms() {
        let dir = tempfile::tempdir().unwrap();
        let overlay = dir.path().join("mine.cow");
        let mut boot = umlfs();
        boot.args(["boot", "--platform", platform]).arg(&image).arg("--cow").arg(&overlay);
        let mut terminal = Terminal::start(&mut boot, 40, 200);
        terminal.expect_within("login: ", BOOT_TIMEOUT);
        terminal.send("root\n");
        terminal.expect("root@lfs:~# ");
        for (typed, shown) in SESSION {
            terminal.send(&format!("{typed}\n"));
            // Behind the echo.
            terminal.expect(typed.rsplit(' ').next().unwrap());
            terminal.expect_within(shown, Duration::from_secs(60));
            terminal.expect("root@lfs:~# ");
        }
        terminal.send("poweroff\n");
        assert!(terminal.wait(BOOT_TIMEOUT).success(), "{}", terminal.transcript());
        run(umlfs().args(["image", "check"]).arg(&overlay)).expect_success();
    }
}

/// Programs whose answers do not depend on where they run.
const PROGRAMS: &[&str] = &[
    "bash --version | head -1; bash -c 'shopt -s extglob; x=aabbcc; echo ${x//+(b)/-} ${#x} ${x^^}'",
    "ls -1 /usr/bin | wc -l; ls -ld /usr/bin/bash /etc/passwd | cut -c1-10",
    "find /usr/lib -name '*.so*' | sort | sha256sum",
    "find / -xdev -path /proc -prune -o -path /sys -prune -o -path /dev -prune -o -type f -perm /6000 -print | sort",
    "sort -r /etc/services | head -3; uniq -c /etc/shells | sed 's/ */ /'; od -c /etc/shells | tail -2",
    "perl -MPOSIX -MData::Dumper -e 'print strftime(\"%F\", gmtime 86400), \" \", floor(3.7), \" \", Dumper([1,{a=>2}])'",
    "gcc -dumpmachine; gcc -O2 -x c - -o /tmp/t <<< 'int main(void){return 42;}'; /tmp/t; echo $?",
    "printf 'all: a b\\na b:\\n\\t@echo $@ made\\n' > /tmp/Makefile; make -C /tmp -j2 --output-sync | sort",
    "m4 <<< 'define(x, `eval(2**16)')x'; echo 'scale=20; 4*a(1)' | bc -l; seq 5 | awk '{s+=$1} END {print s}'",
    "tar -C /etc -cf - passwd group | tar -tvf - | awk '{print $1, $3, $6}'; gzip -c /etc/services | gzip -dc | md5sum",
    "xz -c /etc/services | xz -dc | md5sum; zstd -qc /etc/services | zstd -dqc | md5sum; bzip2 -c /etc/services | bunzip2 -c | md5sum",
    "getconf PAGESIZE; locale -a; TZ=America/New_York date -d @0; cal 2 2024",
    "diff /etc/passwd /etc/group | head -2; printf 'a\\nb\\n' > /tmp/1; printf 'a\\nc\\n' > /tmp/2; diff -u /tmp/1 /tmp/2 | tail -3",
    "file /usr/bin/bash /etc/passwd | cut -d, -f1-3; readelf -h /usr/bin/ls | grep -E 'Class|Type|Machine'",
    "grep -c . /etc/protocols; grep -oP '(?<=root:)x' /etc/passwd; expr 7 \\* 6; factor 1234567; numfmt --to=iec 123456789",
    "python3 -c 'import ssl, sqlite3' 2>&1 | tail -1; python3 -c 'import ctypes, zlib, lzma, bz2, readline, curses, hashlib, uuid; print(42)'",
    "python3 -c 'import subprocess, threading; out = []; ts = [threading.Thread(target=lambda i=i: \
     out.append(subprocess.run([\"echo\", str(i)], capture_output=True, text=True).stdout)) for i in range(8)]; \
     [t.start() for t in ts]; [t.join() for t in ts]; print(sorted(out))'",
    "tclsh <<< 'puts [expr {6 * 7}]'; expect -c 'spawn -noecho echo hi; expect hi; puts ok'",
    "openssl version | cut -d' ' -f1,2; openssl dgst -sha256 /etc/services; openssl prime 1000003",
    "groff -Tascii -man /usr/share/man/man1/bash.1 2>/dev/null | head -20 | sha256sum; man -w ls bash; apropos . 2>&1 | head -1",
    "vim --version | head -2; less --version | head -1; msgfmt --version | head -1; flex --version; bison --version | head -1",
    "meson --version; ninja --version; pip3 --version | cut -d' ' -f1,2; automake --version | head -1",
];

#[test]
fn programs_say_what_they_say_natively() {
    let Some(image) = image() else { return };
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path().join("root");
    std::fs::create_dir(&root).unwrap();
    unpack(&image, dir.path(), &root);
    for program in PROGRAMS {
        let native = native(&root, program);
        for platform in platforms() {
            let overlay = dir.path().join(format!("{platform}.cow"));
            let mut boot = umlfs();
            boot.args(["boot", "--platform", platform]).arg(&image).arg("--cow").arg(&overlay);
            let guest = run(boot.args(["--", "/bin/bash", "-c", program]));
            assert_eq!(guest.stdout, native, "{program} on {platform} (right: native)\n{}", guest.stderr);
        }
    }
}

/// The image's files below `root`, as far as an ordinary user can have them.
fn unpack(image: &Path, dir: &Path, root: &Path) {
    let tar = dir.join("root.tar");
    run(umlfs().args(["image", "export", "tar"]).arg(image).arg(&tar)).expect_success();
    let mut unpack = judge("tar");
    run(unpack.args(["--no-same-owner", "--exclude=./dev/*", "--exclude=dev/*", "-xpf"]).arg(&tar).arg("-C").arg(root))
        .expect_success();
    std::fs::remove_file(&tar).unwrap();
}

/// What a program prints in a chroot, with namespaces of its own.
fn native(root: &Path, program: &str) -> String {
    let mut command = Command::new("unshare");
    command.args(["--user", "--map-root-user", "--mount", "--pid", "--fork", "--net", "/bin/sh", "-c"]);
    command.arg(
        "mount --rbind /dev \"$0/dev\" && mount -t proc proc \"$0/proc\" && mount -t tmpfs tmpfs \"$0/tmp\" && \
         exec chroot \"$0\" /bin/bash -c \"$1\"",
    );
    command.arg(root).arg(program).env_clear();
    command.env("PATH", "/usr/bin:/usr/sbin").env("HOME", "/root").env("TERM", "dumb");
    run(&mut command).stdout
}
