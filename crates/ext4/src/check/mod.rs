//! The checker and the repairs that need no guesses: what `e2fsck` does, on a mounted file system that is quiet.
//!
//! The passes follow e2fsck's: inodes and their blocks ([`inodes`], [`blocks`], [`attributes`]), directories
//! ([`directories`], [`index`]), connectivity and link counts ([`links`]), bitmaps and counts ([`bitmaps`]). Each
//! reads what earlier ones found; nothing is trusted, and damage in one place does not end the check.

mod attributes;
mod bitmaps;
mod blocks;
mod directories;
mod index;
mod inodes;
mod links;
mod repair;

use crate::cache::Kind;
use crate::device::BlockDevice;
use crate::error::{Error, Place, Result};
use crate::features::RoCompat;
use crate::fs::Fs;
use crate::inode::Inode;
use crate::types::{FileType, Ino};
use alloc::collections::{BTreeMap, BTreeSet};
use alloc::string::{String, ToString as _};
use alloc::vec::Vec;
use core::fmt;

/// Findings beyond this number are counted, not kept.
const KEPT: usize = 10_000;

/// Something that is not as the format demands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// Where.
    pub at: Place,
    /// What is wrong, and what was expected.
    pub what: String,
    pub(crate) mend: Mend,
}

impl Finding {
    /// Whether [`Fs::repair`] puts it right.
    #[must_use]
    pub fn repairable(&self) -> bool {
        self.mend != Mend::No
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.at, self.what)
    }
}

/// What a check found.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Report {
    /// The findings, in the order of the passes; 10,000 at most.
    pub findings: Vec<Finding>,
    /// How many there are.
    pub count: usize,
    /// Inodes in use by files of any type.
    pub files: u32,
    /// Directories among them.
    pub directories: u32,
    /// Blocks in use, the file system's own included.
    pub blocks: u64,
    /// Inodes on the orphan list or in the orphan file: to be freed or truncated at the next mount.
    pub orphans: u32,
}

impl Report {
    /// Whether nothing was found.
    #[must_use]
    pub fn is_clean(&self) -> bool {
        self.count == 0
    }
}

/// How to put a finding right.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Mend {
    /// Only with a guess: that is e2fsck's part.
    No,
    /// The bitmaps and counts, which are written anew from what is in use.
    Counts,
    /// Store the inode again, with its checksum and without a deletion time.
    Inode(Ino),
    /// Set the block count, in 512-byte units.
    Blocks(Ino, u64),
    /// Set the link count.
    Links(Ino, u16),
    /// Give an inode without a name one in `lost+found`.
    Reconnect(Ino),
    /// Set the type byte of a directory entry.
    EntryType(Entry, FileType),
    /// Remove a directory entry.
    ClearEntry(Entry),
    /// Make `..` of the first lead to the second.
    Parent(Ino, Ino),
    /// Form the checksum of a directory's block anew.
    DirBlock(Ino, u64),
    /// Make an indexed directory one without an index.
    DropIndex(Ino),
    /// Set the reference count of an attribute block.
    Shares(u64, u32),
}

/// A directory entry's place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Entry {
    pub(crate) dir: Ino,
    pub(crate) block: u64,
    pub(crate) off: usize,
}

/// What is known of an inode in use.
#[derive(Debug, Clone)]
struct Known {
    file_type: Option<FileType>,
    nlink: u16,
    /// Directory entries that lead to it, `.` and `..` included.
    refs: u32,
    /// The directory that names it, of a directory.
    parent: Ino,
    /// What its `..` says, of a directory.
    dotdot: Ino,
    /// It holds an attribute's value: the count of references that it states.
    holds_value: Option<u64>,
}

/// A run of a directory's blocks: first number in the directory, first block of the device, length.
type DirRun = (u32, u64, u32);

struct Checker<'a, D: BlockDevice> {
    fs: &'a mut Fs<D>,
    report: Report,
    /// Blocks in use: a bitmap for each group, empty until one is set.
    used: Vec<Vec<u8>>,
    inodes: BTreeMap<Ino, Known>,
    /// Directories with their inodes and blocks.
    dirs: Vec<(Inode, Vec<DirRun>)>,
    /// Attribute blocks: references found and stated.
    shared: BTreeMap<u64, (u32, u32)>,
    /// References found to inodes that hold attributes' values.
    values: BTreeMap<Ino, u64>,
    orphans: BTreeSet<Ino>,
}

impl<D: BlockDevice> Fs<D> {
    /// Checks the whole file system; nothing is changed. A journal has been replayed by the mount.
    ///
    /// # Errors
    /// [`Error::Io`]; [`Error::Unsupported`] for features that are not checked here (`bigalloc`). Damage is no
    /// error but a finding.
    pub fn check(&mut self) -> Result<Report> {
        Ok(Checker::run(self)?.report)
    }
}

impl<'a, D: BlockDevice> Checker<'a, D> {
    fn run(fs: &'a mut Fs<D>) -> Result<Self> {
        if fs.sb.features.ro_compat.contains(RoCompat::BIGALLOC) {
            return Err(Error::Unsupported {
                what: "checking a file system whose space is allocated in clusters (bigalloc)".to_string(),
                read_only_possible: false,
            });
        }
        let groups = fs.sb.group_count() as usize;
        let mut checker = Checker {
            fs,
            report: Report::default(),
            used: alloc::vec![Vec::new(); groups],
            inodes: BTreeMap::new(),
            dirs: Vec::new(),
            shared: BTreeMap::new(),
            values: BTreeMap::new(),
            orphans: BTreeSet::new(),
        };
        checker.mark_system();
        checker.find_orphans()?;
        checker.check_inodes()?;
        checker.check_sharing();
        checker.check_directories()?;
        checker.check_connections();
        checker.check_links();
        checker.check_bitmaps()?;
        Ok(checker)
    }

    /// Notes a finding.
    fn found(&mut self, at: Place, mend: Mend, what: impl Into<String>) {
        self.report.count += 1;
        if self.report.findings.len() < KEPT {
            self.report.findings.push(Finding { at, what: what.into(), mend });
        }
    }

    fn bad_inode(&mut self, ino: Ino, what: impl Into<String>) {
        self.found(Place::Inode(ino), Mend::No, what);
    }

    /// Turns damage into a finding; other errors end the check.
    fn note<T>(&mut self, result: Result<T>, mend: Mend) -> Result<Option<T>> {
        match result {
            Ok(value) => Ok(Some(value)),
            Err(Error::Corrupt { what, at }) => {
                self.found(at, mend, what);
                Ok(None)
            }
            Err(error) => Err(error),
        }
    }

    /// A block's contents, with a finding if its checksum is wrong.
    fn read_checked(&mut self, block: u64, kind: Kind, mend: Mend) -> Result<crate::cache::Block> {
        let data = self.fs.block(block, Kind::Plain)?;
        let verified = self.fs.verify(block, kind, &data);
        self.note(verified, mend)?;
        Ok(data)
    }
}
