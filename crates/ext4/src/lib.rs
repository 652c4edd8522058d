//! The ext2/3/4 file system on disk. See ARCHITECTURE.md.
#![no_std]
extern crate alloc;
