//! `image resize`: an image grows or shrinks by being written anew. That takes a second where e2fsck and resize2fs
//! take several, leaves the files packed, and a power cut finds either the old image or the new one.

use std::fs::File;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use ext4::{Compat, Incompat, mkfs};

use crate::create::{Created, Kind, Options, Size, Snapshot, create};
use crate::{Error, Image, backing, identify};

/// Features of the running system or of single files, or that mkfs here does not make; files lose nothing by it.
const DROPPED: [&str; 6] =
    ["needs_recovery", "orphan_file", "orphan_present", "inline_data", "sparse_super2", "meta_bg"];

/// Gives the image at `path` another size. Files keep everything but their inode numbers; label, UUID, features, block
/// and inode size stay.
///
/// # Errors
/// A machine runs from the image; it is damaged; the files do not fit.
pub fn resize(path: &Path, size: Size, report: &mut dyn FnMut(&Snapshot)) -> Result<Created, Error> {
    identify(path)?.require_ext(path)?;
    let locked = File::open(path).map_err(|error| Error::io("open", path, &error))?;
    backing::lock(&locked, path)?;
    let image = Image::open(path)?;
    let superblock = image.fs.superblock();
    let features = superblock.features;
    let kind = if features.incompat.contains(Incompat::EXTENTS) {
        Kind::Ext4
    } else if features.compat.contains(Compat::HAS_JOURNAL) {
        Kind::Ext3
    } else {
        Kind::Ext2
    };
    let fs_type = match kind {
        Kind::Ext2 => mkfs::FsType::Ext2,
        Kind::Ext3 => mkfs::FsType::Ext3,
        _ => mkfs::FsType::Ext4,
    };
    let names = |text: String| -> Vec<String> { text.split_whitespace().map(str::to_owned).collect() };
    let has: Vec<String> =
        names(features.names()).into_iter().filter(|name| !DROPPED.contains(&name.as_str())).collect();
    let defaults = names(mkfs::Options::new(fs_type).features.names());
    let without = defaults.iter().filter(|name| !has.contains(name)).map(|name| format!("^{name}"));
    let bytes = superblock.blocks_count.saturating_mul(u64::from(superblock.block_size));
    let options = Options {
        overwrite: true,
        kind,
        from: vec![path.to_owned()],
        size,
        label: superblock.label.clone(),
        uuid: Some(superblock.uuid),
        block_size: Some(superblock.block_size),
        inode_size: Some(superblock.inode_size),
        bytes_per_inode: bytes.checked_div(u64::from(superblock.inodes_count)),
        reserved_hundredths: u16::try_from(
            superblock.reserved_blocks.saturating_mul(10_000).div_ceil(superblock.blocks_count.max(1)).min(5000),
        )
        .ok(),
        features: has.iter().cloned().chain(without).collect(),
        ..Options::new(path)
    };
    drop(image);
    let mode = locked.metadata().map_err(|error| Error::io("stat", path, &error))?.permissions().mode();
    let created = create(&options, report)?;
    let permissions = std::fs::Permissions::from_mode(mode);
    std::fs::set_permissions(path, permissions).map_err(|error| Error::io("set the mode of", path, &error))?;
    Ok(created)
}
