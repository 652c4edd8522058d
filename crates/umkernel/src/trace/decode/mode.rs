//! File modes and device numbers.

use super::{Printer, file};
use crate::syscall::Arg;
use alloc::format;
use alloc::string::String;

/// A mode argument: nothing for an `open(2)` that creates nothing.
pub(super) fn argument(p: &mut Printer, value: u64) {
    let before = p.index.checked_sub(1).and_then(|i| p.argument(i));
    if before == Some(Arg::Kind("open_flags")) && !file::creates(p.preceding()) {
        p.omitted = true;
        return;
    }
    let typed = p.is("mknod") || p.is("mknodat");
    let text = if typed { with_type(value as u32) } else { permissions(value as u32) };
    p.push(&text);
}

/// `0644`.
pub(super) fn permissions(mode: u32) -> String {
    format!("0{mode:02o}")
}

/// `S_IFREG|0644`.
pub(super) fn with_type(mode: u32) -> String {
    let name = match mode & 0o170_000 {
        0o010_000 => "S_IFIFO",
        0o020_000 => "S_IFCHR",
        0o040_000 => "S_IFDIR",
        0o060_000 => "S_IFBLK",
        0o100_000 => "S_IFREG",
        0o120_000 => "S_IFLNK",
        0o140_000 => "S_IFSOCK",
        _ => return permissions(mode),
    };
    let mut out = String::from(name);
    for (bit, name) in [(0o4000, "|S_ISUID"), (0o2000, "|S_ISGID"), (0o1000, "|S_ISVTX")] {
        if mode & bit != 0 {
            out.push_str(name);
        }
    }
    format!("{out}|0{:02o}", mode & 0o777)
}

/// `makedev(0x1, 0x3)`, of a number as `makedev(3)` encodes it.
pub(super) fn device(dev: u64) -> String {
    let major = dev >> 8 & 0xfff | dev >> 32 & 0xffff_f000;
    let minor = dev & 0xff | dev >> 12 & 0xffff_ff00;
    format!("makedev({}, {})", super::text::hex(major), super::text::hex(minor))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn modes_and_devices() {
        assert_eq!(permissions(0o644), "0644");
        assert_eq!((permissions(0), permissions(0o22)), ("000".into(), "022".into()));
        assert_eq!(with_type(0o100_644), "S_IFREG|0644");
        assert_eq!(with_type(0o041_777), "S_IFDIR|S_ISVTX|0777");
        assert_eq!(device(0x8801), "makedev(0x88, 0x1)");
        assert_eq!(device(0), "makedev(0, 0)");
    }
}
