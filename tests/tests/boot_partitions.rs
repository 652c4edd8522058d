//! A machine's disks and their partitions: one may be its root, others are there to be partitioned, formatted, mounted. The judge of
//! tables is `sfdisk`, that of what a kernel makes of them a real User-Mode Linux.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

use std::fs;
use std::path::Path;

use umlfs_tests::machine::{BOOT_TIMEOUT, Scratch, platforms, run_within, uml_runs};
use umlfs_tests::uml::linux_uml;
use umlfs_tests::{Run, expect_clean_ext, judge, run};

/// What a kernel tells of the disk's partitions, and a file on another one.
const LOOK: &str = "grep ubd /proc/partitions; ls -l /dev/ubd* | awk '{print $5, $6, $NF}'; cd /sys/class/block; \
    for name in ubda ubda?*; do echo $name; cat $name/size $name/dev; cat $name/start $name/partition 2>/dev/null; \
    grep -E 'DEVNAME|DEVTYPE|PARTN|MAJOR|MINOR' $name/uevent; readlink $name/subsystem | sed 's,.*/,,'; done; \
    ls /sys/block | grep ubd; mkdir -p /mnt; mount /dev/ubda3 /mnt || exit 1; cat /mnt/file; date >/mnt/file; \
    mount -t ext4 /dev/ubda /mnt 2>&1 | sed 's/.*: //'; umount /mnt; \
    dd if=/dev/ubda3 bs=1 skip=1080 count=2 2>/dev/null | od -An -tx1; mount | grep -c ' on / type ext4'";

fn boot(scratch: &Scratch, words: &[&str], command: &str) -> Run {
    run_within(scratch.umlfs().arg("boot").args(words).args(["--exec", command]), BOOT_TIMEOUT)
}

fn image(scratch: &Scratch, words: &[&str]) -> Run {
    run(scratch.umlfs().arg("image").args(words))
}

fn sfdisk(disk: &Path, script: &str) {
    let file = disk.with_extension("script");
    fs::write(&file, script).unwrap();
    run(judge("sfdisk").arg("-q").arg(disk).stdin(fs::File::open(&file).unwrap())).expect_success();
}

/// A partition as `e2fsck` sees it.
fn expect_clean_part(scratch: &Scratch, part: &str) {
    image(scratch, &["dd", &format!("if={part}"), "of=part.img", "-q"]).expect_success();
    expect_clean_ext(&scratch.path("part.img"));
    fs::remove_file(scratch.path("part.img")).unwrap();
}

/// The ways to boot that this host has: our platforms, and the real User-Mode Linux.
fn ways() -> Vec<Vec<String>> {
    let mut ways: Vec<_> = platforms().iter().map(|name| vec!["--platform".to_owned(), (*name).to_owned()]).collect();
    if uml_runs() {
        ways.push(vec!["--kernel".to_owned(), linux_uml().to_str().unwrap().to_owned()]);
    }
    ways
}

#[test]
fn a_partition_is_the_root_and_the_others_are_there() {
    let scratch = Scratch::new();
    fs::create_dir(scratch.path("other")).unwrap();
    fs::write(scratch.path("other/file"), "on another partition\n").unwrap();
    image(&scratch, &["create", "swap.img", "--type", "swap", "--size", "4M", "-q"]).expect_success();
    image(&scratch, &["create", "other.img", "--from", "other", "--size", "8M", "-q"]).expect_success();
    for table in ["gpt", "mbr"] {
        let make =
            ["disk", "d.img", "--force", "--table", table, "swap=swap.img", "root=t.img", "other=other.img", "-q"];
        let mut told = Vec::new();
        for way in ways() {
            image(&scratch, &make).expect_success();
            let mut words = vec!["d.img:2"];
            words.extend(way.iter().map(String::as_str));
            let done = boot(&scratch, &words, LOOK).expect_success();
            assert_eq!(done.stderr, "", "{way:?}");
            told.push(done.stdout);
            for part in ["d.img:2", "d.img:3"] {
                expect_clean_part(&scratch, part);
            }
            let written = image(&scratch, &["cat", "d.img:3:/file"]).expect_success().stdout;
            assert!(written.contains(':'), "not written through the partition: {written}");
        }
        let ours = &told[0];
        let wanted = [
            "  98        2      65536 ubda2\n",
            "on another partition\nResource busy\n",
            " 53 ef\n1\n",
            "ubda3\n16384\n98:3\n",
            "DEVTYPE=partition\nPARTN=3\n",
        ];
        for needle in wanted {
            assert!(ours.contains(needle), "{needle:?} is missing in:\n{ours}");
        }
        for other in &told[1..] {
            assert_eq!(other, ours, "{table}");
        }
    }
    scratch.expect_no_process();
}

#[test]
fn logical_partitions_have_the_numbers_that_linux_gives_them() {
    let scratch = Scratch::new();
    let disk = scratch.path("d.img");
    fs::File::create(&disk).unwrap().set_len(112 << 20).unwrap();
    sfdisk(&disk, "label: dos\n2048,4M,L\n,,E\n,3M,S\n,70M,L\n,5M,L\n");
    run(judge("sfdisk").arg("-V").arg(&disk)).expect_success();
    let told = image(&scratch, &["info", "d.img"]).expect_success().stdout;
    assert!(told.contains("an extended partition") && told.contains("\n7 "), "{told}");
    image(&scratch, &["dd", "if=t.img", "of=d.img:6", "-q"]).expect_success();
    let told = ways().into_iter().map(|way| {
        let mut words = vec!["ubda=d.img", "root=/dev/ubda6", "rw"];
        words.extend(way.iter().map(String::as_str));
        let look = "cat /sys/class/block/ubda?*/start; grep ubd /proc/partitions; grep -o 'root=[^ ]*' /proc/cmdline | tail -n 1";
        boot(&scratch, &words, look).expect_success().stdout
    });
    let told: Vec<_> = told.collect();
    assert!(told[0].contains("ubda7\n") && told[0].contains("98        2          1 ubda2\n"), "{}", told[0]);
    let partitions =
        |text: &str| text.lines().filter(|line| !line.starts_with("root=")).map(str::to_owned).collect::<Vec<_>>();
    assert!(told[0].ends_with("root=/dev/ubda6\n"), "{}", told[0]);
    for other in &told[1..] {
        assert_eq!(partitions(other), partitions(&told[0]));
    }
    expect_clean_part(&scratch, "d.img:6");
}

#[test]
fn an_overlay_takes_what_is_written_to_a_partition() {
    let scratch = Scratch::new();
    image(&scratch, &["disk", "d.img", "root=t.img", "-q"]).expect_success();
    let before = fs::read(scratch.path("d.img")).unwrap();
    for way in ways() {
        let with =
            |words: &[&'static str]| words.iter().copied().chain(way.iter().map(String::as_str)).collect::<Vec<&str>>();
        boot(&scratch, &with(&["d.img:1", "--cow", "o.cow"]), "echo kept >/root/f").expect_success();
        assert_eq!(boot(&scratch, &with(&["o.cow:1"]), "cat /root/f").expect_success().stdout, "kept\n", "{way:?}");
        boot(&scratch, &with(&["d.img:1", "ro"]), "cat /root/f").expect_code(1);
        expect_clean_part(&scratch, "o.cow:1");
        fs::remove_file(scratch.path("o.cow")).unwrap();
    }
    assert!(fs::read(scratch.path("d.img")).unwrap() == before, "the disk was written to");
}

#[test]
fn partitions_that_are_not_there_are_one_error() {
    let scratch = Scratch::new();
    image(&scratch, &["create", "swap.img", "--type", "swap", "--size", "4M", "-q"]).expect_success();
    image(&scratch, &["disk", "d.img", "root=t.img", "swap=swap.img", "-q"]).expect_success();
    let failed = |words: &[&str]| boot(&scratch, words, "true");
    failed(&["d.img"]).expect_code(1).expect_one_error(&["d.img is no ext2", "GUID partition table", "d.img:1"]);
    failed(&["d.img:3"]).expect_code(1).expect_one_error(&["d.img has no partition 3", "it has 1 ("]);
    failed(&["d.img", "root=/dev/ubda3"]).expect_code(1).expect_one_error(&["d.img has no partition 3"]);
    failed(&["d.img:2"]).expect_code(1).expect_one_error(&["d.img:2 is no ext2", "a swap area"]);
    failed(&["d.img:1", "root=/dev/ubda2"])
        .expect_code(2)
        .expect_one_error(&["root=/dev/ubda2: d.img:1 is /dev/ubda1"]);
    failed(&["d.img:one"]).expect_code(2).expect_one_error(&["\"one\" is no partition of d.img"]);
    failed(&["t.img:1"]).expect_code(2).expect_one_error(&["no partition of t.img, which is an ext4 file system"]);
    failed(&["nowhere.img:1"]).expect_code(1).expect_one_error(&["nowhere.img:1", "No such file"]);
    failed(&["d.img:3", "--cow", "new.cow"]).expect_code(1);
    assert!(!scratch.path("new.cow").exists(), "an overlay for a machine that cannot be");
}

/// Partitions a blank disk, makes a file system on a partition and uses it; looks at a disk that is only read.
const USE_DISKS: &str = "dd if=/host/table of=/dev/ubdb 2>/dev/null && blockdev --rereadpt /dev/ubdb || exit 1; \
    grep ubd[b-h] /proc/partitions; ls /dev/ubdb* /sys/block/ubdb | grep ubdb; cat /sys/class/block/ubdb2/start; \
    mke2fs /dev/ubdb2 >/dev/null 2>&1 || exit 2; mkdir -p /mnt; mount /dev/ubdb2 /mnt || exit 3; echo kept >/mnt/file; \
    blockdev --rereadpt /dev/ubdb 2>&1 | sed 's/.*: //'; mount | grep -o 'ubdb2 on /mnt'; umount /mnt; \
    dd if=/dev/zero of=/dev/ubdb bs=512 count=1 conv=notrunc 2>/dev/null; blockdev --rereadpt /dev/ubdb; \
    ls /dev/ubdb* /sys/block/ubdb | grep -c 'ubdb[0-9]'; dd if=/host/table of=/dev/ubdb 2>/dev/null; blockdev --rereadpt /dev/ubdb; \
    mount /dev/ubdb2 /mnt && cat /mnt/file && umount /mnt; head -c 5 /dev/ubdd; echo more 2>/dev/null >/dev/ubdd; echo $?; \
    blockdev --getsize64 /dev/ubdd";

#[test]
fn further_disks_are_partitioned_formatted_and_mounted() {
    let scratch = Scratch::new();
    let disk = scratch.path("data.img");
    let blank = || fs::File::create(&disk).unwrap().set_len(40 << 20).unwrap();
    blank();
    sfdisk(&disk, "label: dos\n2048,8M,L\n,,L\n");
    fs::create_dir(scratch.path("host")).unwrap();
    fs::write(scratch.path("host/table"), &fs::read(&disk).unwrap()[..512]).unwrap();
    fs::write(scratch.path("read.txt"), [&b"read "[..], &[b'x'; 1019]].concat()).unwrap();
    let mut told = Vec::new();
    for way in ways() {
        blank();
        let mut words = vec!["t.img", "--disk", "data.img", "ubddr=read.txt", "--share", "host:/host:ro"];
        words.extend(way.iter().map(String::as_str));
        let done = boot(&scratch, &words, USE_DISKS).expect_success();
        assert_eq!(done.stderr, "", "{way:?}");
        told.push(done.stdout);
        assert_eq!(image(&scratch, &["cat", "data.img:2:/file"]).expect_success().stdout, "kept\n");
        expect_clean_part(&scratch, "data.img:2");
        run(judge("sfdisk").arg("-V").arg(&disk)).expect_success();
    }
    let ours = &told[0];
    let wanted = "ubdb2\n18432\nResource busy\nubdb2 on /mnt\n0\nkept\nread 1\n1024\n";
    assert!(ours.ends_with(wanted), "{ours}");
    assert!(ours.contains("  98       18      31744 ubdb2\n"), "{ours}");
    for other in &told[1..] {
        assert_eq!(other, ours);
    }
    scratch.expect_no_process();
}

#[test]
fn what_a_further_disk_cannot_be_is_one_error() {
    let scratch = Scratch::new();
    fs::write(scratch.path("data.img"), vec![0; 1 << 20]).unwrap();
    image(&scratch, &["cow", "create", "o.cow", "data.img"]).expect_success();
    let before = fs::read(scratch.path("data.img")).unwrap();
    for way in ways() {
        let mut words = vec!["t.img", "--disk", "o.cow"];
        words.extend(way.iter().map(String::as_str));
        boot(&scratch, &words, "echo written >/dev/ubdb && sync").expect_success();
        assert_eq!(
            boot(&scratch, &words, "head -n 1 /dev/ubdb; echo new >/dev/ubdb").expect_success().stdout,
            "written\n"
        );
        boot(&scratch, &words, "echo again >/dev/ubdb; poweroff -f").expect_success();
    }
    assert!(fs::read(scratch.path("data.img")).unwrap() == before, "the image below an overlay was written to");
    let failed = |words: &[&str]| boot(&scratch, words, "true");
    failed(&["t.img", "--disk", "missing"]).expect_code(1).expect_one_error(&["missing", "No such file"]);
    failed(&["t.img", "--disk", "."]).expect_code(1).expect_one_error(&["directory"]);
    failed(&["t.img", "--disk", "t.img"]).expect_code(2).expect_one_error(&["t.img is named twice"]);
    failed(&["t.img", "ubdb=data.img", "ubd1=o.cow"]).expect_code(2).expect_one_error(&["ubdb is given twice"]);
    fs::write(scratch.path("empty"), "").unwrap();
    failed(&["t.img", "--disk", "empty"]).expect_code(1).expect_one_error(&["empty is empty", "truncate -s"]);
}
