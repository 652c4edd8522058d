//! `umlfs image cp|rm|mkdir|mv|ln|chmod|chown|stat|find|label|export|dd`, judged by e2fsck, debugfs, tar and the
//! host's own tools.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

use std::collections::BTreeSet;
use std::fs;
use std::io::Read as _;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;

use umlfs_tests::ext::debugfs_stat;
use umlfs_tests::{Run, judge, run, umlfs};

fn image(arguments: &[&str]) -> Run {
    run(umlfs().arg("image").args(arguments))
}

fn fsck(path: &Path) {
    run(judge("e2fsck").arg("-fn").arg(path)).expect_success();
}

fn at(image: &Path, path: &str) -> String {
    format!("{}:{path}", image.display())
}

/// A tree with everything that an ordinary user can make.
fn tree(directory: &Path) -> PathBuf {
    let root = directory.join("tree");
    fs::create_dir_all(root.join("etc/deep/er")).unwrap();
    fs::write(root.join("etc/passwd"), "root:x:0:0::/:/bin/sh\nwww:x:33:34::/:/bin/sh\n").unwrap();
    fs::write(root.join("etc/group"), "root:x:0:\nwww:x:34:\n").unwrap();
    fs::write(root.join("etc/deep/er/data"), (0..300_000u32).map(|n| (n % 251) as u8).collect::<Vec<u8>>()).unwrap();
    fs::write(root.join("prog"), "#!/bin/sh\n").unwrap();
    fs::set_permissions(root.join("prog"), fs::Permissions::from_mode(0o755)).unwrap();
    fs::hard_link(root.join("prog"), root.join("prog-too")).unwrap();
    symlink("/etc/passwd", root.join("link")).unwrap();
    run(judge("mkfifo").arg(root.join("pipe"))).expect_success();
    let sparse = fs::File::create(root.join("sparse")).unwrap();
    std::os::unix::fs::FileExt::write_all_at(&sparse, b"end", 5 << 20).unwrap();
    run(judge("touch").args(["-d", "2020-02-02T02:02:02.123456789Z"]).arg(root.join("prog"))).expect_success();
    root
}

fn mke2fs(path: &Path, kind: &str, more: &[&str]) {
    run(judge("mke2fs").args(["-q", "-F", "-t", kind]).args(more).arg(path).arg("32M")).expect_success();
}

fn same(a: &Path, b: &Path) {
    run(Command::new("diff").args(["-r", "--no-dereference"]).arg(a).arg(b)).expect_success();
}

#[test]
fn trees_go_in_and_out_unchanged() {
    let directory = tempfile::tempdir().unwrap();
    let from = tree(directory.path());
    for (kind, more) in
        [("ext4", &[][..]), ("ext4", &["-O", "^metadata_csum,^64bit,^extent"]), ("ext3", &[]), ("ext2", &["-I", "128"])]
    {
        let path = directory.path().join("x.img");
        mke2fs(&path, kind, more);
        image(&["cp", "-r", "--owner", "0:0", from.to_str().unwrap(), &at(&path, "/new")]).expect_success();
        fsck(&path);
        // Once more: what is there is replaced, not doubled.
        image(&["cp", "-r", &format!("{}/.", from.display()), &at(&path, "/new")]).expect_success();
        fsck(&path);
        let names = ["/new/prog", "/new/prog-too", "/new/sparse"].map(str::to_owned);
        let [prog, too, sparse] = &debugfs_stat(&path, &names)[..] else { panic!() };
        assert_eq!((prog.ino, prog.links, prog.mode), (too.ino, 2, 0o755));
        assert_eq!(prog.mtime.0, 1_580_608_922);
        assert!(sparse.size == (5 << 20) + 3 && sparse.blocks < 64, "{sparse:?}");

        let out = directory.path().join("out");
        image(&["cp", "-r", &at(&path, "/new"), out.to_str().unwrap()]).expect_success();
        // A named pipe would make diff wait.
        assert!(fs::symlink_metadata(out.join("pipe")).is_ok());
        fs::remove_file(out.join("pipe")).unwrap();
        let pipe = from.join("pipe");
        fs::rename(&pipe, directory.path().join("pipe")).unwrap();
        same(&from, &out);
        fs::rename(directory.path().join("pipe"), &pipe).unwrap();
        let (a, b) = (fs::metadata(from.join("prog")).unwrap(), fs::metadata(out.join("prog")).unwrap());
        assert_eq!((a.mode(), a.mtime()), (b.mode(), b.mtime()));
        assert_eq!(b.ino(), fs::metadata(out.join("prog-too")).unwrap().ino());
        assert!(fs::metadata(out.join("sparse")).unwrap().blocks() < 64);
        fs::remove_dir_all(&out).unwrap();
        fs::remove_file(&path).unwrap();
    }
}

#[test]
fn names_modes_and_owners_change_in_place() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("x.img");
    mke2fs(&path, "ext4", &[]);
    image(&["cp", "-r", "--owner", "0:0", &format!("{}/.", tree(directory.path()).display()), &at(&path, "/")])
        .expect_success();
    image(&["mkdir", "-p", "-m", "700", &at(&path, "/a/b/c"), &at(&path, "/a/d")]).expect_success();
    image(&["mkdir", &at(&path, "/a")]).expect_one_error(&["exists already"]);
    image(&["mkdir", &at(&path, "/no/such")]).expect_one_error(&["no such file"]);
    image(&["mv", &at(&path, "/prog"), "/a/b"]).expect_success();
    image(&["mv", &at(&path, "/a"), &at(&path, "/a/b")]).expect_one_error(&["x.img"]);
    image(&["ln", "/a/b/prog", &at(&path, "/hard")]).expect_success();
    image(&["ln", "-s", "../x", &at(&path, "/a/soft")]).expect_success();
    image(&["ln", "-s", "y", &at(&path, "/a/soft")]).expect_one_error(&["exists"]);
    image(&["ln", "-sf", "/z", &at(&path, "/a/soft")]).expect_success();
    image(&["chmod", "u+s,go=", &at(&path, "/hard")]).expect_success();
    image(&["chmod", "-R", "go-rx", &at(&path, "/etc")]).expect_success();
    image(&["chown", "-R", "www:www", &at(&path, "/etc/deep")]).expect_success();
    image(&["chown", "nobody", &at(&path, "/etc")]).expect_one_error(&["no user `nobody`", "number"]);
    image(&["rm", &at(&path, "/etc")]).expect_one_error(&["/etc"]);
    image(&["rm", "-r", &at(&path, "/sparse"), &at(&path, "/a/d")]).expect_success();
    image(&["rm", "-f", &at(&path, "/nothing")]).expect_success();
    image(&["label", path.to_str().unwrap(), "seventeen letters"]).expect_one_error(&["16 bytes"]);
    image(&["label", path.to_str().unwrap(), "Lumpi"]).expect_success();
    assert_eq!(image(&["label", path.to_str().unwrap()]).expect_success().stdout, "Lumpi\n");
    fsck(&path);

    let names = ["/hard", "/a/b/c", "/etc/passwd", "/etc/deep/er/data", "/a/soft"].map(str::to_owned);
    let [hard, c, passwd, data, soft] = &debugfs_stat(&path, &names)[..] else { panic!() };
    assert_eq!((hard.mode, hard.links), (0o4700, 3));
    assert_eq!((c.mode, c.uid, c.kind.as_str()), (0o700, 0, "directory"));
    assert_eq!((passwd.mode & 0o77, passwd.uid), (0, 0));
    assert_eq!((data.uid, data.gid), (33, 34));
    assert_eq!((soft.kind.as_str(), soft.size), ("symlink", 2));

    let found = image(&["find", path.to_str().unwrap(), "--type", "f", "--perm", "4000"]).expect_success().stdout;
    assert_eq!(found.lines().collect::<BTreeSet<_>>(), BTreeSet::from(["/a/b/prog", "/hard", "/prog-too"]));
    let found = image(&["find", &at(&path, "/etc"), "--name", "p*w?", "--size", "+10"]).expect_success().stdout;
    assert_eq!(found, "/etc/passwd\n");
    let told = image(&["stat", &at(&path, "/hard")]).expect_success().stdout;
    assert!(told.contains("4700 (-rws------)") && told.contains("3 links"), "{told}");
    let json = image(&["stat", "--json", &at(&path, "/a/soft")]).expect_success().stdout;
    assert!(json.contains(r#""target":"/z""#), "{json}");
}

#[test]
fn archives_hold_what_the_image_holds() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("x.img");
    mke2fs(&path, "ext4", &[]);
    let from = tree(directory.path());
    image(&["cp", "-r", &format!("{}/.", from.display()), &at(&path, "/")]).expect_success();
    let long = format!("/{}", ["long-name"; 20].join("/"));
    image(&["mkdir", "-p", &at(&path, &long)]).expect_success();
    fsck(&path);
    for name in ["a.tar", "b.tar.gz", "c.tar.zst", "d.tar.xz"] {
        let archive = directory.path().join(name);
        image(&["export", "tar", path.to_str().unwrap(), archive.to_str().unwrap()]).expect_success();
        image(&["export", "tar", path.to_str().unwrap(), archive.to_str().unwrap()]).expect_one_error(&["--force"]);
        let printed = image(&["export", "tar", path.to_str().unwrap(), "-"]).expect_success();
        assert!(printed.stdout.contains("ustar") && !Path::new("-").exists(), "written to a file");
        let out = directory.path().join("out");
        fs::create_dir(&out).unwrap();
        run(Command::new("tar").arg("-xf").arg(&archive).arg("-C").arg(&out)).expect_success();
        assert!(out.join(&long[1..]).is_dir());
        assert_eq!(fs::read(out.join("sparse")).unwrap(), fs::read(from.join("sparse")).unwrap());
        let (a, b) = (fs::metadata(from.join("prog")).unwrap(), fs::metadata(out.join("prog")).unwrap());
        assert_eq!((a.mode(), a.mtime(), a.mtime_nsec(), b.nlink()), (b.mode(), b.mtime(), b.mtime_nsec(), 2));
        // The archive makes an image with the same files again.
        let again = directory.path().join("again.img");
        image(&["create", again.to_str().unwrap(), "--from", archive.to_str().unwrap(), "--force"]).expect_success();
        fsck(&again);
        let list = |image_path: &Path| image(&["ls", "-lR", image_path.to_str().unwrap()]).expect_success().stdout;
        let names = |text: &str| text.lines().filter(|line| !line.contains("lost+found")).count();
        assert_eq!(names(&list(&again)), names(&list(&path)));
        fs::remove_dir_all(&out).unwrap();
    }
}

#[test]
fn partitions_of_disks_are_images_too() {
    let directory = tempfile::tempdir().unwrap();
    let part = directory.path().join("part.img");
    mke2fs(&part, "ext4", &[]);
    for label in ["gpt", "dos"] {
        let disk = directory.path().join(label);
        fs::File::create(&disk).unwrap().set_len(100 << 20).unwrap();
        let script = directory.path().join("script");
        fs::write(&script, format!("label: {label}\n2048,8M\n,40M\n")).unwrap();
        run(judge("sfdisk").arg("-q").arg(&disk).stdin(fs::File::open(&script).unwrap())).expect_success();
        let disk_text = disk.to_str().unwrap();
        let operands = [format!("if={}", part.display()), format!("of={disk_text}:2")];
        image(&["dd", &operands[0], &operands[1], "conv=sparse"]).expect_success();
        run(judge("sfdisk").arg("-V").arg(&disk)).expect_success();
        let told = image(&["info", disk_text]).expect_success().stdout;
        assert!(told.contains("an ext4 file system of 32 MiB"), "{told}");
        let file = directory.path().join("hello");
        fs::write(&file, "hello").unwrap();
        image(&["cp", file.to_str().unwrap(), &format!("{disk_text}:2:/hello")]).expect_success();
        assert_eq!(image(&["cat", &format!("{disk_text}:2:/hello")]).expect_success().stdout, "hello");
        assert!(image(&["info", &format!("{disk_text}:2")]).expect_success().stdout.contains("clean"));
        image(&["info", &format!("{disk_text}:3")]).expect_one_error(&["no partition 3", "hint:"]);
        image(&["ls", &format!("{disk_text}:1")]).expect_one_error(&["no ext2, ext3 or ext4 image"]);
        image(&["ls", disk_text]).expect_one_error(&["partition table", ":1"]);
        let out = directory.path().join("out.img");
        image(&["dd", &format!("if={disk_text}:2"), &format!("of={}", out.display())]).expect_success();
        fsck(&out);
        fs::remove_file(&out).unwrap();
    }
}

#[test]
fn raw_copies_are_what_dd_makes() {
    let directory = tempfile::tempdir().unwrap();
    let from = directory.path().join("from");
    let mut bytes: Vec<u8> = (0..3_000_000u32).map(|n| (n / 7 % 256) as u8).collect();
    bytes[100_000..2_000_000].fill(0);
    fs::write(&from, &bytes).unwrap();
    for operands in
        [&["bs=1000", "count=2500"][..], &["bs=4k", "skip=3", "seek=5", "conv=sparse"], &["skip=1", "conv=notrunc"]]
    {
        let (ours, theirs) = (directory.path().join("ours"), directory.path().join("theirs"));
        for old in [None, Some(5_000_000usize)] {
            for path in [&ours, &theirs] {
                let _ = fs::remove_file(path);
                if let Some(len) = old {
                    fs::write(path, vec![7; len]).unwrap();
                }
            }
            let name = |prefix: &str, path: &Path| format!("{prefix}={}", path.display());
            run(umlfs().args(["image", "dd", &name("if", &from), &name("of", &ours)]).args(operands)).expect_success();
            run(judge("dd").args([name("if", &from), name("of", &theirs)]).args(operands)).expect_success();
            run(Command::new("cmp").arg(&ours).arg(&theirs)).expect_success();
        }
    }
    image(&["dd", "if=/nothing", "of=x"]).expect_one_error(&["/nothing"]);
    image(&["dd", "of=x"]).expect_one_error(&["if= is missing"]);
    image(&["dd", &format!("if={}", from.display()), &format!("of={}", from.display())])
        .expect_one_error(&["source and destination"]);
}

/// An image whose directory has a link and a directory of the same name, and one with a name that climbs out.
#[test]
fn nothing_outside_the_target_is_touched() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("x.img");
    mke2fs(&path, "ext4", &["-O", "^metadata_csum"]);
    let victim = directory.path().join("victim");
    fs::create_dir(&victim).unwrap();
    image(&["ln", "-s", victim.to_str().unwrap(), &at(&path, "/aa")]).expect_success();
    image(&["mkdir", "-p", &at(&path, "/ab/sub")]).expect_success();
    let replace = |old: &[u8], new: &[u8]| {
        let mut bytes = fs::read(&path).unwrap();
        let mut count = 0;
        for start in 0..bytes.len() - old.len() {
            if bytes[start..].starts_with(old) {
                bytes[start..start + new.len()].copy_from_slice(new);
                count += 1;
            }
        }
        assert!(count > 0);
        fs::write(&path, bytes).unwrap();
    };
    // The entry's name with its length and type: a directory `ab` becomes a second `aa`.
    replace(b"\x02\x02ab", b"\x02\x02aa");
    let out = directory.path().join("out");
    let said = image(&["cp", "-r", &at(&path, "/"), out.to_str().unwrap()]);
    assert!(!said.status.success() || !out.join("aa").is_symlink(), "{said:?}");
    assert_eq!(fs::read_dir(&victim).unwrap().count(), 0);
    replace(b"\x02\x02aa", b"\x02\x02/a");
    image(&["cp", "-r", &at(&path, "/"), directory.path().join("out2").to_str().unwrap()]).expect_code(1);
    assert_eq!(fs::read_dir(&victim).unwrap().count(), 0);
}

#[test]
fn images_grow_and_shrink_with_all_their_files() {
    let directory = tempfile::tempdir().unwrap();
    let from = tree(directory.path());
    for (kind, more) in
        [("ext4", &["-L", "lumpi", "-O", "^metadata_csum,^64bit", "-m", "3"][..]), ("ext2", &["-b", "1024"])]
    {
        let path = directory.path().join("x.img");
        let before = directory.path().join("before.img");
        mke2fs(&path, kind, more);
        image(&["cp", "-r", "--owner", "7:8", &format!("{}/.", from.display()), &at(&path, "/")]).expect_success();
        run(judge("debugfs").args(["-w", "-R", "ea_set /prog user.key value"]).arg(&path)).expect_success();
        fs::copy(&path, &before).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o640)).unwrap();
        let text = path.to_str().unwrap();
        let features = |path: &Path| {
            let told = run(judge("dumpe2fs").arg("-h").arg(path)).expect_success().stdout;
            let field = |name: &str| told.lines().find(|line| line.starts_with(name)).unwrap_or_default().to_owned();
            ["Filesystem volume name", "Filesystem UUID", "Filesystem features", "Block size", "Inode size"].map(field)
        };
        for (size, bytes) in [("200M", Some(200u64 << 20)), ("-100M", Some(100 << 20)), ("auto", None), ("+40M", None)]
        {
            image(&["resize", text, size]).expect_success();
            fsck(&path);
            let len = fs::metadata(&path).unwrap().len();
            assert!(bytes.is_none_or(|bytes| bytes == len), "{size}: {len}");
            // Only the directories' own times and mkfs's lost+found may differ, and only where the test changed them.
            assert_eq!(image(&["diff", "--times", before.to_str().unwrap(), text]).expect_success().stdout, "");
            assert_eq!(features(&path), features(&before));
            assert_eq!(fs::metadata(&path).unwrap().mode() & 0o777, 0o640);
            let names = ["/prog", "/etc/deep", "/sparse"].map(str::to_owned);
            for (new, old) in debugfs_stat(&path, &names).iter().zip(debugfs_stat(&before, &names)) {
                assert_eq!(
                    (new.atime, new.ctime, new.mtime, &new.xattrs),
                    (old.atime, old.ctime, old.mtime, &old.xattrs)
                );
            }
        }
        image(&["resize", text, "200K"]).expect_one_error(&["too "]);
        fsck(&path);

        // What differs is told, by name.
        image(&["rm", &at(&path, "/pipe")]).expect_success();
        image(&["mkdir", &at(&path, "/etc/new")]).expect_success();
        image(&["chmod", "600", &at(&path, "/prog")]).expect_success();
        run(judge("debugfs").args(["-w", "-R", "ea_set /link user.x y"]).arg(&path));
        let said = image(&["diff", before.to_str().unwrap(), text]).expect_code(1).stdout;
        for line in ["- /pipe", "+ /etc/new", "! /prog: mode", "! /prog-too: mode"] {
            assert!(said.lines().any(|said| said == line), "{line} is not in\n{said}");
        }

        // An image is an input, too, and layers lie over it.
        let layered = directory.path().join("layered.img");
        let layer = directory.path().join("layer");
        fs::create_dir_all(layer.join("etc")).unwrap();
        fs::write(layer.join("etc/passwd"), "other\n").unwrap();
        let layers = ["--from", before.to_str().unwrap(), "--from", layer.to_str().unwrap(), "--force"];
        image(&[&["create", layered.to_str().unwrap()][..], &layers].concat()).expect_success();
        fsck(&layered);
        assert_eq!(image(&["cat", &at(&layered, "/etc/passwd")]).expect_success().stdout, "other\n");
        fs::remove_file(&path).unwrap();
    }
}

#[test]
fn disks_hold_fat_ext4_and_swap() {
    let directory = tempfile::tempdir().unwrap();
    let name = |name: &str| directory.path().join(name).to_str().unwrap().to_owned();
    let esp = directory.path().join("esp");
    fs::create_dir_all(esp.join("EFI/Boot")).unwrap();
    fs::write(esp.join("EFI/Boot/bootx64.efi"), vec![0x5a; 700_000]).unwrap();
    fs::write(esp.join("a long name with spaces.txt"), "text").unwrap();
    fs::hard_link(esp.join("a long name with spaces.txt"), esp.join("copy")).unwrap();
    for (size, bits) in [("4M", "FAT12"), ("64M", "FAT16"), ("520M", "FAT32"), ("auto", "FAT1")] {
        let fat = name("fat.img");
        let make = |force: &[&str]| {
            let what =
                ["create", &fat, "--type", "fat", "--from", esp.to_str().unwrap(), "--size", size, "--label", "lumpi"];
            image(&[&what[..], force].concat()).expect_success();
            // What is in a large one lies at its start.
            let mut bytes = Vec::new();
            fs::File::open(&fat).unwrap().take(16 << 20).read_to_end(&mut bytes).unwrap();
            bytes
        };
        let bytes = make(&[]);
        run(judge("fsck.fat").args(["-n", "-v", &fat])).expect_success();
        assert!(image(&["info", &fat]).expect_success().stdout.contains(bits), "{size}");
        assert!(make(&["--force"]) == bytes, "two runs differ");
        fs::remove_file(&fat).unwrap();
    }
    let make = |out: &str, more: &[&str]| image(&[&["create", out][..], more].concat()).expect_success();
    make(&name("esp.img"), &["--type", "fat", "--from", esp.to_str().unwrap(), "--size", "40M"]);
    make(&name("root.img"), &["--from", tree(directory.path()).to_str().unwrap(), "--free", "5M"]);
    make(&name("swap.img"), &["--type", "swap", "--size", "1M", "--label", "s"]);
    assert!(image(&["info", &name("swap.img")]).stderr.contains("a swap area"));
    let said = run(judge("swaplabel").arg(name("swap.img"))).expect_success().stdout;
    assert!(said.contains("LABEL: s"), "{said}");
    symlink("x", esp.join("link")).unwrap();
    image(&["create", &name("no.img"), "--type", "fat", "--from", esp.to_str().unwrap()]).expect_one_error(&[
        "/link",
        "symbolic link",
        "ext4",
    ]);

    for table in ["gpt", "mbr"] {
        let disk = name(table);
        let parts = ["esp", "root", "swap"].map(|part| format!("{part}={}", name(&format!("{part}.img"))));
        let arguments = ["disk", &disk, "--table", table, &parts[0], &parts[1], &parts[2]];
        image(&arguments).expect_success();
        image(&arguments).expect_one_error(&["--force"]);
        run(judge("sfdisk").args(["-V", &disk])).expect_success();
        let told = run(judge("sfdisk").args(["-d", &disk])).expect_success().stdout.to_ascii_uppercase();
        let types: &[&str] = match table {
            "gpt" => &[
                "C12A7328-F81F-11D2-BA4B-00A0C93EC93B",
                "0FC63DAF-8483-4772-8E79-3D69D8477DE4",
                "0657FD6D-A4AB-43C4-84E5-0933C84B4F4F",
            ],
            _ => &["TYPE=EF", "TYPE=83", "TYPE=82"],
        };
        assert!(types.iter().all(|kind| told.contains(kind)), "{told}");
        if table == "gpt" {
            let said = run(judge("sgdisk").args(["-v", &disk])).expect_success().stdout;
            assert!(said.contains("No problems found"), "{said}");
        }
        assert!(image(&["ls", &format!("{disk}:2:/etc")]).expect_success().stdout.contains("passwd"));
        for (number, part) in [("1", "esp.img"), ("2", "root.img"), ("3", "swap.img")] {
            let out = name("out.img");
            image(&["dd", &format!("if={disk}:{number}"), &format!("of={out}"), "conv=sparse"]).expect_success();
            run(Command::new("cmp").args([&out, &name(part)])).expect_success();
            fs::remove_file(out).unwrap();
        }
        let one = name("one.img");
        make(&one, &["--from", directory.path().join("tree").to_str().unwrap(), "--partition", table, "--force"]);
        run(judge("sfdisk").args(["-V", &one])).expect_success();
        assert_eq!(image(&["ls", &format!("{one}:1:/etc/deep")]).expect_success().stdout, "er\n");
        let first = fs::read(&disk).unwrap();
        image(&[&arguments[..], &["--force"]].concat()).expect_success();
        assert!(fs::read(&disk).unwrap() == first, "two runs differ");
    }
}
