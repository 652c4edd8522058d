//! What debugfs says about an image's inodes: the independent witness of owners, modes, times and holes.

use std::collections::BTreeMap;
use std::path::Path;

use crate::{judge, run};

/// An inode, as debugfs's `stat` shows it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Inode {
    /// Inode number.
    pub ino: u32,
    /// `regular`, `directory`, `symlink`, `character`, `block`, `FIFO` or `socket`.
    pub kind: String,
    /// The twelve permission bits.
    pub mode: u32,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Length in bytes.
    pub size: u64,
    /// Names.
    pub links: u32,
    /// Space in units of 512 bytes.
    pub blocks: u64,
    /// Seconds (as an unsigned 34-bit number, as ext4 stores them with two more bits) and nanoseconds.
    pub mtime: (u64, u32),
    /// Access time likewise.
    pub atime: (u64, u32),
    /// Change time likewise.
    pub ctime: (u64, u32),
    /// Major and minor number.
    pub device: Option<(u32, u32)>,
    /// Names of extended attributes and the lengths of their values.
    pub xattrs: BTreeMap<String, usize>,
}

/// Asks debugfs for many inodes at once, by absolute path.
///
/// # Panics
/// debugfs does not know one of the paths, or says something that is not understood.
#[track_caller]
pub fn debugfs_stat(image: &Path, paths: &[String]) -> Vec<Inode> {
    let script = tempfile::NamedTempFile::new().unwrap();
    // A marker between the answers: debugfs echoes commands only from a file.
    let text: String = paths.iter().map(|path| format!("stat \"{}\"\n", path.replace('"', "\"\""))).collect();
    std::fs::write(script.path(), text).unwrap();
    let said = run(judge("debugfs").arg("-f").arg(script.path()).arg(image)).expect_success();
    let answers: Vec<&str> = said.stdout.split("debugfs: stat ").skip(1).collect();
    assert_eq!(answers.len(), paths.len(), "{}\n{}", said.stdout, said.stderr);
    answers.into_iter().map(parse).collect()
}

fn parse(answer: &str) -> Inode {
    let field = |name: &str| -> Option<&str> {
        let at = answer.find(name)? + name.len();
        answer.get(at..)?.trim_start().split([' ', '\n']).next()
    };
    let number = |name: &str| -> u32 {
        field(name).and_then(|text| text.parse().ok()).unwrap_or_else(|| panic!("no {name} in {answer}"))
    };
    let time = |name: &str| -> (u64, u32) {
        // `mtime: 0x6553f1a0:77359401 -- ...`: seconds, then nanoseconds and two bits of the epoch.
        let text = field(name).unwrap_or_else(|| panic!("no {name} in {answer}"));
        let mut parts = text.trim_start_matches("0x").split(':').map(|part| u64::from_str_radix(part, 16).unwrap());
        let seconds = parts.next().unwrap();
        let extra = parts.next().unwrap_or(0);
        (seconds | (extra & 3) << 32, (extra >> 2) as u32)
    };
    let device = answer.find("major/minor number: ").map(|at| {
        let text = &answer[at + "major/minor number: ".len()..];
        let mut parts = text.split([':', ' ', '\n']).map(|part| part.parse::<u32>().unwrap());
        (parts.next().unwrap(), parts.next().unwrap())
    });
    let xattrs = answer
        .split("Extended attributes:\n")
        .nth(1)
        .map(|list| {
            list.lines()
                .take_while(|line| line.starts_with("  "))
                .filter_map(|line| {
                    let (name, rest) = line.trim_start().split_once(" (")?;
                    Some((name.to_owned(), rest.split(')').next()?.parse().ok()?))
                })
                .collect()
        })
        .unwrap_or_default();
    Inode {
        ino: number("Inode:"),
        kind: field("Type:").unwrap_or_default().to_owned(),
        mode: u32::from_str_radix(field("Mode:").unwrap_or_default(), 8).unwrap(),
        uid: number("User:"),
        gid: number("Group:"),
        size: field("Size:").and_then(|text| text.parse().ok()).unwrap_or(0),
        links: number("Links:"),
        blocks: field("Blockcount:").and_then(|text| text.parse().ok()).unwrap_or(0),
        mtime: time("mtime:"),
        atime: time("atime:"),
        ctime: time("ctime:"),
        device,
        xattrs,
    }
}
