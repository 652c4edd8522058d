//! Mount options of tmpfs.

use crate::bail;
use crate::errno::{Errno, Result};
use crate::mm::PAGE_SIZE;
use alloc::string::String;
use core::fmt::Write;

/// What `mount -o` says of an instance.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Options {
    /// Pages of data; `None` for no limit.
    pub pages: Option<u64>,
    /// Inodes; `None` for no limit.
    pub inodes: Option<u64>,
    /// Permission bits of the root.
    pub mode: u32,
    /// Owner of the root.
    pub uid: u32,
    /// Group of the root.
    pub gid: u32,
    /// Pages that `size=N%` refers to.
    pub memory_pages: u64,
}

impl Options {
    /// No limits (the kernel's own instance).
    pub fn unlimited() -> Options {
        Options { pages: None, inodes: None, mode: 0o1777, uid: 0, gid: 0, memory_pages: 0 }
    }

    /// The defaults on a machine with `memory` bytes: half of it, and an inode for every other page.
    pub fn for_memory(memory: u64) -> Options {
        let memory_pages = memory / PAGE_SIZE;
        let half = Some(memory_pages / 2);
        Options { pages: half, inodes: half, memory_pages, ..Options::unlimited() }
    }

    /// Takes over what a list of options says; `EINVAL` for what tmpfs does not know.
    pub fn parse(data: &str, defaults: Options) -> Result<Options> {
        let mut options = defaults;
        for option in data.split(',').filter(|o| !o.is_empty()) {
            let (key, value) = option.split_once('=').unwrap_or((option, ""));
            match key {
                "size" => options.pages = limit(options.size(value)?.div_ceil(PAGE_SIZE)),
                "nr_blocks" => options.pages = limit(number(value)?),
                "nr_inodes" => options.inodes = limit(number(value)?),
                "mode" => options.mode = u32::from_str_radix(value, 8).map_err(|_| Errno::EINVAL)? & 0o7777,
                "uid" => options.uid = value.parse().map_err(|_| Errno::EINVAL)?,
                "gid" => options.gid = value.parse().map_err(|_| Errno::EINVAL)?,
                // Without effect on a host that decides about pages itself.
                "huge" | "mpol" | "inode32" | "inode64" => {}
                _ => bail!(EINVAL, "no option of tmpfs"),
            }
        }
        Ok(options)
    }

    fn size(&self, value: &str) -> Result<u64> {
        match value.strip_suffix('%') {
            Some(percent) => {
                let percent: u64 = percent.parse().map_err(|_| Errno::EINVAL)?;
                let scaled = (self.memory_pages * PAGE_SIZE).checked_mul(percent).ok_or(Errno::EINVAL)?;
                Ok(scaled / 100)
            }
            None => number(value),
        }
    }

    /// The options as `/proc/mounts` shows them.
    pub(super) fn describe(&self) -> String {
        let mut text = String::new();
        let mut add = |part: core::fmt::Arguments<'_>| {
            if !text.is_empty() {
                text.push(',');
            }
            // Writing to a String does not fail.
            let _ = text.write_fmt(part);
        };
        if let Some(pages) = self.pages {
            add(format_args!("size={}k", pages * PAGE_SIZE / 1024));
        }
        if let Some(inodes) = self.inodes {
            add(format_args!("nr_inodes={inodes}"));
        }
        if self.mode != 0o1777 {
            add(format_args!("mode={:o}", self.mode));
        }
        if self.uid != 0 {
            add(format_args!("uid={}", self.uid));
        }
        if self.gid != 0 {
            add(format_args!("gid={}", self.gid));
        }
        text
    }
}

/// Zero stands for no limit.
fn limit(n: u64) -> Option<u64> {
    (n != 0).then_some(n)
}

/// A number with an optional `k`, `m` or `g` (`memparse`).
fn number(text: &str) -> Result<u64> {
    let (digits, shift) = match text.as_bytes().last() {
        Some(b'k' | b'K') => (&text[..text.len() - 1], 10),
        Some(b'm' | b'M') => (&text[..text.len() - 1], 20),
        Some(b'g' | b'G') => (&text[..text.len() - 1], 30),
        _ => (text, 0),
    };
    let n: u64 = digits.parse().map_err(|_| Errno::EINVAL)?;
    n.checked_mul(1 << shift).ok_or(Errno::EINVAL.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_are_parsed_as_mount_writes_them() {
        let base = Options::for_memory(1 << 30);
        let parsed = Options::parse("size=10m,mode=755,nr_inodes=2k,uid=5", base.clone()).unwrap();
        assert_eq!((parsed.pages, parsed.inodes, parsed.mode, parsed.uid), (Some(2560), Some(2048), 0o755, 5));
        assert_eq!(parsed.describe(), "size=10240k,nr_inodes=2048,mode=755,uid=5");
        assert_eq!(Options::parse("size=50%", base.clone()).unwrap().pages, Some(131_072));
        assert!(Options::parse("size=18446744073709551615%", base.clone()).is_err());
        assert_eq!(Options::parse("size=0", base.clone()).unwrap().pages, None);
        for bad in ["size=x", "colour=red", "mode=9", "size="] {
            assert!(Options::parse(bad, base.clone()).is_err(), "{bad}");
        }
    }
}
