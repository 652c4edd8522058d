//! The checker, and the repairs: images damaged by debugfs and by changed bytes, with e2fsck as the judge.
#![allow(clippy::unwrap_used)]

mod common;

use common::*;
use ext4::{Fs, MountOptions, Report};
use std::fs;
use std::path::Path;
use std::process::Command;

/// Whether `e2fsck -fn` finds something, and its output. Its exit status is 0 for wrong counts in the superblock.
fn judge(image: &Path) -> (bool, String) {
    let out = Command::new("e2fsck")
        .args(["-fn", image.to_str().unwrap()])
        .env("LC_ALL", "C")
        .env("PATH", "/usr/sbin:/sbin:/usr/bin:/bin")
        .output()
        .unwrap();
    let text = format!("{}{}", String::from_utf8_lossy(&out.stdout), String::from_utf8_lossy(&out.stderr));
    let bad = text.lines().any(|line| {
        !(line.is_empty()
            || line.starts_with("e2fsck ")
            || line.starts_with("Pass ")
            || (line.contains(" files (") && line.contains(" blocks")))
    });
    (bad || !out.status.success(), text)
}

/// Our findings; a file system that cannot be mounted counts as one.
fn check(image: &Path) -> Result<Report, String> {
    let options = MountOptions { read_only: true, for_check: true, ..MountOptions::default() };
    let mut fs = Fs::mount(FileDisk::open(image), options).map_err(|e| e.to_string())?;
    fs.check().map_err(|e| e.to_string())
}

fn make_tree(tree: &Path) {
    fs::create_dir_all(tree.join("a/b/c")).unwrap();
    fs::create_dir(tree.join("many")).unwrap();
    for (name, len) in [("empty", 0), ("tiny", 40), ("block", 1024), ("large", 900_000)] {
        fs::write(tree.join(name), common::model::bytes(len as u32, len)).unwrap();
    }
    fs::hard_link(tree.join("tiny"), tree.join("a/tiny2")).unwrap();
    std::os::unix::fs::symlink("../tiny", tree.join("a/short")).unwrap();
    std::os::unix::fs::symlink("y".repeat(100), tree.join("a/long")).unwrap();
    for i in 0..400 {
        fs::write(tree.join(format!("many/a-file-with-a-name-{i}")), format!("{i}")).unwrap();
    }
    let sparse = fs::File::create(tree.join("a/sparse")).unwrap();
    for i in 0..40u64 {
        std::os::unix::fs::FileExt::write_all_at(&sparse, &[i as u8 + 1; 2000], i * 9000).unwrap();
    }
}

/// An image with indexed directories, deep trees and attributes.
fn make_image(image: &Path, args: &[&str]) {
    let s = Scratch::new();
    let tree = s.path("tree");
    make_tree(&tree);
    let mut all = args.to_vec();
    all.extend(["-d", tree.to_str().unwrap()]);
    let _ = fs::remove_file(image);
    mke2fs(image, &all, "24M");
    run("sh", &["-c", &format!("e2fsck -fyD {} || [ $? = 1 ]", image.display())]);
    let mut fs = mount(image);
    let tiny = resolve(&mut fs, "tiny");
    for (name, len) in [("user.small", 20), ("user.large", 700)] {
        fs.xattr_set(tiny, name.as_bytes(), &vec![7; len], ext4::XattrMode::Any, NOW).unwrap();
    }
    fs.unmount().unwrap();
    fsck(image);
}

const SHAPES: &[&[&str]] = &[
    &["-t", "ext4", "-b", "1024"],
    &["-t", "ext4", "-b", "1024", "-O", "^metadata_csum,uninit_bg"],
    &["-t", "ext2", "-b", "1024"],
];

/// Repairs the image; what is left must be nothing, for e2fsck too.
fn repair(image: &Path, what: &str) {
    let options = MountOptions { for_check: true, now: Some(NOW), ..MountOptions::default() };
    let mut fs = Fs::mount(FileDisk::open(image), options).unwrap_or_else(|e| panic!("{what}: {e}"));
    let (_, left) = fs.repair().unwrap_or_else(|e| panic!("{what}: {e}"));
    fs.unmount().unwrap();
    assert!(left.is_clean(), "{what}: after the repair: {:#?}", left.findings);
    let (faulty, text) = judge(image);
    assert!(!faulty, "{what}: after the repair, e2fsck says:\n{text}");
}

/// Damage by debugfs, words of our finding, and whether the repair is ours to make.
const DAMAGE: &[(&str, &str, bool)] = &[
    ("sif tiny links_count 9", "the link count is 9, expected 2", true),
    ("sif a links_count 7", "the link count is 7", true),
    ("sif large blocks 3", "the block count is 3", true),
    ("sif large mtime 5", "", true),
    ("clri a/tiny2", "", true),
    ("clri many/a-file-with-a-name-7", "which is free", true),
    ("unlink many/a-file-with-a-name-9", "no directory names the inode", true),
    ("unlink a/b", "no directory names this directory", true),
    ("freeb 3000 5", "", true),
    ("setb 20000 7", "as used, but nothing uses it", true),
    ("freei large", "as free, but something uses it", true),
    ("seti <40>", "", true),
    ("ssv free_blocks_count 77", "77 free blocks are counted", true),
    ("ssv free_inodes_count 78", "78 free inodes are counted", true),
    ("set_bg 0 free_blocks_count 99", "counts 99 free blocks", true),
    ("set_bg 0 free_inodes_count 98", "counts 98 free inodes", true),
    ("set_bg 0 used_dirs_count 97", "counts 97 directories", true),
    ("sif tiny dtime 1700000000", "in use, but has a deletion time", true),
    ("sif tiny mode 0", "names no file type", false),
    ("sif large size 1000", "but block", false),
    ("sif many size 1024", "the directory's size is 1024", false),
    ("sif a/short size 20", "does not have the inode's length", false),
    ("ssv last_orphan 5", "the orphan list leads to inode 5", false),
    ("link large many/second", "the link count is 1, expected 2", true),
];

#[test]
fn damage_by_debugfs() {
    let s = Scratch::new();
    let (good, image) = (s.path("good"), s.image());
    for shape in SHAPES {
        make_image(&good, shape);
        let report = check(&good).unwrap();
        assert!(report.is_clean(), "{:#?}", report.findings);
        for (command, words, ours) in DAMAGE {
            fs::copy(&good, &image).unwrap();
            run("debugfs", &["-w", "-R", command, image.to_str().unwrap()]);
            let what = format!("{shape:?} {command}");
            let (faulty, text) = judge(&image);
            let found = check(&image);
            let shown = match &found {
                Ok(report) => report.findings.iter().map(|f| format!("{f}\n")).collect(),
                Err(e) => e.clone(),
            };
            let bad = found.as_ref().map_or(true, |report| !report.is_clean());
            // e2fsck -n leaves the orphan list alone.
            let faulty = faulty || command.contains("last_orphan");
            assert_eq!(faulty, bad, "{what}: e2fsck says\n{text}\nwe say\n{shown}");
            if bad {
                assert!(shown.contains(words), "{what}: expected \"{words}\" in\n{shown}e2fsck says\n{text}");
            }
            if *ours && bad {
                repair(&image, &what);
            }
        }
    }
}

/// A leaf without names and checksums looks much like a node of the index.
#[test]
fn emptied_leaves_are_no_nodes() {
    for features in ["^metadata_csum", "metadata_csum"] {
        let s = Scratch::new();
        mke2fs(&s.image(), &["-t", "ext4", "-b", "1024", "-O", features], "8M");
        let mut fs = mount(&s.image());
        for i in 0..300 {
            fs.create(2, format!("a-file-with-a-name-{i}").as_bytes(), &new(ext4::FileType::Regular)).unwrap();
        }
        for i in 0..299 {
            let gone = fs.unlink(2, format!("a-file-with-a-name-{i}").as_bytes(), NOW).unwrap();
            fs.release(gone.ino).unwrap();
        }
        fs.unmount().unwrap();
        fsck(&s.image());
        assert!(check(&s.image()).unwrap().is_clean(), "{features}");
        let mut fs = mount(&s.image());
        for i in 0..600 {
            fs.create(2, format!("another-file-with-a-name-{i}").as_bytes(), &new(ext4::FileType::Regular)).unwrap();
        }
        fs.unmount().unwrap();
        fsck(&s.image());
        assert!(check(&s.image()).unwrap().is_clean(), "{features}");
    }
}

/// Blocks of metadata worth damaging: inode tables, bitmaps, directories, extent and attribute blocks.
fn metadata_blocks(image: &Path) -> Vec<u64> {
    let mut blocks = vec![1, 2];
    let dump = run("dumpe2fs", &[image.to_str().unwrap()]);
    for line in dump.lines() {
        for key in ["Block bitmap at ", "Inode bitmap at ", "Inode table at "] {
            let Some((_, rest)) = line.split_once(key) else { continue };
            let number: String = rest.chars().take_while(char::is_ascii_digit).collect();
            let first: u64 = number.parse().unwrap();
            let many = if key.starts_with("Inode t") { 40 } else { 1 };
            blocks.extend(first..first + many);
        }
    }
    for path in ["/", "a", "a/b", "many", "many", "many", "large", "a/sparse", "a/sparse"] {
        let listed = debugfs(image, &format!("blocks {path}"));
        let all: Vec<u64> = listed.split_whitespace().filter_map(|w| w.parse().ok()).collect();
        let is_file = path.contains("sparse") || path == "large";
        blocks.extend(all.iter().take(if is_file { 2 } else { 20 }));
    }
    let stat = debugfs(image, "stat tiny");
    let acl = stat.split_once("File ACL: ").unwrap().1;
    blocks.push(acl.chars().take_while(char::is_ascii_digit).collect::<String>().parse().unwrap());
    blocks
}

/// Bytes changed at random in metadata: we find something where e2fsck does and nothing where it does not, and what we
/// repair is clean for it.
#[test]
fn damage_by_changed_bytes() {
    let s = Scratch::new();
    let (good, image) = (s.path("good"), s.image());
    let long = std::env::var_os("UMLFS_LONG_TESTS").is_some_and(|v| v == "1");
    let rounds = if long { 4000 } else { 120 };
    let (mut agreed, mut repaired, mut differ) = (0, 0, Vec::new());
    for shape in SHAPES {
        make_image(&good, shape);
        let blocks = metadata_blocks(&good);
        let whole = fs::read(&good).unwrap();
        let mut x = 88_172_645_463_325_252u64;
        for round in 0..rounds {
            let mut next = || {
                x ^= x << 13;
                x ^= x >> 7;
                x ^= x << 17;
                x.wrapping_mul(0x2545_F491_4F6C_DD1D) >> 32
            };
            let block = blocks[next() as usize % blocks.len()];
            let at = block as usize * 1024 + next() as usize % 1024;
            let old = whole[at];
            let new = match next() % 3 {
                0 => old ^ 1 << (next() % 8),
                1 => next() as u8,
                _ => 0,
            };
            if new == old {
                continue;
            }
            let mut bytes = whole.clone();
            bytes[at] = new;
            fs::write(&image, &bytes).unwrap();
            let what =
                format!("{shape:?} round {round}: byte {} of block {block}: {old:#x} became {new:#x}", at % 1024);
            let (faulty, text) = judge(&image);
            let found = check(&image);
            let bad = found.as_ref().map_or(true, |report| !report.is_clean());
            if bad == faulty {
                agreed += 1;
            } else {
                differ.push(format!("{what}\ne2fsck {faulty}:\n{text}we: {found:#?}\n"));
            }
            if let Ok(report) = &found
                && bad
                && faulty
                && report.findings.iter().all(ext4::Finding::repairable)
            {
                let options = MountOptions { for_check: true, now: Some(NOW), ..MountOptions::default() };
                let Ok(mut fs) = Fs::mount(FileDisk::open(&image), options) else { continue };
                let (_, left) = fs.repair().unwrap_or_else(|e| panic!("{what}: {e}"));
                fs.unmount().unwrap();
                if left.is_clean() {
                    repaired += 1;
                    let (faulty, text) = judge(&image);
                    assert!(!faulty, "{what}: {report:#?}\nafter the repair, e2fsck says:\n{text}");
                }
            }
        }
    }
    println!("{agreed} agreed, {} differ, {repaired} repaired", differ.len());
    assert!(
        differ.len() * 50 < agreed,
        "{} of {agreed} differ:\n{}",
        differ.len(),
        differ[..differ.len().min(20)].join("\n")
    );
}
