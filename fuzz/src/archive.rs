//! What `image create` takes in: archives, layers of OCI images, manifests.

use std::cell::RefCell;
use std::os::fd::AsRawFd;
use std::path::PathBuf;

use imgtool::{Kind, Options, create};
use tempfile::TempDir;

use crate::disk_image::memory_file;

thread_local! {
    /// Where images are made.
    static PLACE: RefCell<TempDir> = RefCell::new(tempfile::tempdir().unwrap());
}

/// The first byte says what the rest is.
pub fn feed(data: &[u8]) {
    let Some((kind, rest)) = data.split_first() else { return };
    let mut bytes = rest.to_vec();
    // By chance, no header would have the right sum.
    if kind & 4 != 0 {
        mend_sums(&mut bytes);
    }
    let file = memory_file(&bytes);
    let path = format!("/proc/self/fd/{}", file.as_raw_fd());
    let from = match kind & 3 {
        0 | 1 => path,
        2 => format!("oci:{path}"),
        _ => format!("manifest:{path}"),
    };
    PLACE.with_borrow(|place| {
        let output = place.path().join("image");
        let kind = if kind & 8 != 0 { Kind::Fat } else { Kind::Ext4 };
        let options = Options { from: vec![PathBuf::from(from)], overwrite: true, kind, ..Options::new(output) };
        let _ = create(&options, &mut |_| {});
        for entry in std::fs::read_dir(place.path()).unwrap() {
            assert_eq!(entry.unwrap().file_name(), "image", "something else was made");
        }
    });
}

/// Puts the right sum into every header of a tar archive, as far as one leads to the next (POSIX `pax`, ustar).
fn mend_sums(bytes: &mut [u8]) {
    let mut at = 0;
    while let Some(header) = bytes.get_mut(at..at + 512) {
        header[148..156].fill(b' ');
        let sum: u32 = header.iter().map(|byte| u32::from(*byte)).sum();
        header[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
        let digits = header[124..135].iter().filter(|byte| byte.is_ascii_digit());
        let size = digits.fold(0usize, |size, digit| size.wrapping_mul(8).wrapping_add(usize::from(digit & 7)));
        at = at.saturating_add(512).saturating_add(size.min(1 << 20).next_multiple_of(512));
    }
}

/// A small archive, plain and compressed, a layer, and a manifest.
pub fn seeds() -> Vec<Vec<u8>> {
    let mut tar = Vec::new();
    for (name, kind, target, body) in [
        ("./", b'5', "", &b""[..]),
        ("a/file", b'0', "", b"contents"),
        ("a/link", b'2', "../etc", b""),
        ("a/hard", b'1', "a/file", b""),
        ("dev/null", b'3', "", b""),
        ("pax", b'x', "", b"30 mtime=1700000000.123456789\n20 path=longer/na\n"),
        (".wh.gone", b'0', "", b""),
        ("a/.wh..wh..opq", b'0', "", b""),
    ] {
        let mut header = [0u8; 512];
        header[..name.len()].copy_from_slice(name.as_bytes());
        header[100..108].copy_from_slice(b"0000755\0");
        header[124..136].copy_from_slice(format!("{:011o}\0", body.len()).as_bytes());
        header[136..148].copy_from_slice(b"14000000000\0");
        header[156] = kind;
        header[157..157 + target.len()].copy_from_slice(target.as_bytes());
        header[257..265].copy_from_slice(b"ustar\x0000");
        tar.extend_from_slice(&header);
        tar.extend_from_slice(body);
        tar.resize(tar.len().next_multiple_of(512), 0);
    }
    tar.resize(tar.len() + 1024, 0);
    mend_sums(&mut tar);
    let manifest = b"#mtree\n/set type=file mode=0644 uid=0 gid=0\n. type=dir mode=0755\n    a type=dir\n        \
        link type=link link=../x\n        null type=char device=native,1,3\n    ..\n./b/c type=dir time=1.5\n";
    let kinds = |kind: u8, bytes: &[u8]| [&[kind], bytes].concat();
    vec![
        kinds(0, &tar),
        kinds(4, &tar),
        kinds(6, &tar),
        kinds(12, &tar),
        kinds(3, manifest),
        kinds(0, b"\x1f\x8b\x08\0\0\0\0\0\0\x03\x63\x60\x18\x05\xa3\0\0"),
        kinds(0, b"\x28\xb5\x2f\xfd\x04\x58\x09\0\0abc"),
        kinds(0, b"\xfd7zXZ\0\0\x04\xe6\xd6\xb4\x46"),
        kinds(0, b"BZh91AY&SY"),
    ]
}
