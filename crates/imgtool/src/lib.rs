//! Disk images without root: make a file system from a directory or archives, look into it, say what a file is.
//!
//! Everything here works on ordinary files through the host's page cache; nothing is mounted and no loop device is
//! needed. The on-disk format itself is the `ext4` crate's.

mod backing;
mod check;
pub mod cow;
mod create;
mod create_fat;
mod dd;
mod derive;
mod device;
mod diff;
mod disk;
mod edit;
mod error;
mod export;
mod fat;
mod fat_mend;
mod feed;
mod host;
mod identify;
mod image;
mod info;
mod map;
mod output;
mod overlay;
mod partition;
mod populate;
mod resize;
mod size;
mod source;
mod swap;
mod table;
mod text;
mod time;
mod transfer;
mod tree;
mod vfat;
mod volume;
mod writer;

pub use backing::Disk;
pub use check::{Checked, check, fsck};
pub use create::{Created, Kind, Options, Owner, Progress, Size, Snapshot, Tuning, create, create_disk};
pub use dd::{Dd, DdDone, dd};
pub use derive::parse_uuid;
pub use device::FileDevice;
pub use diff::{Difference, Reporter, diff};
pub use disk::{Part, make_disk};
pub use edit::{Clause, ModeChange, Visitor};
pub use error::Error;
pub use ext4::{Attr, BlockDevice, FileType, Timestamp};
pub use identify::{Contents, ExtFault, identify};
pub use image::{Attribute, Entry, Image, ReadError, Target, join};
pub use info::Info;
pub use map::Map;
pub use overlay::Overlay;
pub use partition::{Partition, partitions};
pub use resize::resize;
pub use size::{HumanSize, parse_size};
pub use table::Table;
pub use text::glob;
pub use time::{civil, iso8601};
pub use transfer::Copied;
pub use vfat::{FatImage, FatInfo};
pub use volume::Volume;
