//! `umlfs image check` and `umlfs image fsck`, judged by e2fsck.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

use std::fs;
use std::path::Path;

use umlfs_tests::{expect_clean_ext, judge, run, umlfs};

fn make(image: &Path) {
    run(judge("mke2fs").args(["-q", "-F", "-t", "ext4", "-d", "/etc/alternatives"]).arg(image).arg("16M"))
        .expect_success();
    for command in ["mkdir a", "mkdir a/b", "write /etc/passwd a/file"] {
        run(judge("debugfs").args(["-w", "-R", command]).arg(image)).expect_success();
    }
}

#[test]
fn a_sound_image() {
    let directory = tempfile::tempdir().unwrap();
    let image = directory.path().join("x.img");
    make(&image);
    let before = fs::read(&image).unwrap();
    let checked = run(umlfs().args(["image", "check"]).arg(&image)).expect_success();
    assert!(checked.stdout.contains("x.img: sound: "), "{}", checked.stdout);
    let checked = run(umlfs().args(["image", "check", "--json"]).arg(&image)).expect_success();
    let value: serde_json::Value = serde_json::from_str(&checked.stdout).unwrap();
    assert_eq!((&value["count"], &value["findings"]), (&0.into(), &serde_json::json!([])));
    assert!(fs::read(&image).unwrap() == before, "a check changed the image");
}

#[test]
fn damage_is_found_and_repaired() {
    let directory = tempfile::tempdir().unwrap();
    let image = directory.path().join("x.img");
    make(&image);
    for command in ["unlink a/file", "unlink a/b", "sif a links_count 9", "setb 15000 20"] {
        run(judge("debugfs").args(["-w", "-R", command]).arg(&image)).expect_success();
    }
    let checked = run(umlfs().args(["image", "check"]).arg(&image)).expect_code(1);
    for words in ["no directory names", "the link count is 9", "15000-15019", "`umlfs image fsck` can repair all of it"]
    {
        assert!(checked.stdout.contains(words), "{words} is missing in\n{}", checked.stdout);
    }
    let mended = run(umlfs().args(["image", "fsck"]).arg(&image)).expect_success();
    assert!(mended.stdout.contains("repaired: ") && mended.stdout.contains("sound: "), "{}", mended.stdout);
    expect_clean_ext(&image);
    let found = run(umlfs().args(["image", "find"]).arg(format!("{}:/lost+found", image.display()))).expect_success();
    assert_eq!(found.stdout.lines().filter(|line| line.contains('#')).count(), 2, "{}", found.stdout);
}

#[test]
fn what_needs_a_guess_is_left() {
    let directory = tempfile::tempdir().unwrap();
    let image = directory.path().join("x.img");
    make(&image);
    run(judge("debugfs").args(["-w", "-R", "sif a/file mode 0"]).arg(&image)).expect_success();
    let mended = run(umlfs().args(["image", "fsck"]).arg(&image)).expect_code(1);
    assert!(mended.stdout.contains("left: inode ") && mended.stdout.contains("needs e2fsck"), "{}", mended.stdout);

    // A damaged superblock is a finding, too; another file is not an image that could be checked.
    let mut bytes = fs::read(&image).unwrap();
    bytes[1024 + 40] ^= 1;
    fs::write(&image, bytes).unwrap();
    let checked = run(umlfs().args(["image", "check"]).arg(&image)).expect_code(1);
    assert!(checked.stdout.starts_with("superblock: "), "{}", checked.stdout);
    run(umlfs().args(["image", "check", "/etc/passwd"])).expect_code(8);
}
