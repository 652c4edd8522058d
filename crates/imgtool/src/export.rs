//! `image export tar`: an image's files as a tar archive (POSIX pax, extended attributes as GNU tar and libarchive
//! store them).

use std::collections::HashMap;
use std::ffi::OsStr;
use std::io::{self, Read, Write};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use ext4::{Attr, BlockDevice, FileType, Fs, Ino};

use crate::image::Image;
use crate::output::Output;
use crate::{Copied, Error, ReadError};

/// Lets `export` write the archive `output`, compressed as its name says.
///
/// # Errors
/// What `export` returns; the file is there already and not to be replaced, or cannot be written.
pub(crate) fn to_file(
    output: &Path,
    replace: bool,
    export: &mut dyn FnMut(&mut dyn Write) -> Result<Copied, ReadError>,
) -> Result<Copied, Error> {
    let file = Output::create(output, replace)?;
    let failed = |error: io::Error| Error::io("write", output, &error);
    let told = |error: ReadError| match error {
        ReadError::Image(error) => error,
        ReadError::Output(error) => failed(error),
    };
    let mut plain = io::BufWriter::with_capacity(1 << 18, file.file());
    let name = output.as_os_str().as_bytes();
    let done = if name.ends_with(b"gz") {
        let mut out = flate2::write::GzEncoder::new(&mut plain, flate2::Compression::default());
        let done = export(&mut out).map_err(told)?;
        out.finish().map_err(failed)?;
        done
    } else if name.ends_with(b"xz") {
        let mut out = liblzma::write::XzEncoder::new(&mut plain, 6);
        let done = export(&mut out).map_err(told)?;
        out.finish().map_err(failed)?;
        done
    } else if name.ends_with(b"zst") {
        let mut out = zstd::Encoder::new(&mut plain, 0).map_err(failed)?;
        let done = export(&mut out).map_err(told)?;
        out.finish().map_err(failed)?;
        done
    } else if name.ends_with(b"bz2") {
        let mut out = bzip2::write::BzEncoder::new(&mut plain, bzip2::Compression::default());
        let done = export(&mut out).map_err(told)?;
        out.finish().map_err(failed)?;
        done
    } else {
        export(&mut plain).map_err(told)?
    };
    plain.flush().map_err(failed)?;
    drop(plain);
    file.publish()?;
    Ok(done)
}

impl<D: BlockDevice> Image<D> {
    /// Writes the archive to the file `output`, compressed as its name says; it appears when it is whole.
    ///
    /// # Errors
    /// As [`Image::export_tar`]; the file is there already and not to be replaced.
    pub fn export_tar_to(&mut self, path: &[u8], output: &Path, replace: bool) -> Result<Copied, Error> {
        to_file(output, replace, &mut |out| self.export_tar(path, out))
    }

    /// Writes the directory at `path`, and all below it, to `out`. Names in the archive are relative to `path`;
    /// sockets have no place in an archive and are counted as skipped.
    ///
    /// # Errors
    /// The image cannot be read; `out` fails.
    pub fn export_tar(&mut self, path: &[u8], out: &mut dyn Write) -> Result<Copied, ReadError> {
        let mut archive = tar::Builder::new(out);
        archive.mode(tar::HeaderMode::Complete);
        let mut done = Copied::default();
        let mut linked: HashMap<Ino, Vec<u8>> = HashMap::new();
        let mut output = None;
        let base = path.strip_suffix(b"/").unwrap_or(path).len();
        let walked = self.walk(path, true, false, &mut |image, here| {
            let below = here.path.get(base..).unwrap_or_default();
            let below = below.strip_prefix(b"/").unwrap_or(below);
            // e2fsck's own directory is no part of the system.
            if below == b"lost+found" && path.iter().all(|byte| *byte == b'/') {
                return Ok(());
            }
            let attr = image.fs.attr(here.ino).map_err(|error| image.failed(&here.path, error))?;
            if attr.file_type == FileType::Socket {
                done.skipped += 1;
                return Ok(());
            }
            done.files += 1;
            done.bytes += if attr.file_type == FileType::Regular { attr.size } else { 0 };
            let name = if below.is_empty() { &b"."[..] } else { below };
            let first = if attr.nlink > 1 && attr.file_type != FileType::Directory {
                linked.get(&here.ino).cloned()
            } else {
                None
            };
            if attr.nlink > 1 {
                linked.entry(here.ino).or_insert_with(|| name.to_vec());
            }
            let mut member = Member { fs: &mut image.fs, attr: &attr, failure: None };
            match member.append(&mut archive, name, first.as_deref()) {
                Ok(()) => Ok(()),
                Err(error) => Err(match member.failure.take() {
                    Some(failure) => image.failed(&here.path, failure),
                    None => {
                        let text = Error::new(format_args!("cannot write the archive: {error}"));
                        output = Some(error);
                        text
                    }
                }),
            }
        });
        match (walked, output) {
            (_, Some(error)) => Err(ReadError::Output(error)),
            (Err(error), None) => Err(ReadError::Image(error)),
            (Ok(()), None) => archive.finish().map_err(ReadError::Output).map(|()| done),
        }
    }
}

/// A file on its way into the archive.
struct Member<'a, D: BlockDevice> {
    fs: &'a mut Fs<D>,
    attr: &'a Attr,
    /// What the image said, where that and not the output failed.
    failure: Option<ext4::Error>,
}

impl<D: BlockDevice> Member<'_, D> {
    fn note<T>(&mut self, result: Result<T, ext4::Error>) -> io::Result<T> {
        result.map_err(|error| {
            self.failure = Some(error);
            io::Error::other("the image cannot be read")
        })
    }

    fn append<W: Write>(&mut self, archive: &mut tar::Builder<W>, name: &[u8], first: Option<&[u8]>) -> io::Result<()> {
        let attr = self.attr;
        let mut header = tar::Header::new_gnu();
        header.set_mode(attr.mode.into());
        header.set_uid(attr.uid.into());
        header.set_gid(attr.gid.into());
        header.set_mtime(attr.mtime.sec.max(0).cast_unsigned());
        header.set_size(0);
        let path = Path::new(OsStr::from_bytes(name));
        if let Some(first) = first {
            header.set_entry_type(tar::EntryType::Link);
            return archive.append_link(&mut header, path, Path::new(OsStr::from_bytes(first)));
        }
        self.pax(archive)?;
        match attr.file_type {
            FileType::Regular => {
                header.set_entry_type(tar::EntryType::Regular);
                header.set_size(attr.size);
                let reader = Contents { member: self, at: 0 };
                archive.append_data(&mut header, path, reader)
            }
            FileType::Symlink => {
                header.set_entry_type(tar::EntryType::Symlink);
                let target = self.fs.read_link(attr.ino);
                let target = self.note(target)?;
                archive.append_link(&mut header, path, Path::new(OsStr::from_bytes(&target)))
            }
            FileType::Directory => {
                header.set_entry_type(tar::EntryType::Directory);
                archive.append_data(&mut header, path, io::empty())
            }
            FileType::CharDevice | FileType::BlockDevice => {
                let block = attr.file_type == FileType::BlockDevice;
                header.set_entry_type(if block { tar::EntryType::Block } else { tar::EntryType::Char });
                header.set_device_major(attr.rdev.0)?;
                header.set_device_minor(attr.rdev.1)?;
                archive.append_data(&mut header, path, io::empty())
            }
            FileType::Fifo | FileType::Socket => {
                header.set_entry_type(tar::EntryType::Fifo);
                archive.append_data(&mut header, path, io::empty())
            }
        }
    }

    /// What the header has no room for: fractions of seconds, times before 1970, extended attributes.
    fn pax<W: Write>(&mut self, archive: &mut tar::Builder<W>) -> io::Result<()> {
        let attr = self.attr;
        let mut records: Vec<(String, Vec<u8>)> = Vec::new();
        let time = attr.mtime;
        if time.nsec != 0 || time.sec < 0 {
            // A negative time's fraction counts down: -1.5 is two seconds before and half a second after.
            let text = match (time.sec, time.nsec) {
                (sec, 0) => sec.to_string(),
                (sec, nsec) if sec < 0 => {
                    let whole = -(sec + 1);
                    format!("-{whole}.{:09}", 1_000_000_000 - nsec)
                }
                (sec, nsec) => format!("{sec}.{nsec:09}"),
            };
            records.push(("mtime".to_owned(), text.into_bytes()));
        }
        let keys = self.fs.xattr_list(attr.ino);
        for key in self.note(keys)? {
            let value = self.fs.xattr_get(attr.ino, &key);
            let value = self.note(value)?;
            records.push((format!("SCHILY.xattr.{}", String::from_utf8_lossy(&key)), value));
        }
        if records.is_empty() {
            return Ok(());
        }
        archive.append_pax_extensions(records.iter().map(|(key, value)| (key.as_str(), value.as_slice())))
    }
}

/// A regular file's bytes.
struct Contents<'m, 'a, D: BlockDevice> {
    member: &'m mut Member<'a, D>,
    at: u64,
}

impl<D: BlockDevice> Read for Contents<'_, '_, D> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let ino = self.member.attr.ino;
        let count = self.member.fs.read(ino, self.at, buffer);
        let count = self.member.note(count)?;
        self.at += count as u64;
        Ok(count)
    }
}
