//! File systems.

pub mod buffer;
pub mod devpts;
pub mod ext4;
pub mod hostfs;
pub mod mqueue;
pub mod proc;
mod pseudo;
mod store;
pub mod sysfs;
pub mod tmpfs;

use crate::vfs::Vfs;

/// Makes the types of file system that are always there known to `mount(2)`.
pub fn register(vfs: &Vfs) {
    ext4::TYPES
        .into_iter()
        .chain(tmpfs::TYPES)
        .chain([devpts::FS_TYPE, mqueue::FS_TYPE, proc::FS_TYPE, sysfs::FS_TYPE])
        .for_each(|t| vfs.register_fs(t));
}
