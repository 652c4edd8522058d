//! Copying between a FAT image and the host, and archives of what is in one.

use std::ffi::OsStr;
use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::Path;

use ext4::Timestamp;

use super::directory::{ARCHIVE, New, no_space};
use super::image::{CHUNK, FatImage, Node};
use super::{Run, Volume};
use crate::edit::DEEPEST;
use crate::host;
use crate::image::components;
use crate::{Copied, Error, ReadError, join};

/// Why the walk of an export ended early.
enum Stopped {
    Image(Error),
    Archive(io::Error),
}

impl From<Error> for Stopped {
    fn from(error: Error) -> Self {
        Self::Image(error)
    }
}

impl FatImage {
    /// Copies the host's file or, if `recursive`, directory at `from` to `to` in the image, into `to` if that is a
    /// directory. Times are kept, to two seconds; owners and modes FAT has none of. A file that is there is replaced,
    /// a directory that is there is merged with.
    ///
    /// # Errors
    /// `from` cannot be read, or holds what FAT cannot: links, devices, files of 4 GiB, some names; a directory would
    /// replace a file or the other way round; the image is full.
    pub fn copy_in(&mut self, from: &Path, to: &[u8], recursive: bool) -> Result<Copied, Error> {
        let name = from.file_name().map(OsStr::as_bytes).map(<[u8]>::to_vec);
        let metadata = fs::symlink_metadata(from).map_err(|error| Error::io("stat", from, &error))?;
        let contents_only = name.is_none() || from.as_os_str().as_bytes().ends_with(b"/.");
        let mut done = Copied::default();
        if metadata.is_dir() && !recursive {
            return Err(Error::new(format_args!("{} is a directory", from.display()))
                .hint("add -r to copy it with all that is in it"));
        }
        if metadata.is_dir() && contents_only {
            if !self.resolve(to)?.is_directory() {
                return Err(self.failed(to, ext4::Error::NotDirectory));
            }
            self.take_names(from, to, 0, &mut done)?;
            return Ok(done);
        }
        let mut to = to.to_vec();
        if components(&to).is_empty() || self.is_directory(&to) {
            to = join(&to, &name.unwrap_or_default());
        } else if to.ends_with(b"/") {
            return Err(self.failed(&to, "no such directory"));
        }
        self.take(from, &to, 0, &mut done)?;
        Ok(done)
    }

    fn take_names(&mut self, from: &Path, to: &[u8], depth: usize, done: &mut Copied) -> Result<(), Error> {
        if depth > DEEPEST {
            return Err(Error::new(format_args!("{} lies too deep", from.display())));
        }
        host::names(from)?
            .iter()
            .try_for_each(|name| self.take(&from.join(name), &join(to, name.as_bytes()), depth + 1, done))
    }

    fn take(&mut self, from: &Path, to: &[u8], depth: usize, done: &mut Copied) -> Result<(), Error> {
        let metadata = fs::symlink_metadata(from).map_err(|error| Error::io("stat", from, &error))?;
        let time = Timestamp { sec: metadata.mtime(), nsec: u32::try_from(metadata.mtime_nsec()).unwrap_or(0) };
        let old = self.find(to)?;
        done.files += 1;
        if metadata.is_dir() {
            match old {
                Some(old) if !old.is_directory() => {
                    let text = format!("a regular file is in the way of the directory {}", from.display());
                    return Err(self.failed(to, text));
                }
                Some(_) => {}
                None => self.new_directory(to, time).map(drop)?,
            }
            return self.take_names(from, to, depth, done);
        }
        if !metadata.is_file() {
            let what = if metadata.is_symlink() { "symbolic links" } else { "devices, pipes or sockets" };
            return Err(Error::new(format_args!("{}: FAT cannot hold {what}", from.display())).hint("leave it out"));
        }
        let size = u32::try_from(metadata.len())
            .map_err(|_| Error::new(format_args!("{} is larger than 4 GiB, which FAT cannot hold", from.display())))?;
        if let Some(old) = old {
            if old.is_directory() {
                return Err(self.failed(to, format_args!("a directory is in the way of {}", from.display())));
            }
            // Its clusters may be written to again only when it is gone for good.
            self.remove(to, false)?;
        }
        let file = host::open_contents(from)?;
        let (parent, name) = self.parent(to)?;
        self.operation(to, |volume| {
            let runs = volume.allocate(u64::from(size).div_ceil(volume.cluster))?.ok_or_else(no_space)?;
            volume.fill(&runs, &file, from, size.into())?;
            let cluster = runs.first().map_or(0, |run| run.0);
            let new = New { attributes: ARCHIVE, cluster, size, created: time, modified: time };
            volume.add(parent.cluster, &name, &new)
        })?;
        done.bytes += u64::from(size);
        Ok(())
    }

    /// Copies the file or, if `recursive`, directory at `from` in the image to `to` on the host, into `to` if that is
    /// a directory. Nothing outside of `to` is touched whatever the image holds.
    ///
    /// # Errors
    /// `from` is not there; the host refuses; something of another type is in the way.
    pub fn copy_out(&mut self, from: &[u8], to: &Path, recursive: bool) -> Result<Copied, Error> {
        let node = self.resolve(from)?;
        if node.is_directory() && !recursive {
            return Err(self.failed(from, "is a directory").hint("add -r to copy it with all that is in it"));
        }
        let target = match node.entry.as_ref().filter(|_| to.is_dir()) {
            Some(entry) => to.join(&entry.name),
            None => to.to_owned(),
        };
        let mut done = Copied::default();
        self.give(from, &node, &target, 0, &mut done)?;
        Ok(done)
    }

    fn give(&mut self, from: &[u8], node: &Node, to: &Path, depth: usize, done: &mut Copied) -> Result<(), Error> {
        if depth > DEEPEST {
            return Err(self.failed(from, "damaged: the directories are nested without an end"));
        }
        done.files += 1;
        if node.is_directory() {
            host::make_directory(to)?;
            for child in self.below(from, node)? {
                let name = child.name();
                self.give(&join(from, &name), &child, &to.join(OsStr::from_bytes(&name)), depth + 1, done)?;
            }
        } else {
            host::make_way(to)?;
            done.bytes += host::new_file(to, 0o666, |file| {
                self.contents(from, node, &mut |at, bytes| {
                    file.write_all_at(bytes, at).map_err(|error| Error::io("write", to, &error))
                })
            })?;
        }
        let Some(entry) = &node.entry else { return Ok(()) };
        host::set_times(to, entry.accessed, entry.modified)
    }

    /// Writes the directory at `path`, and all below it, to `out` as a tar archive. Names in it are relative to `path`.
    ///
    /// # Errors
    /// The image cannot be read; `out` fails.
    pub fn export_tar(&mut self, path: &[u8], out: &mut dyn Write) -> Result<Copied, ReadError> {
        let mut archive = tar::Builder::new(out);
        archive.mode(tar::HeaderMode::Complete);
        let mut done = Copied::default();
        let base = path.strip_suffix(b"/").unwrap_or(path).len();
        let root = self.resolve(path)?;
        let walked = self.walk(path, &root, 0, &mut |image, path, node| {
            let below = path.get(base..).unwrap_or_default();
            let below = below.strip_prefix(b"/").unwrap_or(below);
            let name = Path::new(OsStr::from_bytes(if below.is_empty() { b"." } else { below }));
            let attr = image.attr(node);
            let mut header = tar::Header::new_gnu();
            header.set_mode(attr.mode.into());
            header.set_uid(0);
            header.set_gid(0);
            header.set_mtime(attr.mtime.sec.max(0).cast_unsigned());
            header.set_size(attr.size);
            done.files += 1;
            done.bytes += attr.size;
            if node.is_directory() {
                header.set_entry_type(tar::EntryType::Directory);
                return archive.append_data(&mut header, name, io::empty()).map_err(Stopped::Archive);
            }
            header.set_entry_type(tar::EntryType::Regular);
            let runs = image.volume.file_chain(node.cluster, attr.size as u32);
            let runs = image.placed(path, runs)?;
            let mut contents = Contents { volume: &image.volume, runs, at: 0, size: attr.size, failure: None };
            let appended = archive.append_data(&mut header, name, &mut contents);
            match (appended, contents.failure) {
                (Ok(()), _) => Ok(()),
                (Err(_), Some(failure)) => image.placed(path, Err(failure)).map_err(Stopped::Image),
                (Err(error), None) => Err(Stopped::Archive(error)),
            }
        });
        match walked {
            Err(Stopped::Image(error)) => Err(ReadError::Image(error)),
            Err(Stopped::Archive(error)) => Err(ReadError::Output(error)),
            Ok(()) => archive.finish().map_err(ReadError::Output).map(|()| done),
        }
    }

    /// Writes the archive to the file `output`, compressed as its name says; it appears when it is whole.
    ///
    /// # Errors
    /// As [`FatImage::export_tar`]; the file is there already and not to be replaced.
    pub fn export_tar_to(&mut self, path: &[u8], output: &Path, replace: bool) -> Result<Copied, Error> {
        crate::export::to_file(output, replace, &mut |out| self.export_tar(path, out))
    }
}

impl Volume {
    /// Copies a host file into clusters; the rest of the last one becomes zeros.
    fn fill(&mut self, runs: &[Run], file: &File, from: &Path, size: u64) -> Result<(), Error> {
        let mut buffer = vec![0; (CHUNK.min(size.next_multiple_of(self.cluster.max(1)))) as usize];
        let mut done = 0;
        for (first, count) in runs {
            let (at, len) = (self.at(*first), u64::from(*count) * self.cluster);
            let mut inside = 0;
            while inside < len {
                let piece = buffer.get_mut(..(len - inside).min(CHUNK) as usize).unwrap_or_default();
                let data = (size - done).min(piece.len() as u64) as usize;
                let (data, rest) = piece.split_at_mut(data);
                file.read_exact_at(data, done).map_err(|error| Error::io("read", from, &error))?;
                rest.fill(0);
                done += data.len() as u64;
                self.write_data(at + inside, piece)?;
                inside += piece.len() as u64;
            }
        }
        Ok(())
    }
}

/// A file's bytes on their way into an archive.
struct Contents<'a> {
    volume: &'a Volume,
    runs: Vec<Run>,
    at: u64,
    size: u64,
    /// What the image said, where that and not the output failed.
    failure: Option<Error>,
}

impl Read for Contents<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let len = (self.size - self.at).min(buffer.len() as u64) as usize;
        let piece = buffer.get_mut(..len).unwrap_or_default();
        if let Err(error) = self.volume.read_runs(&self.runs, self.at, piece) {
            self.failure = Some(error);
            return Err(io::Error::other("the image cannot be read"));
        }
        self.at += len as u64;
        Ok(len)
    }
}
