//! Edits of overlays, and of partitions of disks below overlays: the image below stays as it is.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

use std::fs;
use std::path::Path;

use umlfs_tests::{Run, expect_clean_ext, judge, run, umlfs};

fn image(directory: &Path, arguments: &[&str]) -> Run {
    run(umlfs().arg("image").args(arguments).current_dir(directory))
}

#[test]
fn an_overlay_takes_the_changes() {
    let directory = tempfile::tempdir().unwrap();
    let here = directory.path();
    let path = |name: &str| here.join(name);
    run(judge("mke2fs").args(["-q", "-F", "-t", "ext4", "-d", "/etc/alternatives"]).arg(path("base.img")).arg("24M"))
        .expect_success();
    fs::create_dir_all(path("tree/deep/er")).unwrap();
    fs::write(path("tree/deep/er/data"), (0..2_000_000u32).map(|n| (n % 251) as u8).collect::<Vec<u8>>()).unwrap();
    let base = fs::read(path("base.img")).unwrap();
    let modified = fs::metadata(path("base.img")).unwrap().modified().unwrap();

    image(here, &["cow", "create", "x.cow", "base.img"]).expect_success();
    image(here, &["cp", "-r", "tree/.", "x.cow:/"]).expect_success();
    image(here, &["mkdir", "-p", "x.cow:/a/b"]).expect_success();
    image(here, &["mv", "x.cow:/deep", "/a/b"]).expect_success();
    image(here, &["ln", "-s", "/a/b", "x.cow:/link"]).expect_success();
    image(here, &["chmod", "600", "x.cow:/a/b/deep/er/data"]).expect_success();
    image(here, &["chown", "12:34", "x.cow:/a/b/deep/er/data"]).expect_success();
    image(here, &["label", "x.cow", "layered"]).expect_success();
    image(here, &["check", "x.cow"]).expect_success();
    image(here, &["fsck", "x.cow"]).expect_success();
    assert!(fs::read(path("base.img")).unwrap() == base, "the image below was written to");
    assert_eq!(fs::metadata(path("base.img")).unwrap().modified().unwrap(), modified);
    let map = image(here, &["info", "--map", "x.cow"]).expect_success();
    assert!(map.stdout.contains("inode tables"), "{}", map.stdout);
    assert_eq!(image(here, &["label", "base.img"]).expect_success().stdout, "\n");

    // A second layer, and the first is in use by nobody.
    image(here, &["cow", "create", "y.cow", "x.cow"]).expect_success();
    let first = fs::read(path("x.cow")).unwrap();
    image(here, &["rm", "-r", "y.cow:/a"]).expect_success();
    image(here, &["cp", "/etc/passwd", "y.cow:/top"]).expect_success();
    image(here, &["ls", "y.cow:/a"]).expect_one_error(&["/a"]);
    assert_eq!(image(here, &["ls", "x.cow:/a"]).expect_success().stdout, "b\n");
    assert!(fs::read(path("x.cow")).unwrap() == first, "the overlay below was written to");
    image(here, &["cow", "commit", "y.cow"]).expect_success();
    image(here, &["cow", "commit", "x.cow"]).expect_success();
    expect_clean_ext(&path("base.img"));
    assert_eq!(image(here, &["label", "base.img"]).expect_success().stdout, "layered\n");
    let read = image(here, &["cat", "base.img:/top"]).expect_success();
    assert_eq!(read.stdout, fs::read_to_string("/etc/passwd").unwrap());
    // What was changed below is refused above.
    fs::write(path("base.img"), base).unwrap();
    image(here, &["rm", "x.cow:/top"]).expect_one_error(&["is not the file that this overlay was made for"]);
    image(here, &["cow", "commit", "x.cow"]).expect_one_error(&["is not the file that this overlay was made for"]);
}

#[test]
fn partitions_below_an_overlay() {
    let directory = tempfile::tempdir().unwrap();
    let here = directory.path();
    let path = |name: &str| here.join(name);
    fs::File::create(path("fat.img")).unwrap().set_len(8 << 20).unwrap();
    run(judge("mkfs.fat").arg(path("fat.img"))).expect_success();
    run(judge("mke2fs").args(["-q", "-F", "-t", "ext4"]).arg(path("ext.img")).arg("16M")).expect_success();
    image(here, &["disk", "disk.img", "esp=fat.img", "root=ext.img"]).expect_success();
    let disk = fs::read(path("disk.img")).unwrap();
    fs::write(path("file"), "kernel\n").unwrap();

    image(here, &["cow", "create", "x.cow", "disk.img"]).expect_success();
    let table = image(here, &["info", "x.cow"]).expect_success().stdout;
    assert!(table.contains("esp") && table.contains("ext4"), "{table}");
    image(here, &["mkdir", "x.cow:1:/EFI", "x.cow:2:/boot"]).expect_success();
    image(here, &["cp", "file", "x.cow:1:/EFI/a long name"]).expect_success();
    image(here, &["cp", "file", "x.cow:2:/boot/kernel"]).expect_success();
    assert_eq!(image(here, &["cat", "x.cow:1:/efi/A LONG NAME"]).expect_success().stdout, "kernel\n");
    assert_eq!(image(here, &["cat", "x.cow:2:/boot/kernel"]).expect_success().stdout, "kernel\n");
    image(here, &["check", "x.cow:2"]).expect_success();
    image(here, &["info", "x.cow:1"]).expect_success();
    assert!(fs::read(path("disk.img")).unwrap() == disk, "the disk below was written to");

    // Out of the overlay by dd, for the judges; and in again.
    for (number, name) in [(1, "fat.out"), (2, "ext.out")] {
        image(here, &["dd", &format!("if=x.cow:{number}"), &format!("of={name}")]).expect_success();
    }
    run(judge("fsck.fat").arg("-n").arg(path("fat.out"))).expect_success();
    expect_clean_ext(&path("ext.out"));
    image(here, &["rm", "-r", "ext.out:/boot"]).expect_success();
    image(here, &["dd", "if=ext.out", "of=x.cow:2"]).expect_success();
    image(here, &["ls", "x.cow:2:/boot"]).expect_one_error(&["/boot"]);
    assert!(fs::read(path("disk.img")).unwrap() == disk, "the disk below was written to");

    // And on the disk itself.
    image(here, &["cp", "file", "disk.img:1:/KERNEL"]).expect_success();
    image(here, &["dd", "if=disk.img:1", "of=fat2.out"]).expect_success();
    run(judge("fsck.fat").arg("-n").arg(path("fat2.out"))).expect_success();
    run(judge("sfdisk").arg("-V").arg(path("disk.img"))).expect_success();
    image(here, &["cp", "file", "disk.img:3:/x"]).expect_one_error(&["no partition 3"]);
}
