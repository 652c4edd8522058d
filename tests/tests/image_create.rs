//! `umlfs image create`: what is put in comes out again, as e2fsck and debugfs tell it.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use umlfs_tests::ext::debugfs_stat;
use umlfs_tests::{expect_clean_ext, judge, run, tree, umlfs};

fn create(image: &Path, arguments: &[&str], from: &[&Path]) -> umlfs_tests::Run {
    let mut command = umlfs();
    command.args(["image", "create"]).arg(image).args(arguments);
    for path in from {
        command.arg("--from").arg(path);
    }
    run(&mut command)
}

/// Compares every inode of the image with the tree it was made from, by debugfs and byte for byte.
fn compare(image: &Path, root: &Path, owner: impl Fn(u32) -> u32) {
    expect_clean_ext(image);
    let paths = tree::walk(root);
    // debugfs's command language cannot name these; they are compared by contents below.
    let nameable: Vec<&PathBuf> =
        paths.iter().filter(|path| !path.to_string_lossy().contains(['\n', '"', '\u{1}'])).collect();
    let inside: Vec<String> = nameable
        .iter()
        .map(|path| format!("/{}", path.strip_prefix(root).unwrap().display()))
        .chain(["/".to_owned()])
        .collect();
    let inodes = debugfs_stat(image, &inside);
    for (path, inode) in nameable.into_iter().map(PathBuf::as_path).chain([root]).zip(&inodes) {
        let expected = fs::symlink_metadata(path).unwrap();
        let at = path.display();
        assert!(tree::is_kind(path, &inode.kind), "{at}: {inode:?}");
        if inode.kind != "symlink" {
            assert_eq!(inode.mode, expected.mode() & 0o7777, "{at}");
        }
        assert_eq!((inode.uid, inode.gid), (owner(expected.uid()), owner(expected.gid())), "{at}");
        let seconds = expected.mtime();
        // ext4 counts seconds as a signed 32-bit number and adds two bits of epoch.
        let low = seconds as u32;
        let epoch = (seconds - i64::from(low as i32)) as u64 >> 32 & 3;
        let time = (u64::from(low) | epoch << 32, expected.mtime_nsec() as u32);
        assert_eq!((inode.mtime, inode.ctime), (time, time), "{at}");
        if inode.kind == "regular" || inode.kind == "symlink" {
            assert_eq!(inode.size, expected.len(), "{at}");
            assert_eq!(u64::from(inode.links), expected.nlink(), "{at}");
        }
        if inode.kind == "regular" {
            // One block more where an attribute does not fit the inode.
            let own = tree::data_blocks(path);
            let more = u64::from(inode.xattrs.values().sum::<usize>() > 90);
            assert!((own..=own + more).contains(&(inode.blocks / 8)), "{at}: {} of {own}", inode.blocks / 8);
        }
        if inode.kind == "character" || inode.kind == "block" {
            let device = (nix::sys::stat::major(expected.rdev()) as u32, nix::sys::stat::minor(expected.rdev()) as u32);
            assert_eq!(inode.device, Some(device), "{at}");
        }
        if inode.kind != "symlink" {
            let names: Vec<String> = xattr::list(path)
                .into_iter()
                .flatten()
                .map(|name| name.into_string().unwrap())
                .filter(|name| name.starts_with("user."))
                .collect();
            for name in names {
                let value = xattr::get(path, &name).unwrap().unwrap();
                assert_eq!(inode.xattrs.get(&name), Some(&value.len()), "{at}: {name}");
            }
        }
    }
    // Contents and link targets, out of the image through debugfs.
    let copy = tempfile::tempdir().unwrap();
    let out = copy.path().join("out");
    fs::create_dir(&out).unwrap();
    run(judge("debugfs").arg("-R").arg(format!("rdump / {}", out.display())).arg(image)).expect_success();
    let mut compared = 0;
    for path in &paths {
        let below = path.strip_prefix(root).unwrap();
        let metadata = fs::symlink_metadata(path).unwrap();
        if metadata.is_file() {
            assert!(fs::read(path).unwrap() == fs::read(out.join(below)).unwrap(), "{}", path.display());
            compared += 1;
        } else if metadata.is_symlink() {
            assert_eq!(fs::read_link(path).unwrap(), fs::read_link(out.join(below)).unwrap(), "{}", path.display());
        }
    }
    assert!(compared > 0);
}

#[test]
fn a_directory_comes_out_as_it_went_in() {
    let work = tempfile::tempdir().unwrap();
    let root = work.path().join("root");
    fs::create_dir(&root).unwrap();
    tree::fill(&root);
    let image = work.path().join("root.img");
    create(&image, &["--size", "auto"], &[&root]).expect_success();
    compare(&image, &root, |id| id);

    // Our own reader agrees with the host.
    for name in ["etc/5M", "etc/sparse", "names/line\nfeed", "many/a file with a longer name 777"] {
        let said = umlfs().args(["image", "cat"]).arg(&image).arg(name).output().unwrap();
        assert!(said.stdout == fs::read(root.join(name)).unwrap(), "{name}");
    }
    let listed = run(umlfs().args(["image", "ls"]).arg(format!("{}:/many", image.display()))).expect_success();
    let mut names: Vec<_> = fs::read_dir(root.join("many"))
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    assert_eq!(listed.stdout.lines().collect::<Vec<_>>(), names);
}

#[test]
fn each_kind_and_block_size_is_clean() {
    let work = tempfile::tempdir().unwrap();
    let root = work.path().join("root");
    fs::create_dir(&root).unwrap();
    tree::fill(&root);
    // Too large for a block of 1 KiB.
    let image = work.path().join("x.img");
    let small = ["--block-size", "1024"];
    create(&image, &small, &[&root]).expect_one_error(&["/a/link4000", "block"]);
    fs::remove_file(root.join("a/link4000")).unwrap();
    if xattr::get(root.join("etc/1"), "user.large").is_ok_and(|value| value.is_some()) {
        create(&image, &small, &[&root]).expect_one_error(&["/etc/1", "user.large", "1024 bytes", "--block-size"]);
        xattr::remove(root.join("etc/1"), "user.large").unwrap();
    }
    for kind in ["ext2", "ext3", "ext4"] {
        for block_size in ["1024", "2048", "4096"] {
            for size in ["auto", "200M"] {
                let arguments = ["--force", "--type", kind, "--block-size", block_size, "--size", size];
                create(&image, &arguments, &[&root]).expect_success();
                expect_clean_ext(&image);
                let info = run(umlfs().args(["image", "info", "--json"]).arg(&image)).expect_success();
                let info: serde_json::Value = serde_json::from_str(&info.stdout).unwrap();
                assert_eq!(info["type"], kind);
                assert_eq!(info["block_size"].to_string(), block_size);
                let said = umlfs().args(["image", "cat"]).arg(&image).arg("etc/5M").output().unwrap();
                assert!(said.stdout == fs::read(root.join("etc/5M")).unwrap(), "{arguments:?}");
            }
        }
    }
}

#[test]
fn the_same_input_gives_the_same_bytes() {
    let work = tempfile::tempdir().unwrap();
    let make = |name: &str| {
        let root = work.path().join(name).join("root");
        fs::create_dir_all(&root).unwrap();
        tree::fill(&root);
        let image = work.path().join(format!("{name}.img"));
        create(&image, &["--size", "auto", "--free", "10M", "--label", "same"], &[&root]).expect_success();
        fs::read(image).unwrap()
    };
    let one = make("one");
    // Another directory, filled anew a second later: inode numbers, change and access times differ.
    std::thread::sleep(std::time::Duration::from_millis(1100));
    assert!(one == make("two/deeper"), "the images differ");
}

#[test]
fn owners_and_times_can_be_set() {
    let work = tempfile::tempdir().unwrap();
    let root = work.path().join("root");
    fs::create_dir(&root).unwrap();
    fs::write(root.join("f"), b"x").unwrap();
    tree::set_time(&root.join("f"), 2_000_000_000, 77);
    tree::set_time(&root, 1_000_000_000, 0);
    let image = work.path().join("x.img");
    let one = |arguments: &[&str]| {
        let arguments = [&["--force"], arguments].concat();
        create(&image, &arguments, &[&root]).expect_success();
        expect_clean_ext(&image);
        debugfs_stat(&image, &["/f".to_owned(), "/".to_owned()])
    };
    let inodes = one(&["--owner", "1234:567"]);
    assert!(inodes.iter().all(|inode| (inode.uid, inode.gid) == (1234, 567)), "{inodes:?}");
    let inodes = one(&["--owner", "root", "--source-date-epoch", "1500000000"]);
    assert!(inodes.iter().all(|inode| (inode.uid, inode.gid) == (0, 0)), "{inodes:?}");
    assert_eq!(inodes[0].mtime, (1_500_000_000, 0), "clamped");
    assert_eq!(inodes[1].mtime, (1_000_000_000, 0), "older than the epoch");
    run(umlfs()
        .env("SOURCE_DATE_EPOCH", "1400000000")
        .args(["image", "create", "--force"])
        .arg(&image)
        .arg("--from")
        .arg(&root))
    .expect_success();
    assert_eq!(debugfs_stat(&image, &["/f".to_owned()])[0].mtime, (1_400_000_000, 0));
    let info = run(umlfs().args(["image", "info"]).arg(&image)).expect_success().stdout;
    assert!(info.contains("2014-05-13T16:53:20Z"), "{info}");
}

#[test]
fn label_uuid_and_features_are_as_asked() {
    let work = tempfile::tempdir().unwrap();
    let image = work.path().join("x.img");
    let uuid = "12345678-9abc-4def-8123-456789abcdef";
    create(&image, &["--size", "64M", "--label", "my root", "--uuid", uuid, "--feature", "^64bit,^metadata_csum"], &[])
        .expect_success();
    expect_clean_ext(&image);
    let said = run(judge("dumpe2fs").arg("-h").arg(&image)).expect_success().stdout;
    assert!(said.contains("my root") && said.contains(uuid), "{said}");
    let features = said.lines().find(|line| line.starts_with("Filesystem features:")).unwrap();
    assert!(!features.contains("64bit") && !features.contains("metadata_csum") && features.contains("extent"));
    assert_eq!(fs::metadata(&image).unwrap().len(), 64 << 20);
    assert!(fs::metadata(&image).unwrap().blocks() * 512 < 4 << 20, "an empty image is sparse");
}

#[test]
fn archives_of_each_format_and_compression_give_the_tree() {
    let work = tempfile::tempdir().unwrap();
    let root = work.path().join("root");
    fs::create_dir(&root).unwrap();
    tree::fill(&root);
    // A socket has no place in an archive.
    fs::remove_file(root.join("dev/socket")).unwrap();
    tree::set_time(&root.join("dev"), 1_500_000_002, 7);
    let image = work.path().join("x.img");
    let archive = work.path().join("x.tar");
    let tar = |arguments: &[&str]| {
        run(judge("tar").args(arguments).arg("-cf").arg(&archive).arg("-C").arg(&root).arg(".")).expect_success();
    };
    for sparse in ["--sparse-version=0.0", "--sparse-version=0.1", "--sparse-version=1.0"] {
        tar(&["--format=posix", "--numeric-owner", "--xattrs", "--sparse", sparse]);
        create(&image, &["--force"], &[&archive]).expect_success();
        compare(&image, &root, |id| id);
    }
    let first = fs::read(&image).unwrap();
    for (tool, suffix) in [("gzip", "gz"), ("xz", "xz"), ("zstd", "zst"), ("bzip2", "bz2")] {
        let packed = work.path().join(format!("x.tar.{suffix}"));
        let output = fs::File::create(&packed).unwrap();
        run(judge(tool).arg("-c").stdin(fs::File::open(&archive).unwrap()).stdout(output)).expect_success();
        create(&image, &["--force"], &[&packed]).expect_success();
        assert!(fs::read(&image).unwrap() == first, "{tool}");
    }
    // Through a pipe.
    let mut cat = Command::new("cat").arg(&archive).stdout(Stdio::piped()).spawn().unwrap();
    let pipe = cat.stdout.take().unwrap();
    run(umlfs().args(["image", "create", "--force", "--from", "-"]).arg(&image).stdin(pipe)).expect_success();
    cat.wait().unwrap();
    assert!(fs::read(&image).unwrap() == first, "a pipe");
    // The old formats keep whole seconds and no attributes.
    for path in tree::walk(&root).iter().rev().chain([&root]) {
        let seconds = fs::symlink_metadata(path).unwrap().mtime();
        tree::set_time(path, seconds, 0);
    }
    tar(&["--format=gnu", "--numeric-owner", "--sparse"]);
    create(&image, &["--force"], &[&archive]).expect_success();
    for (path, names) in
        [("etc/0", &["user.small", "user.empty"][..]), ("etc/1", &["user.large"]), ("etc", &["user.dir"])]
    {
        for name in names {
            let _ = xattr::remove(root.join(path), name);
        }
    }
    compare(&image, &root, |id| id);
}

#[test]
fn later_inputs_lie_over_earlier_ones() {
    let work = tempfile::tempdir().unwrap();
    let (one, two) = (work.path().join("one"), work.path().join("two"));
    for root in [&one, &two] {
        fs::create_dir_all(root.join("etc")).unwrap();
        fs::set_permissions(root.join("etc"), fs::Permissions::from_mode(0o755)).unwrap();
        fs::write(root.join("etc/who"), root.as_os_str().as_encoded_bytes()).unwrap();
    }
    fs::write(one.join("etc/first"), b"1").unwrap();
    fs::write(two.join("etc/second"), b"2").unwrap();
    fs::set_permissions(two.join("etc"), fs::Permissions::from_mode(0o700)).unwrap();
    let archive = work.path().join("two.tar");
    run(judge("tar").arg("-cf").arg(&archive).arg("-C").arg(&two).arg(".")).expect_success();
    for upper in [&two, &archive] {
        let image = work.path().join("x.img");
        create(&image, &["--force"], &[&one, upper]).expect_success();
        expect_clean_ext(&image);
        let read = |path: &str| run(umlfs().args(["image", "cat"]).arg(&image).arg(path)).expect_success().stdout;
        assert_eq!(read("etc/who"), two.display().to_string());
        assert_eq!((read("etc/first"), read("etc/second")), ("1".to_owned(), "2".to_owned()));
        assert_eq!(debugfs_stat(&image, &["/etc".to_owned()])[0].mode, 0o700);
    }
    // A directory in one, a file in the other.
    fs::remove_file(two.join("etc/who")).unwrap();
    fs::create_dir(two.join("etc/who")).unwrap();
    let image = work.path().join("y.img");
    create(&image, &[], &[&one, &two]).expect_one_error(&["etc/who", "a directory", "a regular file"]);
    assert!(!image.exists());
}

#[test]
fn many_empty_files_get_their_inodes() {
    let work = tempfile::tempdir().unwrap();
    let root = work.path().join("root");
    for directory in 0..4 {
        fs::create_dir_all(root.join(format!("{directory}"))).unwrap();
        for number in 0..5000 {
            fs::write(root.join(format!("{directory}/{number}")), b"").unwrap();
        }
    }
    let image = work.path().join("x.img");
    create(&image, &[], &[&root]).expect_success();
    expect_clean_ext(&image);
    assert!(fs::metadata(&image).unwrap().len() < 64 << 20);
    create(&image, &["--force", "--size", "100M"], &[&root]).expect_success();
    expect_clean_ext(&image);
}

#[test]
fn what_does_not_fit_or_exists_is_refused_and_leaves_nothing() {
    let work = tempfile::tempdir().unwrap();
    let root = work.path().join("root");
    fs::create_dir(&root).unwrap();
    for number in 0..10 {
        fs::write(root.join(format!("file{number}")), tree::noise(number, 1 << 20)).unwrap();
    }
    let out = work.path().join("out");
    fs::create_dir(&out).unwrap();
    let image = out.join("x.img");
    let said = create(&image, &["--size", "8M"], &[&root]).expect_one_error(&["/file", "8 MiB", "--size auto"]);
    assert_eq!(fs::read_dir(&out).unwrap().count(), 0);
    // The size in the hint is enough.
    let size = said.stderr.split("--size ").nth(1).unwrap().split(' ').next().unwrap().to_owned();
    create(&image, &["--size", &size], &[&root]).expect_success();
    expect_clean_ext(&image);

    create(&image, &[], &[&root]).expect_one_error(&["exists already", "--force"]);
    fs::write(&image, b"keep").unwrap();
    create(&image, &["--size", "8M", "--force"], &[&root]).expect_one_error(&["does not fit"]);
    assert_eq!(fs::read(&image).unwrap(), b"keep");
    create(&out, &[], &[&root]).expect_one_error(&["no regular file"]);
    create(&out.join("no/x.img"), &[], &[&root]).expect_one_error(&["No such file"]);
    create(&out.join("y.img"), &[], &[&work.path().join("none")]).expect_one_error(&["none", "No such file"]);
    for (arguments, needle) in [
        (&["--label", "longer than sixteen"][..], "at most 16"),
        (&["--size", "12k"], "12 KiB"),
        (&["--feature", "nonsense"], "nonsense"),
        (&["--block-size", "3000"], "block size"),
        (&["--inode-size", "100"], "inode size"),
        (&["--free", "9999999T"], "large enough"),
    ] {
        create(&out.join("y.img"), arguments, &[]).expect_one_error(&[needle]);
    }
    assert_eq!(fs::read_dir(&out).unwrap().count(), 1);
}

/// An archive gives a name to a file of the directory below it: the contents are found where they are on the host.
#[test]
fn archives_link_to_files_of_directories() {
    let directory = tempfile::tempdir().unwrap();
    let script = "mkdir -p d/sub e/sub && echo hi >d/sub/file && echo x >e/sub/file && ln e/sub/file e/0link && \
         tar -C e -cf t.tar sub/file 0link && tar --delete -f t.tar sub/file";
    run(judge("sh").args(["-c", script]).current_dir(directory.path())).expect_success();
    let make = ["image", "create", "-q", "--from", "d", "--from", "t.tar", "x.img"];
    run(umlfs().args(make).current_dir(directory.path())).expect_success();
    let image = directory.path().join("x.img");
    expect_clean_ext(&image);
    for path in ["/0link", "/sub/file"] {
        let read = run(judge("debugfs").arg("-R").arg(format!("cat {path}")).arg(&image)).expect_success();
        assert_eq!(read.stdout, "hi\n", "{path}");
    }
}
