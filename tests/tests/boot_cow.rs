//! `umlfs boot --cow` and `umlfs image cow`: what machines write goes to overlays, on both platforms.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use umlfs_tests::machine::{BOOT_TIMEOUT, Scratch, platforms, run_within};
use umlfs_tests::{Run, expect_clean_ext, run};

/// A machine directory whose image has blocks of a page, so that guests map the host files themselves.
fn scratch() -> (Scratch, PathBuf) {
    let scratch = Scratch::new();
    let image = scratch.path("base.img");
    let mut create = scratch.umlfs();
    create.args(["image", "create", "--block-size", "4096", "--size", "64M", "--from", "t.img"]).arg(&image);
    run(&mut create).expect_success();
    (scratch, image)
}

fn exec(scratch: &Scratch, platform: &str, disk: &[&str], shell: &str) -> Run {
    let mut command = scratch.umlfs();
    command.args(["boot", "--platform", platform]).args(disk).args(["--exec", shell]);
    run_within(&mut command, BOOT_TIMEOUT)
}

/// Our own checker; e2fsck judges what a commit makes of it.
fn expect_clean(scratch: &Scratch, overlay: &str) {
    run(scratch.umlfs().args(["image", "check", overlay])).expect_success();
}

fn state(path: &Path) -> (Vec<u8>, std::time::SystemTime) {
    (fs::read(path).unwrap(), fs::metadata(path).unwrap().modified().unwrap())
}

#[test]
fn the_image_stays_and_the_overlay_has_the_changes() {
    for platform in platforms() {
        let (scratch, image) = scratch();
        let before = state(&image);
        let disk = ["base.img", "--cow", "x.cow"];
        exec(
            &scratch,
            platform,
            &disk,
            "echo one >/root/new; cp /bin/busybox /root/busybox; echo changed >>/etc/passwd",
        )
        .expect_success();
        // The copied program runs from the overlay, the shell from the image.
        let seen = exec(
            &scratch,
            platform,
            &disk,
            "cat /root/new; /root/busybox cmp /root/busybox /bin/busybox && tail -n1 /etc/passwd; rm /root/busybox",
        );
        assert_eq!(seen.expect_success().stdout, "one\nchanged\n");
        assert!(state(&image) == before, "{platform}: the image changed");
        // An overlay can be booted and looked into by itself.
        assert_eq!(exec(&scratch, platform, &["x.cow"], "cat /root/new").expect_success().stdout, "one\n");
        let read = run(scratch.umlfs().args(["image", "cat", "x.cow:/root/new"])).expect_success();
        assert_eq!(read.stdout, "one\n");
        let plain = exec(&scratch, platform, &["base.img", "ro"], "cat /root/new");
        assert_ne!(plain.status.code(), Some(0), "{platform}");
        expect_clean(&scratch, "x.cow");

        let merged = run(scratch.umlfs().args(["image", "cow", "commit", "x.cow"])).expect_success();
        assert!(merged.stdout.contains("merged"), "{}", merged.stdout);
        expect_clean_ext(&image);
        let read = run(scratch.umlfs().args(["image", "cat", "base.img:/root/new"])).expect_success();
        assert_eq!(read.stdout, "one\n");
        scratch.expect_no_process();
    }
}

/// Shared and private mappings of files whose blocks are in the image, in the overlay, and in both.
#[test]
fn mappings_agree_with_reads() {
    for platform in platforms() {
        let (scratch, _) = scratch();
        let program = scratch.path("mappings");
        let source = umlfs_tests::repository().join("tests/guest/mappings.c");
        let mut compile = umlfs_tests::judge("gcc");
        compile.args(["-static", "-O1", "-pthread", "-o"]).arg(&program).arg(source);
        run(&mut compile).expect_success();
        run(scratch.umlfs().args(["image", "cp", "mappings", "base.img:/root/mappings"])).expect_success();
        fs::copy(scratch.path("base.img"), scratch.path("plain.img")).unwrap();
        // A program that is partly written anew while it lies in the image: reads and execution see the new bytes.
        let shell = "cd /root && mkdir d e && ./mappings d e && ./mappings e d && sync && cp mappings m2 && sync && \
             dd if=/dev/zero of=m2 bs=1 seek=5000 count=3 conv=notrunc 2>/dev/null && \
             dd if=mappings of=m2 bs=1 skip=5000 seek=5000 count=3 conv=notrunc 2>/dev/null && \
             dd if=m2 of=mappings bs=4096 seek=3 skip=3 count=2 conv=notrunc 2>/dev/null && \
             cmp m2 mappings && ./m2 d e && ./mappings e d && echo whole";
        let plain = exec(&scratch, platform, &["plain.img"], shell).expect_success();
        let layered = exec(&scratch, platform, &["base.img", "--cow", "x.cow"], shell).expect_success();
        assert!(plain.stdout.ends_with("whole\n"), "{platform}: {}", plain.stdout);
        assert_eq!(layered.stdout, plain.stdout, "{platform}: the layered disk's left, the plain one's right");
        expect_clean(&scratch, "x.cow");
    }
}

/// Bytes that a file takes of the host.
fn space(scratch: &Scratch, name: &str) -> u64 {
    fs::metadata(scratch.path(name)).unwrap().blocks() * 512
}

/// What is removed takes no more space of the host: by `mount -o discard`, by fstrim, and by `umlfs image rm`; on an
/// image and on an overlay, which leaves the image below as it is.
#[test]
fn freed_blocks_become_holes() {
    for platform in platforms() {
        let (scratch, image) = scratch();
        let space = |name: &str| space(&scratch, name);
        let fill = "dd if=/dev/urandom of=/root/large bs=1M count=12 2>/dev/null; sync";
        for (disk, file) in [(&["base.img", "--cow", "x.cow"][..], "x.cow"), (&["base.img"], "base.img")] {
            let before = state(&image);
            exec(&scratch, platform, disk, fill).expect_success();
            let full = space(file);
            let kept = "mount -o remount,discard / && grep -q 'ext4.*discard' /proc/mounts && rm /root/large && sync";
            exec(&scratch, platform, disk, kept).expect_success();
            assert!(space(file) + (11 << 20) < full, "{platform} {file}: {} of {full}", space(file));
            exec(&scratch, platform, disk, fill).expect_success();
            let trimmed = exec(&scratch, platform, disk, "rm /root/large && fstrim -v /").expect_success();
            assert!(trimmed.stdout.contains("trimmed"), "{}", trimmed.stdout);
            assert!(space(file) + (11 << 20) < full, "{platform} {file}: {} of {full}", space(file));
            exec(&scratch, platform, disk, fill).expect_success();
            run(scratch.umlfs().args(["image", "rm", &format!("{file}:/root/large")])).expect_success();
            assert!(space(file) + (11 << 20) < full, "{platform} {file}: {} of {full}", space(file));
            expect_clean(&scratch, file);
            if file == "x.cow" {
                assert!(state(&image) == before, "{platform}: the image changed");
                run(scratch.umlfs().args(["image", "cow", "commit", "x.cow"])).expect_success();
            }
            expect_clean_ext(&image);
        }
        scratch.expect_no_process();
    }
}

/// Several machines from one image, at the same time; one is killed, and its overlay is as after a power cut.
#[test]
fn machines_share_an_image() {
    for platform in platforms() {
        let (scratch, image) = scratch();
        let before = state(&image);
        let mut machines: Vec<_> = (0..3)
            .map(|n| {
                let mut boot = scratch.umlfs();
                boot.args(["boot", "--platform", platform, "base.img", "--cow", &format!("{n}.cow"), "--exec"]);
                boot.arg(format!(
                    "echo {n} >/root/who; sync; i=0; while [ $i -lt 400 ]; do i=$((i+1)); \
                     echo $i >/root/f$i; [ $((i%50)) = 0 ] && sync; done; sleep 3; cat /root/who"
                ));
                boot.stdout(Stdio::piped()).spawn().unwrap()
            })
            .collect();
        std::thread::sleep(Duration::from_secs(4));
        let mut killed = machines.remove(0);
        killed.kill().unwrap();
        killed.wait().unwrap();
        for (n, machine) in machines.into_iter().enumerate() {
            let output = machine.wait_with_output().unwrap();
            assert_eq!(String::from_utf8_lossy(&output.stdout), format!("{}\n", n + 1), "{platform}");
        }
        scratch.expect_no_process();
        assert!(state(&image) == before, "{platform}: the image changed");
        for n in 0..3 {
            expect_clean(&scratch, &format!("{n}.cow"));
            // It has what its machine wrote; what that read is the image's, whose cached pages serve all.
            let taken = space(&scratch, &format!("{n}.cow"));
            assert!(taken < 4 << 20, "{platform}: overlay {n} takes {taken} bytes");
        }
        let read = run(scratch.umlfs().args(["image", "cat", "0.cow:/root/who"])).expect_success();
        assert_eq!(read.stdout, "0\n", "{platform}: what was synced is there");
    }
}

/// Memory that processes have, in bytes: what several share counts once in all.
fn memory(pids: &[i32]) -> u64 {
    let of = |pid: &i32| {
        let rollup = fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).ok()?;
        let line = rollup.lines().find_map(|line| line.strip_prefix("Pss:"))?;
        line.trim().strip_suffix(" kB")?.parse::<u64>().ok()
    };
    pids.iter().filter_map(of).sum::<u64>() * 1024
}

/// Thirty machines from one image, all up at the same time: each reads a large file of the image, which none gets a copy
/// of, and writes one of its own.
#[test]
fn thirty_machines_run_from_one_image() {
    const MACHINES: usize = 30;
    const LARGE: usize = 24 << 20;
    let platform = platforms().last().unwrap();
    let (scratch, image) = scratch();
    let large: Vec<u8> =
        (0..LARGE / 8).flat_map(|n| (n as u64).wrapping_mul(0x9E37_79B9_7F4A_7C15).to_le_bytes()).collect();
    fs::write(scratch.path("large"), &large).unwrap();
    run(scratch.umlfs().args(["image", "cp", "large", "base.img:/root/large"])).expect_success();
    let before = state(&image);
    let mut machines: Vec<_> = (0..MACHINES)
        .map(|n| {
            let mut boot = scratch.umlfs();
            boot.args(["boot", "--platform", platform, "base.img", "--cow", &format!("{n}.cow"), "--exec"]);
            boot.arg(format!("cksum /root/large; echo {n} >/root/who; read go; cat /root/who"));
            boot.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap()
        })
        .collect();
    let mut sums = std::collections::BTreeSet::new();
    for machine in &mut machines {
        let mut line = String::new();
        // Nothing comes behind this line until the machine is told to go on.
        BufReader::new(machine.stdout.as_mut().unwrap()).read_line(&mut line).unwrap();
        sums.insert(line);
    }
    let own = run(umlfs_tests::judge("cksum").arg(scratch.path("large"))).expect_success();
    let own: Vec<&str> = own.stdout.split_whitespace().take(2).collect();
    assert_eq!(sums, [format!("{} /root/large\n", own.join(" "))].into());
    let taken = memory(&scratch.processes()) / MACHINES as u64;
    assert!(taken < LARGE as u64 / 2, "{platform}: {taken} bytes a machine");
    for (n, mut machine) in machines.into_iter().enumerate() {
        machine.stdin.take().unwrap().write_all(b"go\n").unwrap();
        let output = machine.wait_with_output().unwrap();
        assert_eq!(String::from_utf8_lossy(&output.stdout), format!("{n}\n"), "{platform}");
    }
    scratch.expect_no_process();
    assert!(state(&image) == before, "{platform}: the image changed");
    for n in 0..MACHINES {
        assert!(
            space(&scratch, &format!("{n}.cow")) < 4 << 20,
            "{platform}: overlay {n} has what its machine only read"
        );
    }
}

#[test]
fn what_does_not_fit_is_refused() {
    let (scratch, image) = scratch();
    run(scratch.umlfs().args(["image", "cow", "create", "x.cow", "base.img"])).expect_success();
    run(scratch.umlfs().args(["image", "cow", "create", "x.cow", "base.img"])).expect_one_error(&["exists already"]);
    run(scratch.umlfs().args(["boot", "t.img", "--cow", "x.cow", "--exec", "true"]))
        .expect_one_error(&["is an overlay on", "base.img"]);
    let info = run(scratch.umlfs().args(["image", "cow", "info", "x.cow"])).expect_success();
    assert!(info.stdout.contains("base.img") && info.stdout.contains("changed"), "{}", info.stdout);
    // Two levels.
    run(scratch.umlfs().args(["image", "cow", "create", "y.cow", "x.cow"])).expect_success();
    let done = exec(&scratch, "ptrace", &["y.cow"], "echo deep >/root/deep; cat /root/deep").expect_success();
    assert_eq!(done.stdout, "deep\n");
    run(scratch.umlfs().args(["image", "label", "base.img", "other"])).expect_success();
    run(scratch.umlfs().args(["boot", "y.cow", "--exec", "true"]))
        .expect_one_error(&["base.img", "is not the file that this overlay was made for"]);
    run(scratch.umlfs().args(["image", "cow", "info", "base.img"])).expect_one_error(&["is no overlay"]);
    expect_clean_ext(&image);
}
