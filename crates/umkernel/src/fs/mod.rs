//! File systems.

pub mod devpts;
pub mod ext4;
