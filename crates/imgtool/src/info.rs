//! What an image's superblock says, for people and programs.

use ext4::{BlockDevice, Compat, Incompat, RoCompat};
use serde::Serialize;

use crate::Image;
use crate::text::uuid_text;
use crate::time::iso8601;

/// Clean, as `s_state` bit 0.
const STATE_CLEAN: u16 = 1;
/// Errors were found, as `s_state` bit 1.
const STATE_ERRORS: u16 = 2;

/// The facts about an ext image. Sizes are in bytes, times in UTC; a field that the image does not set is `None`.
#[derive(Clone, Debug, Serialize)]
#[non_exhaustive]
pub struct Info {
    /// `ext2`, `ext3` or `ext4`.
    #[serde(rename = "type")]
    pub kind: String,
    /// Volume label.
    pub label: Option<String>,
    /// UUID in its usual form.
    pub uuid: String,
    /// Length of the file or device.
    pub file_size: u64,
    /// Length of the file system.
    pub size: u64,
    /// Bytes free, those reserved for root included.
    pub free: u64,
    /// Bytes reserved for root.
    pub reserved: u64,
    /// Block size in bytes.
    pub block_size: u32,
    /// Bytes that are allocated together (feature `bigalloc`), if these are not a block.
    pub cluster_size: Option<u32>,
    /// All blocks.
    pub blocks: u64,
    /// Free blocks.
    pub blocks_free: u64,
    /// All inodes.
    pub inodes: u32,
    /// Free inodes.
    pub inodes_free: u32,
    /// Inode size in bytes.
    pub inode_size: u16,
    /// Block groups.
    pub groups: u32,
    /// Feature names as e2fsprogs prints them.
    pub features: Vec<String>,
    /// `clean`, `not clean`, with `, errors found` and `, journal needs replay` where so.
    pub state: String,
    /// Bytes of the journal.
    pub journal: Option<u64>,
    /// Whose files and blocks are counted (feature `quota`): `user`, `group`, `project`.
    pub quotas: Vec<String>,
    /// When it was made.
    pub created: Option<String>,
    /// When it was last written.
    pub last_written: Option<String>,
    /// When it was last mounted.
    pub last_mounted: Option<String>,
    /// Where it was last mounted.
    pub last_mounted_on: Option<String>,
    /// Mounts since the last check.
    pub mount_count: u16,
}

impl<D: BlockDevice> Image<D> {
    /// Decodes the superblock.
    pub fn info(&mut self) -> Info {
        // The journal's length is in its inode; one that cannot be read has none to show.
        let journal_ino = self.fs.superblock().journal_ino;
        let journal = match journal_ino {
            0 => None,
            ino => self.fs.attr(ino).ok().map(|attr| attr.size),
        };
        let superblock = self.fs.superblock();
        let features = superblock.features;
        let known4 = Incompat::FILETYPE | Incompat::RECOVER | Incompat::JOURNAL_DEV | Incompat::META_BG;
        let known_ro4 = RoCompat::SPARSE_SUPER | RoCompat::LARGE_FILE | RoCompat::BTREE_DIR;
        let kind = if !(features.incompat - known4).is_empty() || !(features.ro_compat - known_ro4).is_empty() {
            "ext4"
        } else if features.compat.contains(Compat::HAS_JOURNAL) {
            "ext3"
        } else {
            "ext2"
        };
        let mut state = if superblock.state & STATE_CLEAN != 0 { "clean" } else { "not clean" }.to_owned();
        if superblock.state & STATE_ERRORS != 0 {
            state.push_str(", errors found");
        }
        if self.needs_recovery {
            state.push_str(", journal needs replay");
        }
        let block_size = u64::from(superblock.block_size);
        let text = |text: &str| Some(text.to_owned()).filter(|text| !text.is_empty());
        let time = |seconds: u64| i64::try_from(seconds).ok().filter(|seconds| *seconds != 0).map(iso8601);
        Info {
            kind: kind.to_owned(),
            label: text(&superblock.label),
            uuid: uuid_text(&superblock.uuid),
            file_size: self.size(),
            size: superblock.blocks_count.saturating_mul(block_size),
            free: superblock.free_blocks.saturating_mul(block_size),
            reserved: superblock.reserved_blocks.saturating_mul(block_size),
            block_size: superblock.block_size,
            cluster_size: Some(superblock.cluster_size()).filter(|size| *size != superblock.block_size),
            blocks: superblock.blocks_count,
            blocks_free: superblock.free_blocks,
            inodes: superblock.inodes_count,
            inodes_free: superblock.free_inodes,
            inode_size: superblock.inode_size,
            groups: superblock.group_count(),
            features: features.names().split_whitespace().map(str::to_owned).collect(),
            state,
            journal,
            quotas: ["user", "group", "project"]
                .iter()
                .zip(superblock.quota_inodes)
                .filter(|(_, ino)| *ino != 0)
                .map(|(name, _)| (*name).to_owned())
                .collect(),
            created: time(superblock.mkfs_time),
            last_written: time(superblock.write_time),
            last_mounted: time(superblock.mount_time),
            last_mounted_on: text(&superblock.last_mounted),
            mount_count: superblock.mount_count,
        }
    }
}
