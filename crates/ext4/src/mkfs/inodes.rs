//! The inodes that a new file system has: root, `lost+found`, the journal, and the reserve for resizing.

use super::Options;
use super::layout::Layout;
use crate::bitmap;
use crate::cache::Kind;
use crate::device::BlockDevice;
use crate::error::{Error, Result};
use crate::features::Compat;
use crate::fs::Fs;
use crate::inode::{FL_EXTENTS, Inode, Time};
use crate::le::{put_be32, put32};
use crate::map::extent::Extent;
use crate::types::{FileType, NewInode, ROOT_INO};

const BAD_INO: u32 = 1;
const RESIZE_INO: u32 = 7;
const JOURNAL_INO: u32 = 8;
/// `lost+found` is made so large at once, so that e2fsck need not allocate.
const LOST_FOUND_SIZE: u64 = 16384;

pub(super) fn populate<D: BlockDevice>(fs: &mut Fs<D>, l: &Layout, o: &Options) -> Result<()> {
    fs.note_time(o.time);
    fs.operation(|fs| reserve_inodes(fs, o))?;
    let free_before = fs.sb.free_blocks;
    fs.operation(|fs| make_directories(fs, o))?;
    if o.features.compat.contains(Compat::RESIZE_INODE) {
        fs.operation(|fs| make_resize_inode(fs, l, o))?;
    }
    if l.journal > 0 {
        fs.operation(|fs| make_journal(fs, l, o))?;
    }
    if o.features.compat.contains(Compat::ORPHAN_FILE) {
        fs.operation(|fs| make_orphan_file(fs, o))?;
    }
    // mke2fs counts neither the directories nor the blocks that only lead to others.
    let overhead = fs.sb.blocks_count - free_before + u64::from(l.journal);
    fs.sb.overhead_blocks = u32::try_from(overhead).unwrap_or(0);
    fs.cache.txn.super_dirty = true;
    Ok(())
}

/// An inode among the reserved ones.
fn reserved_inode<D: BlockDevice>(fs: &Fs<D>, ino: u32, o: &Options) -> Inode {
    let mut inode = Inode::zeroed(ino, fs.sb.inode_size);
    inode.set_extra_isize(32.min(fs.sb.inode_size.saturating_sub(128)));
    for t in [Time::Access, Time::Change, Time::Modify, Time::Create] {
        inode.set_time(t, o.time);
    }
    inode
}

/// Marks the inodes up to the first for files as used.
fn reserve_inodes<D: BlockDevice>(fs: &mut Fs<D>, o: &Options) -> Result<()> {
    let n = fs.sb.first_ino - 1;
    bitmap::fill(fs.inode_bitmap_mut(0)?, 0, n, true);
    let csum = fs.sb.has_group_csum();
    let g = fs.group_mut(0)?;
    g.free_inodes = g.free_inodes.checked_sub(n).ok_or(Error::NoSpace)?;
    if csum {
        g.itable_unused = g.itable_unused.saturating_sub(n);
    }
    fs.sb.free_inodes -= n;
    fs.cache.txn.super_dirty = true;
    let mut bad = Inode::zeroed(BAD_INO, fs.sb.inode_size);
    for t in [Time::Access, Time::Change, Time::Modify] {
        bad.set_time(t, o.time);
    }
    fs.put_inode(&mut bad, true)
}

fn make_directories<D: BlockDevice>(fs: &mut Fs<D>, o: &Options) -> Result<()> {
    let mut root = reserved_inode(fs, ROOT_INO, o);
    root.set_mode(FileType::Directory.mode_bits() | o.root_mode & 0o7777);
    root.set_uid(o.root_uid);
    root.set_gid(o.root_gid);
    root.set_nlink(3);
    fs.init_map(&mut root);
    fs.init_dir(&mut root, ROOT_INO)?;
    fs.group_mut(0)?.used_dirs += 1;

    let new = NewInode { file_type: FileType::Directory, mode: 0o700, uid: 0, gid: 0, rdev: (0, 0), now: o.time };
    let mut lost = fs.alloc_inode_in(0, &root, &new)?;
    lost.set_nlink(2);
    lost.set_generation(0);
    fs.init_dir(&mut lost, ROOT_INO)?;
    // As many blocks as direct pointers reach, at most.
    let blocks = (LOST_FOUND_SIZE / fs.bs as u64).clamp(1, 12) as u32;
    for _ in 1..blocks {
        fs.grow_dir(&mut lost)?;
    }
    fs.put_inode(&mut lost, true)?;
    let slot = fs.entry_slot(&mut root, b"lost+found")?;
    fs.insert_entry(&mut root, b"lost+found", lost.ino, FileType::Directory, slot)?;
    fs.put_inode(&mut root, true)
}

/// The inode through whose double-indirect block the reserved descriptor blocks hang: each as an indirect block that
/// lists its backups.
fn make_resize_inode<D: BlockDevice>(fs: &mut Fs<D>, l: &Layout, o: &Options) -> Result<()> {
    let mut inode = reserved_inode(fs, RESIZE_INO, o);
    inode.set_mode(FileType::Regular.mode_bits() | 0o600);
    inode.set_nlink(1);
    let per = fs.pointers_per_block() as u64;
    inode.set_size((per * per + per + 12) * fs.bs as u64);
    fs.note_size(inode.size());
    let dind = fs.alloc_meta(&mut inode, fs.inode_goal(1))?;
    fs.block_new(dind, Kind::Plain)?;
    let number = |b: u64| u32::try_from(b).map_err(|_| Error::NoSpace);
    put32(inode.i_block_mut(), 13 * 4, number(dind)?);
    let desc_blocks = fs.sb.desc_blocks();
    let backups: alloc::vec::Vec<u32> = (1..l.groups).filter(|g| fs.sb.group_has_super(*g)).collect();
    for i in 0..l.reserved_gdt {
        let n = desc_blocks + i;
        let block = fs.sb.desc_block(0) + u64::from(n);
        put32(fs.block_mut(dind, Kind::Plain)?, (u64::from(n) % per) as usize * 4, number(block)?);
        let per_group = u64::from(l.blocks_per_group);
        let table = fs.block_new(block, Kind::Plain)?;
        for (slot, g) in backups.iter().enumerate() {
            put32(table, slot * 4, number(block + u64::from(*g) * per_group)?);
        }
        fs.add_blocks(&mut inode, 1 + backups.len() as i64)?;
    }
    fs.put_inode(&mut inode, true)
}

/// The group in the middle of the file system with the most room (`get_midpoint_journal_block` of e2fsprogs).
fn journal_group<D: BlockDevice>(fs: &Fs<D>, l: &Layout) -> u32 {
    let per_flex = fs.sb.groups_per_flex();
    let free = |g: u32| fs.groups.get(g as usize).map_or(0, |g| g.free_blocks);
    let (mut middle, _) = fs.group_of((l.blocks - u64::from(l.first_block)) / 2);
    let start = if per_flex > 1 && middle > per_flex {
        middle = middle / per_flex * per_flex;
        middle = (middle..l.groups).find(|g| free(*g) > 0).unwrap_or(0);
        middle
    } else {
        middle.saturating_sub(1)
    };
    let end = (middle + 1).min(l.groups - 1);
    // The first of those with the most.
    (start..=end).fold(start, |best, g| if free(g) > free(best) { g } else { best })
}

/// The journal, in the middle of the file system, with an empty log.
fn make_journal<D: BlockDevice>(fs: &mut Fs<D>, l: &Layout, o: &Options) -> Result<()> {
    let mut inode = reserved_inode(fs, JOURNAL_INO, o);
    inode.set_mode(FileType::Regular.mode_bits() | 0o600);
    inode.set_nlink(1);
    fs.init_map(&mut inode);
    inode.set_size(u64::from(l.journal) * fs.bs as u64);
    fs.note_size(inode.size());
    let mut goal = fs.sb.group_first_block(journal_group(fs, l));
    let mut at = 0;
    let mut first = None;
    while at < l.journal {
        let (start, len) = fs.alloc_blocks(goal, l.journal - at)?;
        if inode.has(FL_EXTENTS) {
            fs.insert_extent(&mut inode, Extent { lblk: at, len, start, unwritten: false })?;
        } else {
            fs.set_pointers(&mut inode, at, start, len)?;
        }
        fs.add_blocks(&mut inode, i64::from(len))?;
        if !o.device_zeroed {
            let zeros = alloc::vec![0; fs.bs];
            for b in start..start + u64::from(len) {
                fs.dev.write_at(fs.offset_of(b), &zeros)?;
            }
        }
        first.get_or_insert(start);
        goal = start + u64::from(len);
        at += len;
    }
    fs.put_inode(&mut inode, true)?;

    let mut sup = alloc::vec![0; 1024];
    put_be32(&mut sup, 0, 0xC03B_3998);
    put_be32(&mut sup, 4, 4);
    put_be32(&mut sup, 12, l.block_size);
    put_be32(&mut sup, 16, l.journal);
    put_be32(&mut sup, 20, 1);
    put_be32(&mut sup, 24, 1);
    put_be32(&mut sup, 64, 1);
    crate::le::put_bytes(&mut sup, 48, &o.uuid);
    let start = first.ok_or(Error::NoSpace)?;
    fs.dev.write_at(fs.offset_of(start), &sup)?;
    let (block, size) = (inode.i_block().to_vec(), inode.size());
    fs.sb.set_journal(JOURNAL_INO, &block, size);
    fs.cache.txn.super_dirty = true;
    Ok(())
}

/// Blocks of the orphan file (`ext2fs_default_orphan_file_blocks`).
fn orphan_file_blocks(blocks: u64) -> u32 {
    match blocks {
        0..131_072 => 32,
        131_072..2_097_152 => (blocks / 4096) as u32,
        _ => 512,
    }
}

/// The file that newer kernels note orphan inodes in, without entries.
fn make_orphan_file<D: BlockDevice>(fs: &mut Fs<D>, o: &Options) -> Result<()> {
    let root = fs.inode(ROOT_INO)?;
    let new = NewInode { file_type: FileType::Regular, mode: 0o600, uid: 0, gid: 0, rdev: (0, 0), now: o.time };
    let mut inode = fs.alloc_inode_in(0, &root, &new)?;
    inode.set_nlink(1);
    inode.set_generation(0);
    let blocks = orphan_file_blocks(fs.sb.blocks_count);
    inode.set_size(u64::from(blocks) * fs.bs as u64);
    let mut at = 0;
    while at < blocks {
        let (start, len) = fs.fill_hole(&mut inode, at, blocks - at, false)?;
        for block in start..start + u64::from(len) {
            fs.init_orphan_block(&inode, block)?;
        }
        at += len;
    }
    fs.put_inode(&mut inode, true)?;
    fs.sb.set_orphan_file(inode.ino);
    fs.cache.txn.super_dirty = true;
    Ok(())
}
