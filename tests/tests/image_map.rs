//! `umlfs image info --map`, judged by dumpe2fs.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

use std::fs;
use std::path::Path;

use umlfs_tests::{judge, run, umlfs};

/// Blocks behind `name` in the legend, from its size in the SVG.
fn cells(text: &str, sign: char) -> usize {
    text.lines().skip(1).take_while(|line| !line.starts_with('S')).map(|line| line.matches(sign).count()).sum()
}

fn make(image: &Path, size: &str, options: &[&str]) {
    run(judge("mke2fs").args(["-q", "-F", "-t", "ext4"]).args(options).arg(image).arg(size)).expect_success();
}

#[test]
fn each_block_is_drawn_where_dumpe2fs_has_it() {
    let directory = tempfile::tempdir().unwrap();
    let image = directory.path().join("x.img");
    // One group of 512 blocks: a cell for each block.
    make(&image, "512k", &["-b", "1024", "-N", "64", "-O", "^has_journal,^resize_inode"]);
    run(judge("debugfs").args(["-w", "-R", "write /etc/passwd f"]).arg(&image)).expect_success();
    let map = run(umlfs().args(["image", "info", "--map"]).arg(&image)).expect_success().stdout;
    assert!(map.starts_with("1 block group; 8 rows are a block group, a cell 1 block (1 KiB)\n"), "{map}");
    assert!(!map.contains('\x1b'), "colours on a pipe: {map}");
    let said = run(judge("dumpe2fs").arg(&image)).expect_success().stdout;
    let number = |name: &str| -> usize {
        let line = said.lines().find(|line| line.starts_with(name)).unwrap_or_else(|| panic!("no {name} in {said}"));
        line.rsplit(' ').next().unwrap().parse().unwrap()
    };
    assert_eq!(cells(&map, '·'), number("Free blocks:"), "{map}");
    assert_eq!(cells(&map, 'B'), 2, "{map}");
    assert_eq!(cells(&map, 'I'), number("Inode blocks per group:"), "{map}");
    // The primary superblock and its descriptors.
    assert_eq!(cells(&map, 'S'), 2, "{map}");
    assert_eq!(cells(&map, '█'), fs::read("/etc/passwd").unwrap().len().div_ceil(1024), "{map}");

    // Free ranges, block by block.
    let rows: Vec<char> = map.lines().skip(1).take(8).flat_map(|line| line.chars().skip(7)).collect();
    let free = said.split("Free blocks: ").nth(2).unwrap().lines().next().unwrap();
    let mut wanted: Vec<usize> = Vec::new();
    for range in free.split(", ") {
        let (first, last) = range.split_once('-').unwrap_or((range, range));
        wanted.extend(first.parse::<usize>().unwrap()..=last.parse().unwrap());
    }
    // Blocks of 1 KiB count from 1.
    let found: Vec<usize> = (1..).zip(&rows).filter(|(_, sign)| **sign == '·').map(|(block, _)| block).collect();
    assert_eq!(found, wanted, "{map}{said}");
}

/// Space in clusters, and files that count what users have: as e2fsprogs has them.
#[test]
fn clusters_and_quotas() {
    let directory = tempfile::tempdir().unwrap();
    let image = directory.path().join("x.img");
    let number = |said: &str, name: &str| -> u64 {
        let line = said.lines().find(|line| line.starts_with(name)).unwrap_or_else(|| panic!("no {name} in {said}"));
        line.rsplit(' ').next().unwrap().parse().unwrap()
    };
    for size in ["256M", "513M"] {
        let _ = fs::remove_file(&image);
        make(&image, size, &["-O", "bigalloc", "-C", "32768", "-d", "/etc/ssl"]);
        let said = run(judge("dumpe2fs").args(["-h"]).arg(&image)).expect_success().stdout;
        let info = run(umlfs().args(["image", "info", "--map"]).arg(&image)).expect_success().stdout;
        assert!(info.contains(" free "), "{info}");
        let json = run(umlfs().args(["image", "info", "--json"]).arg(&image)).expect_success().stdout;
        let json: serde_json::Value = serde_json::from_str(&json).unwrap();
        assert_eq!(json["cluster_size"], 32768);
        assert_eq!(json["blocks_free"], number(&said, "Free blocks:"));
        let picture = directory.path().join("x.svg");
        run(umlfs().args(["image", "info"]).arg(format!("--map={}", picture.display())).arg(&image)).expect_success();
        let config = run(umlfs().args(["image", "cat", &format!("{}:/openssl.cnf", image.display())])).expect_success();
        assert_eq!(config.stdout, fs::read_to_string("/etc/ssl/openssl.cnf").unwrap());
        // "free: 235.1 MiB, 91.8 %"
        let share = number(&said, "Free blocks:") as f64 * 100.0 / number(&said, "Block count:") as f64;
        let line = info.lines().find(|line| line.contains(" free ")).unwrap();
        let shown: f64 = line.rsplit(", ").next().unwrap().trim_end_matches(" %").parse().unwrap();
        assert!((share - shown).abs() < 0.11, "{shown} % are drawn free, {share} % are: {info}");
    }

    make(&image, "512k", &["-b", "1024", "-N", "64", "-O", "^has_journal,^resize_inode,quota,project"]);
    let info = run(umlfs().args(["image", "info"]).arg(&image)).expect_success().stdout;
    assert!(info.contains("user, group, project"), "{info}");
    let map = run(umlfs().args(["image", "info", "--map"]).arg(&image)).expect_success().stdout;
    let blocks = |ino: u32| -> u64 {
        let said = run(judge("debugfs").args(["-R", &format!("stat <{ino}>")]).arg(&image)).expect_success().stdout;
        said.split("Blockcount: ").nth(1).unwrap().split_whitespace().next().unwrap().parse::<u64>().unwrap() / 2
    };
    let said = run(judge("dumpe2fs").args(["-h"]).arg(&image)).expect_success().stdout;
    let wanted = 3.max(blocks(3) + blocks(4) + blocks(number(&said, "Project quota inode:") as u32));
    assert_eq!(cells(&map, 'Q') as u64, wanted, "{map}");
}

#[test]
fn many_groups_partitions_and_pictures() {
    let directory = tempfile::tempdir().unwrap();
    let image = directory.path().join("x.img");
    make(&image, "1G", &["-b", "1024"]);
    let map = run(umlfs().args(["image", "info", "--map"]).arg(&image)).expect_success().stdout;
    assert!(map.starts_with("128 block groups; a row is 2 block groups, "), "{map}");
    for words in ["journal", "inode tables", "bitmaps", "superblocks and group descriptors", "directories", "free"] {
        assert!(map.contains(words), "{words} is missing in\n{map}");
    }
    let picture = directory.path().join("x.svg");
    run(umlfs().args(["image", "info"]).arg(format!("--map={}", picture.display())).arg(&image)).expect_success();
    let svg = fs::read_to_string(&picture).unwrap();
    assert!(svg.starts_with("<svg ") && svg.trim_end().ends_with("</svg>"), "{svg}");
    // Well-formed for a parser that is not ours.
    let parse = "import sys, xml.dom.minidom as m; print(len(m.parse(sys.argv[1]).getElementsByTagName('rect')))";
    let count = run(judge("python3").args(["-c", parse]).arg(&picture)).expect_success().stdout;
    assert!((100..30_000).contains(&count.trim().parse::<u32>().unwrap()), "{count}");

    let disk = directory.path().join("disk.img");
    run(umlfs().args(["image", "disk"]).arg(&disk).arg(format!("root={}", image.display()))).expect_success();
    run(umlfs().args(["image", "info", "--map"]).arg(&disk)).expect_one_error(&["a whole disk", ":1"]);
    let part = run(umlfs().args(["image", "info", "--map"]).arg(format!("{}:1", disk.display()))).expect_success();
    assert_eq!(part.stdout, map);
    run(umlfs().args(["image", "info", "--map", "/etc/passwd"])).expect_one_error(&["no ext2, ext3 or ext4 image"]);
}
