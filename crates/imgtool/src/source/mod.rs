//! Where a tree comes from: a host directory or archives.

mod compress;
mod directory;
mod image;
mod manifest;
mod oci;
mod tar;

pub(crate) use compress::{ArchiveFile, open_archive};
pub(crate) use directory::{read_directory, read_node};
pub(crate) use image::ImageSource;
pub(crate) use manifest::read_manifest;
pub(crate) use oci::read_oci_layer;
pub(crate) use tar::read_tar;
