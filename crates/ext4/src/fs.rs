//! A mounted file system.

use crate::cache::{Cache, Kind};
use crate::device::BlockDevice;
use crate::error::{Error, Place, Result};
use crate::features::{Compat, Incompat, RoCompat};
use crate::group::Group;
use crate::journal::Journal;
use crate::le::{bytes_at, put_bytes};
use crate::superblock::{STATE_VALID, SUPER_OFFSET, SUPER_SIZE, Superblock};
use crate::types::{Attr, Ino, MountOptions, NAME_MAX, ROOT_INO, StatFs};
use alloc::string::ToString as _;
use alloc::vec::Vec;
use core::fmt;

/// A mounted ext2, ext3 or ext4 file system.
///
/// Metadata is changed in buffers that form a transaction; [`Fs::sync`], [`Fs::fsync`] and growth commit it to the
/// journal. The contents of regular files are never buffered: reads and writes go to the device at once, and are
/// flushed ahead of the commit that makes them reachable. Dropping an `Fs` without [`Fs::unmount`] is a crash.
pub struct Fs<D: BlockDevice> {
    pub(crate) dev: D,
    pub(crate) sb: Superblock,
    pub(crate) groups: Vec<Group>,
    pub(crate) cache: Cache,
    pub(crate) journal: Option<Journal>,
    pub(crate) options: MountOptions,
    /// Block size.
    pub(crate) bs: usize,
    pub(crate) read_only: bool,
    /// The superblock on the device says that the file system is in use.
    pub(crate) marked_in_use: bool,
    /// The superblock's state when it was mounted: a file system that was not clean does not become so here.
    pub(crate) state_at_mount: u16,
    /// The file system's own blocks, as sorted ranges.
    pub(crate) system_zones: Vec<(u64, u64)>,
    /// Free blocks and inodes that the superblock stated; `None` after a replay, when nobody keeps them up to date.
    pub(crate) stated_free: Option<(u64, u32)>,
}

impl<D: BlockDevice> fmt::Debug for Fs<D> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Fs")
            .field("label", &self.sb.label)
            .field("blocks", &self.sb.blocks_count)
            .field("block_size", &self.bs)
            .field("features", &self.sb.features.names())
            .field("read_only", &self.read_only)
            .finish_non_exhaustive()
    }
}

impl<D: BlockDevice> Fs<D> {
    /// Mounts a device.
    ///
    /// If the journal holds committed transactions they are replayed first (see
    /// [`MountOptions::journal_replay`]), and on a writable mount inodes on the orphan list are freed or truncated. A
    /// read-only mount replays in memory: it shows what is committed and writes nothing.
    ///
    /// # Errors
    /// [`Error::NotExt`], [`Error::Truncated`], [`Error::Unsupported`], [`Error::Corrupt`], each naming what was
    /// found and what was expected; [`Error::Io`].
    pub fn mount(dev: D, options: MountOptions) -> Result<Fs<D>> {
        let sb = Superblock::read(&dev)?;
        if !options.read_only {
            sb.check_writable()?;
        }
        let dirty = sb.features.incompat.contains(Incompat::RECOVER);
        let has_journal = sb.features.compat.contains(Compat::HAS_JOURNAL);
        if dirty && !options.read_only && !(has_journal && options.journal_replay) {
            return Err(Error::Unsupported {
                what: "the journal needs replay (needs_recovery is set)".to_string(),
                read_only_possible: true,
            });
        }
        let mut fs = Fs::open(dev, sb, options)?;
        let mut journal = None;
        if has_journal && (dirty && options.journal_replay || !options.read_only && options.journal) {
            let mut j = fs.load_journal()?;
            if dirty && options.journal_replay {
                fs.replay(&mut j, !options.read_only)?;
                fs.drop_clean();
                if options.read_only {
                    fs.sb = fs.replayed_super()?;
                } else {
                    fs.sb = Superblock::read(&fs.dev)?;
                    fs.sb.check_writable()?;
                }
                fs.read_groups()?;
            }
            journal = Some(j);
        }
        if !dirty {
            fs.stated_free = Some((fs.sb.free_blocks, fs.sb.free_inodes));
        }
        fs.count_free();
        fs.state_at_mount = fs.sb.state;
        fs.check_root()?;
        if !options.read_only {
            fs.journal = journal.filter(|_| options.journal);
            fs.read_only = false;
            fs.process_orphans()?;
        }
        Ok(fs)
    }

    /// Reads the group descriptors; the result is read-only.
    pub(crate) fn open(dev: D, sb: Superblock, options: MountOptions) -> Result<Fs<D>> {
        let bs = sb.block_size as usize;
        let mut fs = Fs {
            dev,
            sb,
            groups: Vec::new(),
            cache: Cache::default(),
            journal: None,
            options,
            bs,
            read_only: true,
            marked_in_use: false,
            state_at_mount: 0,
            system_zones: Vec::new(),
            stated_free: None,
        };
        fs.read_groups()?;
        Ok(fs)
    }

    /// The superblock as a replay that wrote nothing leaves it.
    fn replayed_super(&mut self) -> Result<Superblock> {
        let (block, off) = self.super_place();
        // With blocks of 1024 bytes it has block 1 for itself.
        let data = self.block(block, Kind::Plain)?;
        let mut sb = Superblock::decode(bytes_at(&data, off, SUPER_SIZE).to_vec())?;
        sb.features.incompat.remove(Incompat::RECOVER);
        let size = (sb.block_size, sb.blocks_count, sb.desc_size);
        if size != (self.sb.block_size, self.sb.blocks_count, self.sb.desc_size) {
            return Err(Error::corrupt("the journal holds a superblock of another size", Place::Superblock));
        }
        Ok(sb)
    }

    fn read_groups(&mut self) -> Result<()> {
        let per = self.sb.descs_per_block();
        let size = usize::from(self.sb.desc_size);
        self.groups.clear();
        for group in 0..self.sb.group_count() {
            let block = self.sb.desc_block(group / per);
            let data = self.block(block, Kind::Plain).map_err(|e| match e {
                Error::Corrupt { .. } => {
                    Error::corrupt("the group descriptors lie outside the file system", Place::Group(group))
                }
                e => e,
            })?;
            let desc = bytes_at(&data, (group % per) as usize * size, size);
            self.groups.push(Group::decode(&self.sb, group, desc, self.options.for_check)?);
        }
        self.find_system_zones();
        Ok(())
    }

    /// Counts what is free from the descriptors. Linux brings the superblock's counts up to date at unmount only, so
    /// that they are stale after a replay of its journal.
    fn count_free(&mut self) {
        if self.sb.features.ro_compat.contains(RoCompat::BIGALLOC) {
            // Descriptors count clusters then; such a file system is not written here.
            return;
        }
        let blocks = self.groups.iter().map(|g| u64::from(g.free_blocks)).sum();
        let inodes = self.groups.iter().map(|g| g.free_inodes).fold(0u32, u32::saturating_add);
        if (self.sb.free_blocks, self.sb.free_inodes) != (blocks, inodes) {
            self.sb.free_blocks = blocks;
            self.sb.free_inodes = inodes;
            self.cache.txn.super_dirty = !self.options.read_only;
        }
    }

    fn check_root(&mut self) -> Result<()> {
        match self.inode(ROOT_INO) {
            Ok(root) if root.is_dir() && root.nlink() > 0 => Ok(()),
            Ok(_) | Err(Error::NotFound) => Err(Error::inode(ROOT_INO, "the root is not a directory")),
            Err(e) => Err(e),
        }
    }

    /// The device.
    pub fn device(&self) -> &D {
        &self.dev
    }

    /// The superblock, with current counts.
    pub fn superblock(&self) -> &Superblock {
        &self.sb
    }

    /// Sets the volume label; backup superblocks keep the old one, as after a rename by Linux's ioctl.
    ///
    /// # Errors
    /// [`Error::Invalid`] if it is longer than 16 bytes or holds a zero byte, [`Error::ReadOnly`].
    pub fn set_label(&mut self, label: &str) -> Result<()> {
        if label.len() > 16 || label.contains('\0') {
            return Err(Error::Invalid("the label is longer than 16 bytes, or holds a zero byte"));
        }
        self.operation(|fs| {
            fs.sb.set_label(label);
            fs.cache.txn.super_dirty = true;
            Ok(())
        })
    }

    /// Whether changes are refused.
    pub fn is_read_only(&self) -> bool {
        self.read_only
    }

    /// What `statfs(2)` reports.
    pub fn statfs(&self) -> StatFs {
        let sb = &self.sb;
        let overhead = self.overhead_blocks();
        StatFs {
            block_size: sb.block_size,
            blocks: sb.blocks_count.saturating_sub(overhead),
            blocks_free: sb.free_blocks,
            blocks_avail: sb.free_blocks.saturating_sub(sb.reserved_blocks),
            files: u64::from(sb.inodes_count),
            files_free: u64::from(sb.free_inodes),
            name_max: NAME_MAX as u32,
            uuid: sb.uuid,
            label: sb.label.clone(),
            read_only: self.read_only,
        }
    }

    /// Blocks that the file system takes for itself, as Linux's `ext4_calculate_overhead` counts them.
    fn overhead_blocks(&self) -> u64 {
        let sb = &self.sb;
        if sb.overhead_blocks != 0 {
            return u64::from(sb.overhead_blocks);
        }
        let per_group = u64::from(sb.inode_table_blocks()) + 2;
        let base: u64 = (0..sb.group_count()).map(|g| u64::from(sb.group_base_blocks(g))).sum();
        let journal = self.journal.as_ref().map_or(0, |j| u64::from(j.len()));
        u64::from(sb.first_data_block) + base + per_group * u64::from(sb.group_count()) + journal
    }

    /// An inode's attributes.
    ///
    /// # Errors
    /// [`Error::NotFound`] for a free inode, [`Error::Corrupt`], [`Error::Io`].
    pub fn attr(&mut self, ino: Ino) -> Result<Attr> {
        let inode = self.inode(ino)?;
        self.attr_of(&inode)
    }

    /// The block that holds the superblock, and the offset in it.
    pub(crate) fn super_place(&self) -> (u64, usize) {
        let bs = self.bs as u64;
        (SUPER_OFFSET / bs, (SUPER_OFFSET % bs) as usize)
    }

    /// Puts the superblock into the running transaction.
    pub(crate) fn log_super(&mut self) -> Result<()> {
        let raw = self.sb.encode();
        let (block, off) = self.super_place();
        let buf = self.block_mut(block, Kind::Plain)?;
        put_bytes(buf, off, &raw);
        Ok(())
    }

    /// Writes the superblock in place. Only while no transaction holds changes of it, or to mark the state.
    pub(crate) fn write_super_now(&mut self) -> Result<()> {
        let raw = self.sb.encode();
        let (block, off) = self.super_place();
        self.dev.write_at(SUPER_OFFSET, bytes_at(&raw, 0, SUPER_SIZE))?;
        // A buffer of it must not bring the old state back.
        let buf = self.block(block, Kind::Plain)?;
        let mut copy = buf.to_vec();
        put_bytes(&mut copy, off, &raw);
        self.replace_contents(block, copy.into());
        Ok(())
    }

    /// Marks the file system as in use before the first change: with a journal it needs replay from now on, without
    /// one it is not clean.
    pub(crate) fn mark_in_use(&mut self) -> Result<()> {
        if self.marked_in_use {
            return Ok(());
        }
        let counts = (self.sb.free_blocks, self.sb.free_inodes, self.sb.last_orphan, self.sb.features.ro_compat);
        let on_disk = Superblock::read(&self.dev)?;
        self.sb.free_blocks = on_disk.free_blocks;
        self.sb.free_inodes = on_disk.free_inodes;
        self.sb.last_orphan = on_disk.last_orphan;
        self.sb.features.ro_compat = on_disk.features.ro_compat;
        if self.journal.is_some() {
            self.sb.features.incompat |= Incompat::RECOVER;
        } else {
            self.sb.state &= !STATE_VALID;
        }
        if let Some(now) = self.options.now {
            self.sb.mount_time = now.sec.max(0).cast_unsigned();
            self.sb.write_time = self.sb.mount_time;
            self.sb.mount_count = self.sb.mount_count.saturating_add(1);
        }
        let done = self.write_super_now().and_then(|()| Ok(self.dev.flush()?));
        (self.sb.free_blocks, self.sb.free_inodes, self.sb.last_orphan, self.sb.features.ro_compat) = counts;
        done?;
        self.marked_in_use = true;
        Ok(())
    }

    /// Frees inodes that were not released, commits, writes everything in place, and marks the file system clean. The `Fs` is read-only afterwards.
    ///
    /// # Errors
    /// [`Error::Io`]; the file system is then as after a crash.
    pub fn unmount(&mut self) -> Result<()> {
        if self.read_only {
            return Ok(());
        }
        // Nobody can refer to a nameless inode any more.
        self.process_orphans()?;
        self.commit()?;
        if self.marked_in_use {
            self.checkpoint()?;
            self.close_journal()?;
            self.sb.features.incompat.remove(Incompat::RECOVER);
            self.sb.state |= self.state_at_mount & STATE_VALID;
            self.write_super_now()?;
            self.dev.flush()?;
            self.marked_in_use = false;
        } else {
            self.dev.flush()?;
        }
        self.read_only = true;
        Ok(())
    }
}
