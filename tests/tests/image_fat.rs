//! `umlfs image ls|cat|cp|rm|mkdir|mv|stat|find|info|label|export` on FAT images, judged by fsck.fat, tar and the `fatfs`
//! crate, whose reader is not ours.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

use std::collections::BTreeMap;
use std::fs;
use std::io::Read as _;
use std::path::{Path, PathBuf};

use umlfs_tests::{Run, judge, run, umlfs};

fn image(arguments: &[&str]) -> Run {
    run(umlfs().arg("image").args(arguments))
}

fn at(image: &Path, path: &str) -> String {
    format!("{}:{path}", image.display())
}

#[track_caller]
fn fsck(path: &Path) {
    let said = run(judge("fsck.fat").args(["-n", "-v"]).arg(path)).expect_success();
    for word in ["differ", "Dirty", "rong", "orphan", "Truncat", "eclaim", "Unused", "bad"] {
        let line = said.stdout.lines().find(|line| line.contains(word) && !line.contains("no bad"));
        assert!(line.is_none(), "{}: {}", path.display(), said.stdout);
    }
}

fn mkfs(path: &Path, bits: u8, megabytes: u64) {
    let _ = fs::remove_file(path);
    fs::File::create(path).unwrap().set_len(megabytes << 20).unwrap();
    run(judge("mkfs.fat").args(["-F", &bits.to_string(), "-n", "FIRST"]).arg(path)).expect_success();
}

fn noise(seed: usize, len: usize) -> Vec<u8> {
    (0..len).map(|n| ((n * 31 + seed * 17) % 253) as u8).collect()
}

/// Files with all kinds of names, many in one directory, deep ones.
fn tree(directory: &Path) -> PathBuf {
    let root = directory.join("tree");
    fs::create_dir_all(root.join("EFI/BOOT")).unwrap();
    fs::create_dir_all(root.join("a/directory with a rather long name/deeper")).unwrap();
    fs::create_dir(root.join("many")).unwrap();
    for (number, (name, len)) in [
        ("EFI/BOOT/BOOTX64.EFI", 300_000),
        ("EFI/BOOT/grub.cfg", 77),
        ("empty", 0),
        ("README.TXT", 512),
        ("Grüße an die Welt ☺.html", 2048),
        (".hidden", 1),
        ("a/exactly13char", 4096),
        ("a/directory with a rather long name/deeper/file.tar.gz", 65_537),
    ]
    .iter()
    .enumerate()
    {
        fs::write(root.join(name), noise(number, *len)).unwrap();
    }
    for number in 0..150 {
        fs::write(root.join(format!("many/a file that is number {number}")), noise(number, number * 7)).unwrap();
    }
    for name in ["README.TXT", "many/a file that is number 3"] {
        run(judge("touch").args(["-d", "2020-02-02T02:02:02Z"]).arg(root.join(name))).expect_success();
    }
    root
}

/// What another reader finds: paths and contents, `None` for directories.
fn read_all(path: &Path) -> BTreeMap<String, Option<Vec<u8>>> {
    fn walk(dir: &fatfs::Dir<'_, fs::File>, below: &str, found: &mut BTreeMap<String, Option<Vec<u8>>>) {
        for entry in dir.iter() {
            let entry = entry.unwrap();
            let name = entry.file_name();
            if name == "." || name == ".." {
                continue;
            }
            let full = format!("{below}/{name}");
            if entry.is_dir() {
                walk(&entry.to_dir(), &full, found);
                found.insert(full, None);
            } else {
                let mut bytes = Vec::new();
                entry.to_file().read_to_end(&mut bytes).unwrap();
                found.insert(full, Some(bytes));
            }
        }
    }
    let file = fs::File::options().read(true).write(true).open(path).unwrap();
    let volume = fatfs::FileSystem::new(file, fatfs::FsOptions::new()).unwrap();
    let mut found = BTreeMap::new();
    walk(&volume.root_dir(), "", &mut found);
    found
}

/// The same of a host directory.
fn read_host(root: &Path) -> BTreeMap<String, Option<Vec<u8>>> {
    fn walk(directory: &Path, below: &str, found: &mut BTreeMap<String, Option<Vec<u8>>>) {
        for entry in fs::read_dir(directory).unwrap() {
            let entry = entry.unwrap();
            let full = format!("{below}/{}", entry.file_name().into_string().unwrap());
            if entry.file_type().unwrap().is_dir() {
                walk(&entry.path(), &full, found);
                found.insert(full, None);
            } else {
                found.insert(full, Some(fs::read(entry.path()).unwrap()));
            }
        }
    }
    let mut found = BTreeMap::new();
    walk(root, "", &mut found);
    found
}

#[track_caller]
fn same(path: &Path, root: &Path) {
    let (found, wanted) = (read_all(path), read_host(root));
    assert!(found.keys().eq(wanted.keys()), "{:#?}\n{:#?}", found.keys(), wanted.keys());
    for (name, contents) in &found {
        assert!(*contents == wanted[name], "{name} differs");
    }
}

#[test]
fn trees_go_in_are_changed_and_come_out() {
    let directory = tempfile::tempdir().unwrap();
    let from = tree(directory.path());
    let disk = directory.path().join("x.img");
    for (bits, megabytes) in [(12, 3), (16, 20), (32, 40)] {
        mkfs(&disk, bits, megabytes);
        let all = format!("{}/.", from.display());
        image(&["cp", "-r", &all, &at(&disk, "/")]).expect_success();
        fsck(&disk);
        same(&disk, &from);

        // Out again, with times.
        let out = directory.path().join(format!("out{bits}"));
        image(&["cp", "-r", &at(&disk, "/"), out.to_str().unwrap()]).expect_success();
        run(judge("diff").arg("-r").arg(&from).arg(&out)).expect_success();
        let time = |path: PathBuf| fs::metadata(path).unwrap().modified().unwrap();
        assert_eq!(time(out.join("README.TXT")), time(from.join("README.TXT")));

        // The host's tree has the same done to it.
        let host = directory.path().join(format!("host{bits}"));
        run(judge("cp").arg("-r").arg(&from).arg(&host)).expect_success();
        image(&["mv", &at(&disk, "/a/directory with a rather long name"), "/EFI"]).expect_success();
        fs::rename(
            host.join("a/directory with a rather long name"),
            host.join("EFI/directory with a rather long name"),
        )
        .unwrap();
        image(&["mv", &at(&disk, "/readme.txt"), "/ReadMe.Txt"]).expect_success();
        fs::rename(host.join("README.TXT"), host.join("ReadMe.Txt")).unwrap();
        image(&["mv", &at(&disk, "/empty"), "/a/exactly13char"]).expect_success();
        fs::rename(host.join("empty"), host.join("a/exactly13char")).unwrap();
        image(&["mkdir", "-p", &at(&disk, "/new/er/est")]).expect_success();
        fs::create_dir_all(host.join("new/er/est")).unwrap();
        let file = directory.path().join("bigger");
        fs::write(&file, noise(9, 200_000)).unwrap();
        image(&["cp", file.to_str().unwrap(), &at(&disk, "/efi/boot/GRUB.CFG")]).expect_success();
        fs::remove_file(host.join("EFI/BOOT/grub.cfg")).unwrap();
        fs::write(host.join("EFI/BOOT/GRUB.CFG"), noise(9, 200_000)).unwrap();
        for number in (0..150).step_by(2) {
            let name = format!("many/a file that is number {number}");
            image(&["rm", &at(&disk, &format!("/{name}"))]).expect_success();
            fs::remove_file(host.join(name)).unwrap();
        }
        for number in 0..40 {
            let name = format!("many/another one {number}");
            fs::write(host.join(&name), noise(number, number * 100)).unwrap();
            image(&["cp", host.join(&name).to_str().unwrap(), &at(&disk, "/many")]).expect_success();
        }
        fsck(&disk);
        same(&disk, &host);
        image(&["rm", "-r", &at(&disk, "/many"), &at(&disk, "/EFI")]).expect_success();
        fs::remove_dir_all(host.join("many")).unwrap();
        fs::remove_dir_all(host.join("EFI")).unwrap();
        fsck(&disk);
        same(&disk, &host);
    }
}

#[test]
fn what_is_there_is_told() {
    let directory = tempfile::tempdir().unwrap();
    let from = tree(directory.path());
    let disk = directory.path().join("x.img");
    image(&["create", disk.to_str().unwrap(), "--type", "fat", "--size", "20M", "--from", from.to_str().unwrap()])
        .expect_success();
    let said = image(&["ls", &at(&disk, "/EFI/BOOT")]).expect_success();
    assert_eq!(said.stdout, "BOOTX64.EFI\ngrub.cfg\n");
    let long = image(&["ls", "-l", &at(&disk, "/readme.txt")]).expect_success().stdout;
    assert!(long.contains("-rw-r--r--") && long.contains(" 512 2020-02-02 02:02 "), "{long}");
    let said = image(&["cat", &at(&disk, "/efi/boot/GRUB.CFG")]).expect_success();
    assert_eq!(said.stdout.len(), String::from_utf8_lossy(&noise(1, 77)).len());
    let found = image(&["find", "--name", "*number 1?", disk.to_str().unwrap()]).expect_success().stdout;
    assert_eq!(found.lines().count(), 10, "{found}");
    let stat = image(&["stat", "--json", &at(&disk, "/EFI/BOOT/BOOTX64.EFI")]).expect_success().stdout;
    let value: serde_json::Value = serde_json::from_str(&stat).unwrap();
    assert_eq!((&value["size"], &value["type"]), (&300_000.into(), &"regular file".into()));

    let info = image(&["info", "--json", disk.to_str().unwrap()]).expect_success().stdout;
    let value: serde_json::Value = serde_json::from_str(&info).unwrap();
    let judged = run(judge("fsck.fat").args(["-n", "-v"]).arg(&disk)).expect_success().stdout;
    let used = judged.lines().last().unwrap().rsplit_once(", ").unwrap().1.split(' ').next().unwrap().to_owned();
    let (used, all) = used.split_once('/').unwrap();
    let numbers: (u64, u64) = (used.parse().unwrap(), all.parse().unwrap());
    let free = value["clusters_free"].as_u64().unwrap();
    assert_eq!((value["clusters"].as_u64().unwrap() - free, value["clusters"].as_u64().unwrap()), numbers, "{judged}");
    assert_eq!(value["type"], "FAT16");
    assert_eq!(value["state"], "clean");

    // The archive's files are the tree's.
    let archive = directory.path().join("x.tar.gz");
    image(&["export", "tar", disk.to_str().unwrap(), archive.to_str().unwrap()]).expect_success();
    let out = directory.path().join("out");
    fs::create_dir(&out).unwrap();
    run(judge("tar").arg("xzf").arg(&archive).arg("-C").arg(&out)).expect_success();
    run(judge("diff").arg("-r").arg(&from).arg(&out)).expect_success();

    for (new, shown) in [("rescue-1", "RESCUE-1"), ("", "")] {
        image(&["label", disk.to_str().unwrap(), new]).expect_success();
        assert_eq!(image(&["label", disk.to_str().unwrap()]).expect_success().stdout, format!("{shown}\n"));
        fsck(&disk);
    }
    image(&["label", disk.to_str().unwrap(), "much too long for it"]).expect_one_error(&["no FAT label"]);
}

#[test]
fn what_fat_cannot_have_is_refused() {
    let directory = tempfile::tempdir().unwrap();
    let disk = directory.path().join("x.img");
    mkfs(&disk, 12, 1);
    let before = fs::read(&disk).unwrap();
    let path = |name: &str| directory.path().join(name);
    std::os::unix::fs::symlink("x", path("link")).unwrap();
    fs::write(path("bad:name"), "x").unwrap();
    fs::write(path("large"), noise(1, 3 << 20)).unwrap();
    fs::File::create(path("huge")).unwrap().set_len(5 << 30).unwrap();
    let copy = |name: &str| image(&["cp", path(name).to_str().unwrap(), &at(&disk, "/")]);
    copy("link").expect_one_error(&["FAT cannot hold symbolic links"]);
    copy("bad:name").expect_one_error(&["a character in its name"]);
    copy("large").expect_one_error(&["no space left"]);
    copy("huge").expect_one_error(&["larger than 4 GiB"]);
    image(&["cat", &at(&disk, "/nothing")]).expect_one_error(&["/nothing"]);
    image(&["chmod", "600", &at(&disk, "/x")]).expect_one_error(&["FAT, which has no modes"]);
    image(&["chown", "1:1", &at(&disk, "/x")]).expect_one_error(&["FAT, which has no owners"]);
    image(&["ln", "-s", "a", &at(&disk, "/x")]).expect_one_error(&["FAT, which has no links"]);
    image(&["info", "--map", disk.to_str().unwrap()]).expect_one_error(&["FAT, which has no map here"]);
    image(&["mkdir", &at(&disk, "/a/b")]).expect_one_error(&["/a"]);
    assert!(fs::read(&disk).unwrap() == before, "an error left something behind");
    image(&["mkdir", &at(&disk, "/a")]).expect_success();
    image(&["mkdir", &at(&disk, "/A")]).expect_one_error(&["exists already"]);
    image(&["mkdir", &at(&disk, "/a/b")]).expect_success();
    image(&["mv", &at(&disk, "/a"), "/a/b/c"]).expect_one_error(&["into itself"]);
    image(&["rm", &at(&disk, "/a")]).expect_one_error(&["/a"]);
    fsck(&disk);

    // A chain that two files share: read, but not changed.
    let small = path("small");
    fs::write(&small, noise(2, 5000)).unwrap();
    for name in ["/one", "/two"] {
        image(&["cp", small.to_str().unwrap(), &at(&disk, name)]).expect_success();
    }
    let mut bytes = fs::read(&disk).unwrap();
    let entry = |name: &[u8]| bytes.windows(11).position(|part| part == name).unwrap();
    let (one, two) = (entry(b"ONE        "), entry(b"TWO        "));
    bytes.copy_within(one + 26..one + 28, two + 26);
    fs::write(&disk, &bytes).unwrap();
    image(&["cat", &at(&disk, "/two")]).expect_success();
    image(&["rm", &at(&disk, "/two")]).expect_one_error(&["damaged: cluster", "part of two files", "fsck.fat"]);
    run(judge("fsck.fat").arg("-n").arg(&disk)).expect_code(1);
}
