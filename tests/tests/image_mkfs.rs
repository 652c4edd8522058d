//! `umlfs image mkfs.*` with mke2fs's options, OCI layers and manifests as inputs; judged by dumpe2fs, e2fsck, debugfs.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

use std::path::Path;

use umlfs_tests::{expect_clean_ext, judge, run, umlfs};

/// Lines of dumpe2fs's header that options decide.
fn header(image: &Path) -> Vec<String> {
    let dump = run(judge("dumpe2fs").arg("-h").arg(image)).expect_success().stdout;
    let keys = [
        "Filesystem volume name",
        "Filesystem UUID",
        "Filesystem features",
        "Inode count",
        "Block count",
        "Reserved block",
        "Block size",
        "Blocks per group",
        "Inodes per group",
        "Inode size",
        "Flex block group size",
        "Directory Hash Seed",
        "RAID",
        "Total journal size",
        "Journal size",
    ];
    dump.lines().filter(|line| keys.iter().any(|key| line.starts_with(key))).map(str::to_owned).collect()
}

#[test]
fn options_mean_what_they_mean_for_mke2fs() {
    let directory = tempfile::tempdir().unwrap();
    let (ours, theirs) = (directory.path().join("ours"), directory.path().join("theirs"));
    let id = "12345678-9abc-4def-8123-456789abcdef";
    for (kind, options, size) in [
        ("ext4", "", "64M"),
        ("ext4", "-b 4096 -I 512 -N 5000 -L hello -m 1.5", "70000"),
        (
            "ext4",
            "-O ^64bit,metadata_csum_seed -G 4 -J size=8 -E stride=4,stripe_width=16,lazy_itable_init=0,hash_seed=abcdefab-9abc-4def-8123-456789abcdef",
            "600M",
        ),
        ("ext3", "-i 8192 -m 0 -g 4096", "48m"),
        ("ext2", "-b 2048 -I 128 -O none,filetype,sparse_super", "20000"),
        ("ext4", "-t ext2 -j -T news", "40M"),
    ] {
        let words: Vec<&str> = options.split_whitespace().collect();
        let fixed = ["-U", id];
        let _ = std::fs::remove_file(&theirs);
        run(judge(&format!("mkfs.{kind}")).args(["-q", "-F"]).args(fixed).args(&words).arg(&theirs).arg(size))
            .expect_success();
        let command = format!("mkfs.{kind}");
        run(umlfs().args(["image", &command, "-q", "-F"]).args(fixed).args(&words).arg(&ours).arg(size))
            .expect_success();
        expect_clean_ext(&ours);
        let lines = |image: &Path| {
            let mut lines = header(image);
            // Each makes up its own unless one is given.
            lines.retain(|line| options.contains("hash_seed") || !line.starts_with("Directory Hash Seed"));
            lines
        };
        assert_eq!(lines(&ours), lines(&theirs), "{kind} {options} {size}: ours left, mke2fs's right");
    }
    run(umlfs().args(["image", "mkfs.ext4", "-E", "nonsense=1"]).arg(&ours)).expect_code(2);
    run(umlfs().args(["image", "mkfs.ext4"]).arg(directory.path().join("none"))).expect_code(2);
}

#[test]
fn layers_of_oci_images_have_whiteouts() {
    let directory = tempfile::tempdir().unwrap();
    let path = |name: &str| directory.path().join(name);
    let script = "mkdir -p l1/a/b l1/c l2/a l2/c && echo 1 >l1/a/one && echo 2 >l1/a/b/two && echo 3 >l1/c/three && \
         echo 4 >l1/turns && touch l2/a/.wh.b l2/c/.wh..wh..opq && echo 5 >l2/c/five && mkdir l2/turns && \
         tar -C l1 -cf l1.tar . && tar -C l2 -czf l2.tar.gz .";
    run(judge("sh").args(["-c", script]).current_dir(directory.path())).expect_success();
    let image = path("x.img");
    run(umlfs()
        .args(["image", "create", "-q", "--from", "oci:l1.tar", "--from", "oci:l2.tar.gz"])
        .arg(&image)
        .current_dir(directory.path()))
    .expect_success();
    expect_clean_ext(&image);
    let mut found = run(umlfs().args(["image", "find"]).arg(format!("{}:/", image.display()))).expect_success().stdout;
    found.retain(|c| c != '\r');
    let names: Vec<&str> = found.lines().filter_map(|line| line.rsplit('/').next()).collect();
    for there in ["one", "five", "turns"] {
        assert!(names.contains(&there), "{there}: {found}");
    }
    for gone in ["two", "b", "three", ".wh.b", ".wh..wh..opq"] {
        assert!(!names.contains(&gone), "{gone}: {found}");
    }
}

#[test]
fn a_manifest_makes_what_it_says() {
    let directory = tempfile::tempdir().unwrap();
    let path = |name: &str| directory.path().join(name);
    std::fs::write(path("motd"), "hello\n").unwrap();
    let manifest = "#mtree\n/set uid=3 gid=4 mode=0640\n./etc type=dir mode=0755 uid=0 gid=0\n\
         ./etc/motd type=file contents=motd time=1700000000.5\n./etc/link type=link link=motd\n\
         ./dev type=dir mode=0755\n./dev/null type=char device=linux,1,3 mode=0666 uid=0 gid=0\n";
    std::fs::write(path("m"), manifest).unwrap();
    let image = path("x.img");
    run(umlfs().args(["image", "create", "-q", "--from", "manifest:m"]).arg(&image).current_dir(directory.path()))
        .expect_success();
    expect_clean_ext(&image);
    let cat = run(judge("debugfs").args(["-R", "cat /etc/motd"]).arg(&image)).expect_success();
    assert!(cat.stdout.starts_with("hello"), "{}", cat.stdout);
    let stat = run(judge("debugfs").args(["-R", "stat /etc/motd"]).arg(&image)).expect_success().stdout;
    assert!(stat.contains("Mode:  0640") && stat.contains("User:     3   Group:     4"), "{stat}");
    let stat = run(judge("debugfs").args(["-R", "stat /dev/null"]).arg(&image)).expect_success().stdout;
    assert!(stat.contains("character special") && stat.contains("01:03"), "{stat}");
    std::fs::write(path("m"), "./x type=file contents=missing\n").unwrap();
    run(umlfs().args(["image", "create", "--from", "manifest:m"]).arg(path("y.img")).current_dir(directory.path()))
        .expect_one_error(&["m: line 1", "missing"]);
}

/// The same bytes for the same input, where a time is given; debugfs sees that time.
#[test]
fn a_given_time_makes_the_same_bytes() {
    let directory = tempfile::tempdir().unwrap();
    let make = |name: &str, arguments: &[&str], environment: Option<&str>| {
        let path = directory.path().join(name);
        let mut command = umlfs();
        command.args(["image", "mkfs.ext4", "-q", "-d", "/etc/alternatives"]).args(arguments).arg(&path).arg("16M");
        if let Some(value) = environment {
            command.env("SOURCE_DATE_EPOCH", value);
        }
        let done = run(&mut command);
        (done, path)
    };
    let bytes = |(done, path): (umlfs_tests::Run, std::path::PathBuf)| {
        done.expect_success();
        std::fs::read(path).unwrap()
    };
    let first = bytes(make("a", &["--source-date-epoch", "1500000000"], None));
    assert!(bytes(make("b", &[], Some("1500000000"))) == first, "option and variable differ");
    assert!(bytes(make("c", &["--source-date-epoch", "1500000000"], Some("1"))) == first, "the option comes first");
    assert!(bytes(make("d", &[], None)) != first);
    let said = run(judge("dumpe2fs").arg("-h").arg(directory.path().join("a"))).expect_success().stdout;
    let created = said.lines().find(|line| line.starts_with("Filesystem created:")).unwrap();
    assert!(created.ends_with("Fri Jul 14 02:40:00 2017"), "{created}");
    assert!(make("e", &[], Some("yesterday")).0.expect_code(2).stderr.contains("yesterday"));
}
