//! Filling a fresh file system in one pass.
//!
//! Who knows all names beforehand need not insert them one by one: inodes and blocks are handed out one after the
//! other, directories are composed in memory with their entries sorted by hash, and every block of metadata is
//! written once. Contents are the caller's to write, to where [`Bulk::file`] says.

mod directory;

use crate::bitmap;
use crate::device::BlockDevice;
use crate::error::{Error, Result};
use crate::features::RoCompat;
use crate::fs::Fs;
use crate::inode::{FL_EXTENTS, FL_USER, I_BLOCK_LEN, Inode, Time};
use crate::le::put_bytes;
use crate::map::MAX_FILE_BLOCKS;
use crate::map::extent::{Extent, MAX_LEN, max_entries, write_extent};
use crate::namei::LINK_MAX;
use crate::types::{FileType, Ino, NewInode, ROOT_INO, Timestamp};
use alloc::vec::Vec;

pub use directory::BulkEntry;

/// Blocks taken at once for contents, and for directories: so far apart do the two lie.
const DATA_WINDOW: u32 = 8192;
const META_WINDOW: u32 = 128;
/// Bytes of metadata that continue each other are written together, up to so many.
const GATHERED: usize = 256 * 1024;

/// Attributes of a file.
#[derive(Debug, Clone, Copy)]
pub struct BulkInode {
    /// Type, mode, owner and device number, and the modification time.
    pub new: NewInode,
    /// Names that lead to it; a directory's are counted from its entries instead.
    pub links: u16,
    /// Time of the last access.
    pub atime: Timestamp,
    /// Time of the last change of the inode.
    pub ctime: Timestamp,
    /// Time of creation.
    pub crtime: Timestamp,
    /// Inode flags (`chattr(1)`); those that are not a user's to set are left out.
    pub flags: u32,
}

/// Where a part of a file's contents goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BulkExtent {
    /// Offset in the file, in bytes; a multiple of the block size.
    pub offset: u64,
    /// Offset on the device, in bytes.
    pub device: u64,
    /// Bytes, whole blocks.
    pub len: u64,
}

/// Blocks that are marked as used and handed out piece by piece.
#[derive(Debug, Clone, Copy)]
struct Window {
    next: u64,
    end: u64,
    step: u32,
}

/// Which of the two.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Purpose {
    Data,
    Meta,
}

/// Metadata on its way to the device.
#[derive(Debug, Default)]
struct Gather {
    /// Its place, in bytes.
    at: u64,
    bytes: Vec<u8>,
}

/// The inodes being handed out: a free run of one group.
#[derive(Debug, Clone, Copy, Default)]
struct InodeRun {
    group: u32,
    /// First bit of the run that was taken, the next free one, and the end.
    first: u32,
    next: u32,
    end: u32,
    dirs: u32,
}

/// A fresh file system being filled; see [`Fs::bulk`].
///
/// First every file gets its number by [`Bulk::reserve`]; then all are written, best in the order of their numbers.
/// After an error the file system is not usable.
pub struct Bulk<'a, D: BlockDevice> {
    fs: &'a mut Fs<D>,
    run: InodeRun,
    data: Window,
    meta: Window,
    /// The inode table's blocks being composed: number of the block, contents.
    table: (u64, Vec<u8>),
    /// The highest number written.
    last: Ino,
    tables: Gather,
    directories: Gather,
    scratch: directory::Scratch,
}

impl<D: BlockDevice> core::fmt::Debug for Bulk<'_, D> {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("Bulk").field("fs", &self.fs).field("run", &self.run).finish_non_exhaustive()
    }
}

impl Gather {
    fn add<D: BlockDevice>(&mut self, dev: &D, at: u64, bytes: &[u8]) -> Result<()> {
        if at != self.at + self.bytes.len() as u64 || self.bytes.len() + bytes.len() > GATHERED {
            self.flush(dev)?;
            self.at = at;
        }
        self.bytes.extend_from_slice(bytes);
        Ok(())
    }

    fn flush<D: BlockDevice>(&mut self, dev: &D) -> Result<()> {
        if !self.bytes.is_empty() {
            dev.write_at(self.at, &self.bytes)?;
            self.bytes.clear();
        }
        Ok(())
    }
}

impl<D: BlockDevice> Fs<D> {
    /// Begins to fill a file system as [`crate::mkfs::format`] left it, on a device whose free blocks are zeros, mounted
    /// without its journal. The root's entries are to be written with all others; `keep_lost_found` says whether the `lost+found`
    /// of mkfs is to stay among them.
    ///
    /// # Errors
    /// [`Error::Invalid`] if it is mounted with a journal or read-only, [`Error::NotEmpty`] if it has files,
    /// [`Error::Corrupt`], [`Error::Io`].
    pub fn bulk(&mut self, keep_lost_found: bool) -> Result<Bulk<'_, D>> {
        if self.read_only || self.journal.is_some() {
            return Err(Error::Invalid("a file system is filled while it is mounted writable, without a journal"));
        }
        let mut root = self.dir_inode(ROOT_INO)?;
        if let Some(found) = self.find_entry(&root, b"lost+found")? {
            let lost = self.dir_inode(found.ino)?;
            if !self.dir_is_empty(&lost)? {
                return Err(Error::NotEmpty);
            }
            if !keep_lost_found {
                self.blank(&lost)?;
                let now = root.time(Time::Modify);
                let gone = self.rmdir(ROOT_INO, b"lost+found", now)?;
                self.release(gone.ino)?;
                root = self.dir_inode(ROOT_INO)?;
            } else {
                self.remove_entry(&mut root, found)?;
            }
        }
        if !self.dir_is_empty(&root)? {
            return Err(Error::NotEmpty);
        }
        // The root gets new blocks with the others.
        self.blank(&root)?;
        self.remove_range(&mut root, 0, 1 << 32)?;
        root.set_size(0);
        self.put_inode(&mut root, true)?;
        self.commit()?;
        self.drop_clean();
        let window = |step| Window { next: 0, end: 0, step };
        Ok(Bulk {
            fs: self,
            run: InodeRun::default(),
            data: window(DATA_WINDOW),
            meta: window(META_WINDOW),
            table: (0, Vec::new()),
            last: 0,
            tables: Gather::default(),
            directories: Gather::default(),
            scratch: directory::Scratch::default(),
        })
    }

    /// Writes zeros over a directory's blocks, which will be freed: free blocks are zeros here.
    fn blank(&mut self, dir: &Inode) -> Result<()> {
        let zeros = self.zero_block();
        for lblk in 0..self.dir_blocks(dir)? {
            if let Some(block) = self.map_block(dir, lblk)? {
                self.dev.write_at(self.offset_of(block), &zeros)?;
            }
        }
        Ok(())
    }
}

impl<D: BlockDevice> Bulk<'_, D> {
    /// The device.
    pub fn device(&self) -> &D {
        &self.fs.dev
    }

    /// The number for one more file.
    ///
    /// # Errors
    /// [`Error::NoSpace`] when all are taken.
    pub fn reserve(&mut self, is_directory: bool) -> Result<Ino> {
        while self.run.next >= self.run.end {
            self.next_run()?;
        }
        let run = &mut self.run;
        let ino = run.group * self.fs.sb.inodes_per_group + run.next + 1;
        run.next += 1;
        run.dirs += u32::from(is_directory);
        Ok(ino)
    }

    /// Goes on to the next run of free inodes.
    fn next_run(&mut self) -> Result<()> {
        self.close_run()?;
        let fs = &mut *self.fs;
        let (mut group, mut from) = (self.run.group, self.run.end);
        loop {
            if group >= fs.sb.group_count() {
                return Err(Error::NoSpace);
            }
            let per = fs.sb.inodes_per_group;
            if group == 0 {
                from = from.max(fs.sb.first_ino - 1);
            }
            let map = fs.inode_bitmap(group)?;
            let first = bitmap::find(&map, None, from, per, false);
            if first < per {
                let end = bitmap::find(&map, None, first, per, true);
                self.run = InodeRun { group, first, next: first, end, dirs: 0 };
                return Ok(());
            }
            (group, from) = (group + 1, 0);
        }
    }

    /// Enters the inodes taken from the run into the group's bitmap and counts.
    fn close_run(&mut self) -> Result<()> {
        let InodeRun { group, first, next, dirs, .. } = self.run;
        if next <= first {
            return Ok(());
        }
        let fs = &mut *self.fs;
        let (count, has_csum, per) = (next - first, fs.sb.has_group_csum(), fs.sb.inodes_per_group);
        bitmap::fill(fs.inode_bitmap_mut(group)?, first, count, true);
        fs.init_block_bitmap(group)?;
        let g = fs.group_mut(group)?;
        g.free_inodes = g.free_inodes.checked_sub(count).ok_or(Error::NoSpace)?;
        g.used_dirs += dirs;
        g.inode_hint = g.inode_hint.max(next);
        if has_csum {
            g.itable_unused = g.itable_unused.min(per - next);
        }
        fs.sb.free_inodes = fs.sb.free_inodes.saturating_sub(count);
        fs.cache.txn.super_dirty = true;
        self.run.first = next;
        Ok(())
    }

    /// Up to `want` blocks in one run.
    fn take(&mut self, purpose: Purpose, want: u32) -> Result<(u64, u32)> {
        let (window, other) = match purpose {
            Purpose::Data => (&mut self.data, &mut self.meta),
            Purpose::Meta => (&mut self.meta, &mut self.data),
        };
        if window.next == window.end {
            let (start, len) = match self.fs.alloc_blocks(window.end, window.step.max(want)) {
                Err(Error::NoSpace) => {
                    // The last free blocks may be the other's.
                    give_back(self.fs, other)?;
                    (window.step, other.step) = (1, 1);
                    self.fs.alloc_blocks(window.end, want)?
                }
                other => other?,
            };
            (window.next, window.end) = (start, start + u64::from(len));
        }
        let len = (window.end - window.next).min(u64::from(want)) as u32;
        let start = window.next;
        window.next += u64::from(len);
        Ok((start, len))
    }

    /// Maps file blocks `lblk..lblk + len` to fresh ones, in as few extents as can be.
    fn fill(&mut self, purpose: Purpose, runs: &mut Vec<Extent>, mut lblk: u32, mut len: u32) -> Result<()> {
        while len > 0 {
            let (start, n) = self.take(purpose, len.min(MAX_LEN))?;
            match runs.last_mut() {
                Some(last)
                    if last.start + u64::from(last.len) == start
                        && last.end() == u64::from(lblk)
                        && last.len + n <= MAX_LEN =>
                {
                    last.len += n;
                }
                _ => runs.push(Extent { lblk, len: n, start, unwritten: false }),
            }
            (lblk, len) = (lblk + n, len - n);
        }
        Ok(())
    }

    /// Gives an inode these blocks.
    fn map(&mut self, inode: &mut Inode, runs: &[Extent]) -> Result<()> {
        let fs = &mut *self.fs;
        fs.init_map(inode);
        let extents = inode.has(FL_EXTENTS);
        let root_holds = extents && runs.len() <= max_entries(inode.i_block());
        for (i, run) in runs.iter().enumerate() {
            if root_holds {
                write_extent(inode.i_block_mut(), i, run);
                crate::le::put16(inode.i_block_mut(), 2, i as u16 + 1);
            } else if extents {
                fs.insert_extent(inode, *run)?;
            } else {
                fs.set_pointers(inode, run.lblk, run.start, run.len)?;
            }
            fs.add_blocks(inode, i64::from(run.len))?;
        }
        if fs.txn_is_large() {
            fs.commit()?;
        }
        Ok(())
    }

    /// The inode as it starts.
    fn start(&self, ino: Ino, attr: &BulkInode) -> Inode {
        let mut inode = self.fs.fresh_inode(ino, None, &attr.new);
        inode.set_time(Time::Access, attr.atime);
        inode.set_time(Time::Change, attr.ctime);
        inode.set_time(Time::Create, attr.crtime);
        inode.set_flags(inode.flags() | attr.flags & FL_USER);
        inode.set_nlink(attr.links);
        inode
    }

    /// Puts an inode into its table.
    fn put(&mut self, mut inode: Inode) -> Result<()> {
        let (block, off, _) = self.fs.inode_place(inode.ino)?;
        if self.table.0 != block {
            self.put_table()?;
            let mut bytes = core::mem::take(&mut self.table.1);
            bytes.clear();
            bytes.resize(self.fs.bs, 0);
            // mkfs wrote the first ones; all others that come in order are zeros.
            let with_first = self.fs.sb.first_ino + self.fs.bs as u32 / u32::from(self.fs.sb.inode_size);
            if inode.ino <= with_first || inode.ino < self.last {
                self.tables.flush(&self.fs.dev)?;
                self.fs.dev.read_at(self.fs.offset_of(block), &mut bytes)?;
            }
            self.table = (block, bytes);
        }
        self.last = self.last.max(inode.ino);
        self.fs.seal_inode(&mut inode);
        put_bytes(&mut self.table.1, off, &inode.raw);
        Ok(())
    }

    fn put_table(&mut self) -> Result<()> {
        let (block, bytes) = &self.table;
        if *block != 0 {
            self.tables.add(&self.fs.dev, self.fs.offset_of(*block), bytes)?;
        }
        Ok(())
    }

    /// Writes a regular file's inode. `data` are the parts of its `size` bytes that are no holes: offset and length,
    /// in order. Where they go is added to `placed`, in whole blocks; what the caller does not write there stays zero.
    ///
    /// # Errors
    /// [`Error::NoSpace`], [`Error::TooBig`], [`Error::Io`].
    pub fn file(
        &mut self,
        ino: Ino,
        attr: &BulkInode,
        size: u64,
        data: impl Iterator<Item = (u64, u64)>,
        placed: &mut Vec<BulkExtent>,
    ) -> Result<()> {
        let mut inode = self.start(ino, attr);
        let bs = self.fs.bs as u64;
        self.fs.init_map(&mut inode);
        if size > self.fs.max_size(&inode) {
            return Err(Error::TooBig);
        }
        let mut runs = core::mem::take(&mut self.scratch.runs);
        runs.clear();
        let mut next = 0;
        for (offset, len) in data.filter(|(_, len)| *len > 0) {
            // A block may hold the end of one part and the beginning of the next.
            let first = (offset / bs).max(next);
            let end = (offset + len).div_ceil(bs).min(MAX_FILE_BLOCKS);
            if first < end {
                self.fill(Purpose::Data, &mut runs, first as u32, (end - first) as u32)?;
                next = end;
            }
        }
        inode.set_size(size);
        self.fs.note_size(size);
        self.map(&mut inode, &runs)?;
        placed.extend(runs.iter().map(|run| BulkExtent {
            offset: u64::from(run.lblk) * bs,
            device: run.start * bs,
            len: u64::from(run.len) * bs,
        }));
        self.scratch.runs = runs;
        self.put(inode)
    }

    /// Writes a symbolic link's inode, and its target where the inode does not hold that.
    ///
    /// # Errors
    /// As [`Fs::symlink`].
    pub fn symlink(&mut self, ino: Ino, attr: &BulkInode, target: &[u8]) -> Result<()> {
        if target.is_empty() {
            return Err(Error::NotFound);
        }
        if target.len() >= self.fs.bs {
            return Err(Error::NameTooLong);
        }
        let mut inode = self.start(ino, attr);
        inode.set_size(target.len() as u64);
        if target.len() < I_BLOCK_LEN {
            put_bytes(inode.i_block_mut(), 0, target);
        } else {
            let mut runs = Vec::new();
            self.fill(Purpose::Meta, &mut runs, 0, 1)?;
            self.map(&mut inode, &runs)?;
            let mut block = alloc::vec![0; self.fs.bs];
            put_bytes(&mut block, 0, target);
            for run in &runs {
                self.directories.add(&self.fs.dev, self.fs.offset_of(run.start), &block)?;
            }
        }
        self.put(inode)
    }

    /// Writes the inode of a device node, a named pipe or a socket.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub fn special(&mut self, ino: Ino, attr: &BulkInode) -> Result<()> {
        let inode = self.start(ino, attr);
        self.put(inode)
    }

    /// Writes a directory, whose entries are all given but for `.` and `..`, in any order, each name once.
    ///
    /// # Errors
    /// [`Error::NoSpace`], [`Error::TooManyLinks`], [`Error::Io`]; as [`Fs::create`] for a name that cannot be.
    pub fn directory(&mut self, ino: Ino, attr: &BulkInode, parent: Ino, entries: &[BulkEntry<'_>]) -> Result<()> {
        let mut inode = self.start(ino, attr);
        let mut scratch = core::mem::take(&mut self.scratch);
        let indexed = self.fs.compose_directory(&inode, parent, entries, &mut scratch)?;
        let blocks = u32::try_from(scratch.bytes.len() / self.fs.bs).map_err(|_| Error::NoSpace)?;
        let links = 2 + entries.iter().filter(|e| e.file_type == FileType::Directory).count();
        let many = self.fs.sb.features.ro_compat.contains(RoCompat::DIR_NLINK) && indexed;
        inode.set_nlink(match u16::try_from(links).ok().filter(|n| *n <= LINK_MAX) {
            Some(n) => n,
            None if many => 1,
            None => return Err(Error::TooManyLinks),
        });
        let mut runs = core::mem::take(&mut scratch.runs);
        runs.clear();
        self.fill(Purpose::Meta, &mut runs, 0, blocks)?;
        self.map(&mut inode, &runs)?;
        if indexed {
            inode.set_flags(inode.flags() | crate::inode::FL_INDEX);
        }
        inode.set_size(scratch.bytes.len() as u64);
        self.fs.note_size(inode.size());
        let mut rest = &scratch.bytes[..];
        for run in &runs {
            let (now, later) = rest.split_at((run.len as usize * self.fs.bs).min(rest.len()));
            self.directories.add(&self.fs.dev, self.fs.offset_of(run.start), now)?;
            rest = later;
        }
        scratch.runs = runs;
        self.scratch = scratch;
        self.put(inode)
    }

    /// Writes what is left. The file system is as any other then, to be changed further or unmounted.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub fn finish(mut self) -> Result<()> {
        self.put_table()?;
        self.tables.flush(&self.fs.dev)?;
        self.directories.flush(&self.fs.dev)?;
        self.close_run()?;
        for mut window in [self.data, self.meta] {
            give_back(self.fs, &mut window)?;
        }
        self.fs.commit()?;
        // Inode tables and directories were written around the cache.
        self.fs.drop_clean();
        Ok(())
    }
}

/// Frees what is left of a window.
fn give_back<D: BlockDevice>(fs: &mut Fs<D>, window: &mut Window) -> Result<()> {
    if window.next < window.end {
        fs.free_blocks(window.next, window.end - window.next, false)?;
    }
    window.end = window.next;
    Ok(())
}
