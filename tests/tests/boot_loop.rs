//! Loop devices: files of the guest's as disks, with `mount -o loop` and `losetup` of busybox. Judges are `e2fsck`, and what the guest
//! reads back after a boot.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

use std::fs;

use umlfs_tests::machine::{BOOT_TIMEOUT, Scratch, platforms, run_within};
use umlfs_tests::{Run, expect_clean_ext, run};

fn boot(scratch: &Scratch, words: &[&str], command: &str) -> Run {
    run_within(scratch.umlfs().arg("boot").args(words).args(["--exec", command]), BOOT_TIMEOUT)
}

fn image(scratch: &Scratch, words: &[&str]) -> Run {
    run(scratch.umlfs().arg("image").args(words))
}

/// A machine directory with `base.img`, which has room, and in it a file system in a file: `/root/in.img`.
fn scratch(block_size: &str) -> Scratch {
    let scratch = Scratch::new();
    fs::create_dir(scratch.path("tree")).unwrap();
    fs::write(scratch.path("tree/file"), "in a file\n").unwrap();
    image(&scratch, &["create", "in.img", "--from", "tree", "--block-size", block_size, "--size", "24M", "-q"])
        .expect_success();
    image(&scratch, &["create", "base.img", "--from", "t.img", "--block-size", "4096", "--size", "128M", "-q"])
        .expect_success();
    image(&scratch, &["cp", "in.img", "base.img:/root/in.img"]).expect_success();
    scratch
}

/// The file system in the file, as `e2fsck` sees it, and a file in it.
fn judge(scratch: &Scratch, disk: &str, file: &str) -> String {
    image(scratch, &["cp", &format!("{disk}:/root/in.img"), "out.img"]).expect_success();
    expect_clean_ext(&scratch.path("out.img"));
    let text = image(scratch, &["cat", &format!("out.img:{file}")]).expect_success().stdout;
    fs::remove_file(scratch.path("out.img")).unwrap();
    text
}

/// Uses a file system in a file in all the ways that have a path of their own: read, overwritten, appended, mapped, executed.
const USE: &str = "mount -o loop /root/in.img /mnt || exit 1; cat /mnt/file; cp /bin/busybox /mnt/; sync; \
    /mnt/busybox cmp /mnt/busybox /bin/busybox || exit 2; echo changed >/mnt/file; dd if=/dev/urandom of=/mnt/big bs=64k count=100 2>/dev/null; \
    dd if=/dev/zero of=/mnt/big bs=4k count=3 seek=7 conv=notrunc 2>/dev/null; echo more >>/mnt/big; md5sum </mnt/big >/mnt/sum; \
    true 2>/dev/null >/root/in.img; echo $?; cat /sys/block/loop0/loop/backing_file; \
    umount /mnt; losetup -a; mount -o loop,ro /root/in.img /mnt || exit 3; md5sum </mnt/big | cmp - /mnt/sum || exit 4; cat /mnt/file; \
    echo no 2>/dev/null >/mnt/file; echo $?";

const USED: &str = "in a file\n1\n/root/in.img\nchanged\n1\n";

#[test]
fn a_file_system_in_a_file_is_used_as_any() {
    for block_size in ["4096", "1024"] {
        let scratch = scratch(block_size);
        for platform in platforms() {
            for disk in [&["base.img", "--cow", "o.cow"][..], &["base.img"]] {
                let mut words = vec!["--platform", platform];
                words.extend(disk);
                let done = boot(&scratch, &words, USE).expect_success();
                assert_eq!((done.stdout.as_str(), done.stderr.as_str()), (USED, ""), "{words:?} {block_size}");
                // The machine stopped with it mounted.
                let disk = disk.last().unwrap();
                assert_eq!(judge(&scratch, disk, "/file"), "changed\n");
                let put = ["cp", "in.img", &format!("{disk}:/root/in.img")];
                image(&scratch, &put).expect_success();
            }
            fs::remove_file(scratch.path("o.cow")).unwrap();
        }
        expect_clean_ext(&scratch.path("base.img"));
        scratch.expect_no_process();
    }
}

/// Formats a file full of holes, in memory and on the disk, and another one in the first.
const NEST: &str = "mount -t tmpfs tmpfs /tmp; for dir in /root /tmp; do truncate -s 40M $dir/outer; mke2fs -F $dir/outer >/dev/null 2>&1 || exit 1; \
    mkdir -p /mnt /in; mount -o loop $dir/outer /mnt || exit 2; dd if=/dev/zero of=/mnt/inner bs=1M count=8 2>/dev/null; \
    mke2fs -F /mnt/inner >/dev/null 2>&1; mount -o loop /mnt/inner /in || exit 3; cp /bin/busybox /in/; umount /mnt 2>/dev/null; echo $?; \
    /in/busybox cmp /bin/busybox /in/busybox || exit 4; losetup -a | sed 's/.* //'; umount /in; umount /mnt; losetup -a; done; \
    mount -o loop /root/outer /mnt; mv /root/in.img /root/old.img; cp /mnt/inner /root/in.img";

#[test]
fn one_in_the_other() {
    let scratch = scratch("4096");
    for platform in platforms() {
        let done = boot(&scratch, &["--platform", platform, "base.img"], NEST).expect_success();
        assert_eq!(
            done.stdout, "1\n/root/outer\n/mnt/inner\n1\n/tmp/outer\n/mnt/inner\n",
            "{platform}: {}",
            done.stderr
        );
        assert!(judge(&scratch, "base.img", "/busybox").starts_with("\u{7f}ELF"));
        expect_clean_ext(&scratch.path("base.img"));
    }
}

/// The partitions of a disk in a file, by the scan that `losetup -P` asks for and by the one that `blockdev` does.
const PARTS: &str = "losetup -P /dev/loop0 /host/d.img 2>/dev/null || losetup -f -P /host/d.img || exit 1; cd /dev; ls loop0*; \
    grep loop0 /proc/partitions; mount /dev/loop0p2 /mnt; cat /mnt/file; echo no 2>/dev/null >/mnt/file; echo $?; \
    losetup -d /dev/loop0; cat /sys/block/loop0/loop/autoclear; umount /mnt; cat /sys/block/loop0/size; \
    cp /host/d.img /root/d.img; losetup -P /dev/loop0 /root/d.img; mount /dev/loop0p2 /mnt && echo new >/mnt/file; \
    umount /mnt; losetup -d /dev/loop0; ls loop0*; grep -c loop0 /proc/partitions; true";

#[test]
fn a_disk_in_a_file_has_partitions() {
    let scratch = scratch("4096");
    image(&scratch, &["create", "swap.img", "--type", "swap", "--size", "4M", "-q"]).expect_success();
    fs::create_dir(scratch.path("host")).unwrap();
    image(&scratch, &["disk", "host/d.img", "swap=swap.img", "data=in.img", "-q"]).expect_success();
    for platform in platforms() {
        let words = ["--platform", platform, "base.img", "--share", "host:/host"];
        let done = boot(&scratch, &words, PARTS).expect_success();
        let wanted = "loop0\nloop0p1\nloop0p2\n   7        0      30720 loop0\n 259    16385       4096 loop0p1\n";
        assert!(done.stdout.contains(wanted), "{}\n{}", done.stdout, done.stderr);
        // Shares cannot be mapped to be written: the disk is read-only.
        assert!(done.stdout.contains("in a file\n1\n1\n0\nloop0\n0\n"), "{}\n{}", done.stdout, done.stderr);
        image(&scratch, &["cp", "base.img:/root/d.img", "out.img"]).expect_success();
        assert_eq!(image(&scratch, &["cat", "out.img:2:/file"]).expect_success().stdout, "new\n");
    }
}
