//! Archives made to do harm, and archives cut or damaged: one clear error, nothing left, nothing touched elsewhere.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

use std::fs;
use std::path::PathBuf;

use umlfs_tests::{Run, expect_clean_ext, judge, run, tree, umlfs};

const BLOCK: usize = 512;

/// An entry of a tar archive, written by hand: tar itself would refuse most of these.
struct Entry {
    name: &'static str,
    kind: u8,
    link: &'static str,
    contents: Vec<u8>,
    /// In place of the contents' length.
    size: Option<[u8; 12]>,
    device: (u32, u32),
}

fn file(name: &'static str, contents: &[u8]) -> Entry {
    Entry { name, kind: b'0', link: "", contents: contents.to_vec(), size: None, device: (0, 0) }
}

fn link(name: &'static str, kind: u8, target: &'static str) -> Entry {
    Entry { kind, link: target, ..file(name, b"") }
}

fn bytes(entries: &[Entry]) -> Vec<u8> {
    let mut archive = Vec::new();
    for entry in entries {
        let mut header = [0u8; BLOCK];
        header[..entry.name.len()].copy_from_slice(entry.name.as_bytes());
        header[100..108].copy_from_slice(b"0000644\0");
        header[108..116].copy_from_slice(b"0000000\0");
        header[116..124].copy_from_slice(b"0000000\0");
        let size = format!("{:011o}\0", entry.contents.len());
        header[124..136].copy_from_slice(&entry.size.unwrap_or(size.as_bytes().try_into().unwrap()));
        header[136..148].copy_from_slice(b"14500000000\0");
        header[156] = entry.kind;
        header[157..157 + entry.link.len()].copy_from_slice(entry.link.as_bytes());
        header[257..265].copy_from_slice(b"ustar\x0000");
        header[329..337].copy_from_slice(format!("{:07o}\0", entry.device.0).as_bytes());
        header[337..345].copy_from_slice(format!("{:07o}\0", entry.device.1).as_bytes());
        header[148..156].fill(b' ');
        let sum: u32 = header.iter().map(|byte| u32::from(*byte)).sum();
        header[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
        archive.extend_from_slice(&header);
        archive.extend_from_slice(&entry.contents);
        archive.resize(archive.len().next_multiple_of(BLOCK), 0);
    }
    archive.resize(archive.len() + 2 * BLOCK, 0);
    archive
}

/// A directory tree of its own for each case, to see that nothing appears where it should not.
struct Place {
    all: tempfile::TempDir,
}

impl Place {
    fn new() -> Self {
        let all = tempfile::tempdir().unwrap();
        for name in ["outside", "work/out"] {
            fs::create_dir_all(all.path().join(name)).unwrap();
        }
        fs::write(all.path().join("outside/victim"), b"untouched").unwrap();
        Self { all }
    }

    fn image(&self) -> PathBuf {
        self.all.path().join("work/out/x.img")
    }

    fn create(&self, archive: &[u8], size: &str) -> Run {
        let path = self.all.path().join("work/in.tar");
        fs::write(&path, archive).unwrap();
        run(umlfs()
            .current_dir(self.all.path().join("work"))
            .args(["image", "create", "--quiet", "--size", size])
            .arg(self.image())
            .arg("--from")
            .arg(&path))
    }

    /// The archive is refused with one error that says `needles`, and everything is as before.
    #[track_caller]
    fn refuses(&self, archive: &[u8], needles: &[&str]) {
        let said = self.create(archive, "auto").expect_one_error(needles);
        assert_eq!(said.status.code(), Some(1), "{}", said.stderr);
        self.unchanged();
    }

    #[track_caller]
    fn unchanged(&self) {
        let names: Vec<_> = tree::walk(self.all.path())
            .into_iter()
            .map(|path| path.strip_prefix(self.all.path()).unwrap().display().to_string())
            .collect();
        assert_eq!(names, ["outside", "outside/victim", "work", "work/in.tar", "work/out"]);
        assert_eq!(fs::read(self.all.path().join("outside/victim")).unwrap(), b"untouched");
    }
}

#[test]
fn paths_cannot_leave_the_image() {
    let place = Place::new();
    for name in ["../outside/evil", "../../outside/evil", "a/../../outside/evil", "..", "a/.."] {
        place.refuses(&bytes(&[file(name, b"x")]), &["entry at byte 0", name, "climbs with `..`"]);
    }
    place.refuses(&bytes(&[file("good", b"x"), file("/etc/evil", b"x")]), &["byte 1024", "/etc/evil", "absolute"]);
    for (target, reason) in [
        ("../outside/victim", "climbs"),
        ("/etc/passwd", "absolute"),
        ("missing", "no earlier entry"),
        (".", "directory"),
    ] {
        place.refuses(&bytes(&[link("h", b'1', target)]), &["`h`", reason]);
    }
}

#[test]
fn links_are_no_way_out() {
    let place = Place::new();
    place.refuses(
        &bytes(&[link("way", b'2', "../outside"), file("way/evil", b"x")]),
        &["way/evil", "`way`, which is a symbolic link"],
    );
    place.refuses(
        &bytes(&[link("a", b'2', "."), link("a/b", b'2', "/"), file("a/b/etc/evil", b"x")]),
        &["`a`, which is a symbolic link"],
    );
    place.refuses(
        &bytes(&[link("way", b'2', "../outside"), Entry { kind: b'5', ..file("way", b"") }]),
        &["`way`", "a directory", "a symbolic link"],
    );
    place.refuses(&bytes(&[link("way", b'2', "../outside/victim"), link("h", b'1', "way/x")]), &["no earlier entry"]);
    // Links that point anywhere are what real systems have; a hard link to one links the link.
    let archive = bytes(&[link("way", b'2', "../../outside/victim"), link("h", b'1', "way"), file("way2", b"x")]);
    place.create(&archive, "auto").expect_success();
    expect_clean_ext(&place.image());
    let listed = run(umlfs().args(["image", "ls", "-l"]).arg(place.image())).expect_success().stdout;
    assert!(listed.contains("h -> ../../outside/victim"), "{listed}");
    // Reading follows links inside the image only.
    run(umlfs().args(["image", "cat"]).arg(place.image()).arg("/way")).expect_one_error(&["no such file"]);
}

#[test]
fn devices_are_only_written_down() {
    let place = Place::new();
    let device = |major, minor| Entry { kind: b'4', device: (major, minor), ..file("disk", b"") };
    place.refuses(&bytes(&[device(4096, 0)]), &["`disk`", "4096:0"]);
    place.refuses(&bytes(&[device(0, 1 << 20)]), &["`disk`", "at most 4095:1048575"]);
    place.create(&bytes(&[device(259, 7)]), "auto").expect_success();
    let listed = run(umlfs().args(["image", "ls", "-l"]).arg(place.image())).expect_success().stdout;
    assert!(listed.starts_with("brw-r--r--") && listed.contains("259, 7"), "{listed}");
    run(umlfs().args(["image", "cat"]).arg(place.image()).arg("/disk")).expect_one_error(&["a block device"]);
}

#[test]
fn sizes_are_not_believed() {
    let place = Place::new();
    let sized = |size: [u8; 12]| Entry { size: Some(size), ..file("big", b"x") };
    let binary = |value: u64| {
        let mut field = [0u8; 12];
        field[4..].copy_from_slice(&value.to_be_bytes());
        field[0] = 0x80;
        field
    };
    place.refuses(&bytes(&[sized(*b"77777777777\0")]), &["`big`", "truncated", "8589934591"]);
    place.refuses(&bytes(&[sized(binary(i64::MAX as u64))]), &["truncated", "9223372036854775807"]);
    place.refuses(&bytes(&[sized(binary(u64::MAX))]), &["size", "too large"]);
    place.refuses(&bytes(&[sized([0xff; 12])]), &["size -1"]);
    place.refuses(&bytes(&[sized(*b"0000000009x\0")]), &["octal"]);
    // A file of 8 EiB that is all hole: more than a file system holds.
    let map = b"0\n";
    let pax = |text: &str| {
        let mut records = String::new();
        for line in text.lines() {
            let mut len = line.len() + 3;
            while format!("{len} {line}\n").len() != len {
                len += 1;
            }
            records += &format!("{len} {line}\n");
        }
        Entry { kind: b'x', ..file("pax", records.as_bytes()) }
    };
    let hole = |size: &str| {
        let keys = format!("GNU.sparse.major=1\nGNU.sparse.minor=0\nGNU.sparse.name=hole\nGNU.sparse.realsize={size}");
        let mut contents = map.to_vec();
        contents.resize(BLOCK, 0);
        bytes(&[pax(&keys), file("hole", &contents)])
    };
    place.refuses(&hole("9223372036854775807"), &["/hole", "beyond what the file system can hold"]);
    place.create(&hole("1099511627776"), "auto").expect_success();
    expect_clean_ext(&place.image());
    fs::remove_file(place.image()).unwrap();
    // Extension headers that would take all memory.
    place.refuses(
        &bytes(&[Entry { kind: b'L', size: Some(*b"77777777777\0"), ..file("l", b"") }]),
        &["a long name of 8589934591 bytes", "at most"],
    );
    place.refuses(&bytes(&[pax("path=../outside/evil"), file("good", b"x")]), &["climbs"]);
    place.refuses(&bytes(&[pax("mtime=soon"), file("f", b"x")]), &["mtime", "soon"]);
    place.refuses(&bytes(&[pax("uid=4294967296"), file("f", b"x")]), &["user 4294967296"]);
    place.refuses(&bytes(&[Entry { kind: b'x', ..file("p", b"99 path=x\n") }, file("f", b"x")]), &["malformed record"]);
    place.refuses(&bytes(&[pax("path=x")]), &["after an extension header"]);
}

#[test]
fn a_cut_archive_is_refused_wherever_it_is_cut() {
    let place = Place::new();
    let root = tempfile::tempdir().unwrap();
    fs::create_dir_all(root.path().join("d/e")).unwrap();
    for (name, len) in [("a", 10), ("d/b", 3000), ("d/e/c", 512), (&"n".repeat(150), 700)] {
        fs::write(root.path().join(name), tree::noise(3, len)).unwrap();
    }
    std::os::unix::fs::symlink("a", root.path().join("s")).unwrap();
    for format in ["--format=posix", "--format=gnu"] {
        let output = judge("tar").arg(format).args(["-c", "-C"]).arg(root.path()).arg(".").output().unwrap();
        let whole = output.stdout;
        let end = whole.iter().rposition(|byte| *byte != 0).unwrap().next_multiple_of(BLOCK);
        for cut in (0..=end).step_by(BLOCK).chain([1, 100, 511, 513, 1500, end - 1]) {
            let needle = if cut == 0 { "empty" } else { "truncated" };
            place.refuses(&whole[..cut], &[needle]);
        }
    }
}

#[test]
fn cut_or_damaged_compression_is_refused() {
    let place = Place::new();
    let plain = bytes(&[file("a", &tree::noise(1, 50_000)), file("b", &tree::noise(2, 50_000))]);
    let source = tempfile::NamedTempFile::new().unwrap();
    fs::write(source.path(), &plain).unwrap();
    for tool in ["gzip", "xz", "zstd", "bzip2"] {
        let packed = judge(tool).arg("-c").stdin(fs::File::open(source.path()).unwrap()).output().unwrap().stdout;
        for cut in [packed.len() - 1, packed.len() - 9, packed.len() / 2, 20] {
            place.refuses(&packed[..cut], &[tool, "damaged or truncated", "again"]);
        }
        let mut bad = packed.clone();
        let middle = bad.len() / 2;
        bad[middle] ^= 0x55;
        place.refuses(&bad, &["in.tar"]);
    }
    place.refuses(&tree::noise(5, 4096), &["no tar header", "byte 0"]);
    place.refuses(b"hello\n", &["truncated"]);
}

#[test]
fn damaged_archives_never_crash() {
    let place = Place::new();
    let root = tempfile::tempdir().unwrap();
    fs::create_dir(root.path().join("d")).unwrap();
    fs::write(root.path().join("d/f"), tree::noise(1, 2000)).unwrap();
    let sparse = fs::File::create(root.path().join("sparse")).unwrap();
    sparse.set_len(1 << 20).unwrap();
    std::os::unix::fs::FileExt::write_all_at(&sparse, b"data", 500_000).unwrap();
    let mut archives = Vec::new();
    for arguments in [&["--format=gnu", "-S"][..], &["--format=posix", "-S"], &["--format=v7"]] {
        let output = judge("tar").args(arguments).args(["-c", "-C"]).arg(root.path()).arg(".").output().unwrap();
        archives.push(output.stdout);
    }
    let (mut failed, mut made) = (0, 0);
    for round in 0..400u32 {
        let mut archive = archives[round as usize % archives.len()].clone();
        let dice = tree::noise(round + 77, 12);
        // One changed byte, its header's checksum made right again in half of the rounds.
        let position = (usize::from(dice[0]) << 8 | usize::from(dice[1])) % archive.len().min(8 * BLOCK);
        archive[position] = dice[2];
        if dice[3] & 1 == 0 {
            let start = position / BLOCK * BLOCK;
            let header = &mut archive[start..start + BLOCK];
            header[148..156].fill(b' ');
            let sum: u32 = header.iter().map(|byte| u32::from(*byte)).sum();
            header[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
        }
        let said = place.create(&archive, "64M");
        match said.status.code() {
            Some(0) => {
                made += 1;
                if round % 8 == 0 {
                    expect_clean_ext(&place.image());
                }
                fs::remove_file(place.image()).unwrap();
            }
            Some(1) => {
                failed += 1;
                said.expect_one_error(&["in.tar"]);
            }
            _ => panic!("round {round}: {said:?}"),
        }
        place.unchanged();
    }
    assert!(failed > 50 && made > 50, "{failed} failed, {made} made");
}

#[test]
fn a_full_host_disk_leaves_nothing() {
    // /dev/full cannot stand for a directory; a limit on file size fails in the same place.
    let place = Place::new();
    let root = tempfile::tempdir().unwrap();
    fs::write(root.path().join("f"), tree::noise(1, 3 << 20)).unwrap();
    let script = format!(
        "ulimit -f 1024; trap '' XFSZ; exec {} image create {} --from {}",
        umlfs_tests::umlfs_path().display(),
        place.image().display(),
        root.path().display()
    );
    fs::write(place.all.path().join("work/in.tar"), b"").unwrap();
    run(judge("bash").arg("-c").arg(script)).expect_one_error(&["x.img"]);
    place.unchanged();
}
