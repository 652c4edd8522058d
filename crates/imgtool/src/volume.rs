//! An image of whatever file system is known here: ext2, ext3, ext4 or FAT.

use std::io::Write;
use std::path::Path;

use ext4::BlockDevice;

use crate::edit::Visitor;
use crate::image::Attribute;
use crate::overlay::Overlay;
use crate::{Contents, Copied, Disk, Entry, Error, FatImage, Image, Owner, ReadError, Target};

/// An image, opened to be looked at ([`Volume::open`]) or changed ([`Volume::open_writable`]).
pub enum Volume<D: BlockDevice = Overlay<Disk>> {
    /// ext2, ext3 or ext4.
    Ext(Box<Image<D>>),
    /// FAT12, FAT16 or FAT32.
    Fat(Box<FatImage>),
}

impl Volume {
    /// Opens an image for reading.
    ///
    /// # Errors
    /// The file is no image of a known kind (says what it is instead), is damaged, or cannot be read.
    pub fn open(target: impl Into<Target>) -> Result<Self, Error> {
        let target = target.into();
        match target.contents()? {
            Contents::Fat(_) => Ok(Self::Fat(Box::new(FatImage::open(&target)?))),
            _ => Ok(Self::Ext(Box::new(Image::open(target)?))),
        }
    }
}

impl Volume<Disk> {
    /// Opens an image to change it. Changes are complete after [`Volume::close`].
    ///
    /// # Errors
    /// As [`Volume::open`]; or a machine is running from it, or it is not writable, or is damaged.
    pub fn open_writable(target: impl Into<Target>) -> Result<Self, Error> {
        let target = target.into();
        match target.contents()? {
            Contents::Fat(_) => Ok(Self::Fat(Box::new(FatImage::open_writable(&target)?))),
            _ => Ok(Self::Ext(Box::new(Image::open_writable(target)?))),
        }
    }

    /// Writes everything in place and marks the file system clean.
    ///
    /// # Errors
    /// The host's.
    pub fn close(self) -> Result<(), Error> {
        match self {
            Self::Ext(image) => image.close(),
            // Each operation on it is complete in itself.
            Self::Fat(_) => Ok(()),
        }
    }
}

impl<D: BlockDevice> Volume<D> {
    /// The image, where only ext will do: `what` says what FAT lacks.
    ///
    /// # Errors
    /// It is FAT.
    pub fn ext(&mut self, what: &str) -> Result<&mut Image<D>, Error> {
        match self {
            Self::Ext(image) => Ok(image),
            Self::Fat(image) => Err(Error::new(format_args!("{} is FAT, which has no {what}", image.path().display()))),
        }
    }

    /// What the inode or entry at `path` says; a last symbolic link is not followed.
    ///
    /// # Errors
    /// As [`Image::stat`].
    pub fn stat(&mut self, path: &[u8]) -> Result<Entry, Error> {
        match self {
            Self::Ext(image) => image.stat(path),
            Self::Fat(image) => image.stat(path),
        }
    }

    /// Names and values of the extended attributes at `path`.
    ///
    /// # Errors
    /// As [`Image::xattrs`].
    pub fn xattrs(&mut self, path: &[u8]) -> Result<Vec<Attribute>, Error> {
        match self {
            Self::Ext(image) => image.xattrs(path),
            Self::Fat(_) => Ok(Vec::new()),
        }
    }

    /// Whether `path` names a directory, perhaps through links.
    pub fn is_directory(&mut self, path: &[u8]) -> bool {
        match self {
            Self::Ext(image) => image.is_directory(path),
            Self::Fat(image) => image.is_directory(path),
        }
    }

    /// The entries of the directory at `path`, sorted by name.
    ///
    /// # Errors
    /// As [`Image::list`].
    pub fn list(&mut self, path: &[u8]) -> Result<Vec<Entry>, Error> {
        match self {
            Self::Ext(image) => image.list(path),
            Self::Fat(image) => image.list(path),
        }
    }

    /// Writes the contents of the regular file at `path` to `out`; returns their length.
    ///
    /// # Errors
    /// As [`Image::read_to`].
    pub fn read_to(&mut self, path: &[u8], out: &mut dyn Write) -> Result<u64, ReadError> {
        match self {
            Self::Ext(image) => image.read_to(path, out),
            Self::Fat(image) => image.read_to(path, out),
        }
    }

    /// Calls `visit` with the path and attributes of the file at `path` and of everything below it.
    ///
    /// # Errors
    /// As [`Image::visit_all`].
    pub fn visit_all(&mut self, path: &[u8], visit: &mut Visitor<'_>) -> Result<(), Error> {
        match self {
            Self::Ext(image) => image.visit_all(path, visit),
            Self::Fat(image) => image.visit_all(path, visit),
        }
    }

    /// Copies out of the image.
    ///
    /// # Errors
    /// As [`Image::copy_out`].
    pub fn copy_out(&mut self, from: &[u8], to: &Path, recursive: bool) -> Result<Copied, Error> {
        match self {
            Self::Ext(image) => image.copy_out(from, to, recursive),
            Self::Fat(image) => image.copy_out(from, to, recursive),
        }
    }

    /// Copies into the image; FAT keeps no owners.
    ///
    /// # Errors
    /// As [`Image::copy_in`].
    pub fn copy_in(&mut self, from: &Path, to: &[u8], recursive: bool, owner: Owner) -> Result<Copied, Error> {
        match self {
            Self::Ext(image) => image.copy_in(from, to, recursive, owner),
            Self::Fat(image) => image.copy_in(from, to, recursive),
        }
    }

    /// Writes a tar archive of the directory at `path` to `out`.
    ///
    /// # Errors
    /// As [`Image::export_tar`].
    pub fn export_tar(&mut self, path: &[u8], out: &mut dyn Write) -> Result<Copied, ReadError> {
        match self {
            Self::Ext(image) => image.export_tar(path, out),
            Self::Fat(image) => image.export_tar(path, out),
        }
    }

    /// Writes the archive to a file that appears when it is whole.
    ///
    /// # Errors
    /// As [`Image::export_tar_to`].
    pub fn export_tar_to(&mut self, path: &[u8], output: &Path, replace: bool) -> Result<Copied, Error> {
        match self {
            Self::Ext(image) => image.export_tar_to(path, output, replace),
            Self::Fat(image) => image.export_tar_to(path, output, replace),
        }
    }

    /// Makes a directory; FAT keeps no mode.
    ///
    /// # Errors
    /// As [`Image::make_directory`].
    pub fn make_directory(&mut self, path: &[u8], mode: u16, parents: bool) -> Result<(), Error> {
        match self {
            Self::Ext(image) => image.make_directory(path, mode, parents),
            Self::Fat(image) => image.make_directory(path, parents),
        }
    }

    /// Removes a file or directory.
    ///
    /// # Errors
    /// As [`Image::remove`].
    pub fn remove(&mut self, path: &[u8], recursive: bool) -> Result<(), Error> {
        match self {
            Self::Ext(image) => image.remove(path, recursive),
            Self::Fat(image) => image.remove(path, recursive),
        }
    }

    /// Renames a file or directory.
    ///
    /// # Errors
    /// As [`Image::rename`].
    pub fn rename(&mut self, from: &[u8], to: &[u8]) -> Result<(), Error> {
        match self {
            Self::Ext(image) => image.rename(from, to),
            Self::Fat(image) => image.rename(from, to),
        }
    }

    /// Sets the volume label.
    ///
    /// # Errors
    /// As [`Image::set_label`]; for FAT, it is longer than 11 bytes.
    pub fn set_label(&mut self, label: &str) -> Result<(), Error> {
        match self {
            Self::Ext(image) => image.set_label(label),
            Self::Fat(image) => image.set_label(label),
        }
    }
}
