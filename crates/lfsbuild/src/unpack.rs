//! Unpacking source archives, without any program of the host.

use std::fs::File;
use std::io::{BufReader, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};

use crate::cancel::{UntilCancelled, cancelled};
use crate::error::{Error, Result};
use crate::store::remove_tree;

/// Reads a tar file as it is or compressed by gzip, bzip2, xz; told apart by their first bytes.
///
/// # Errors
/// The file cannot be read, or is none of these.
pub(crate) fn reader(path: &Path) -> Result<Box<dyn Read>> {
    let mut file = File::open(path).map_err(|e| Error::io("opening", path, e))?;
    let mut magic = Vec::new();
    (&mut file).take(6).read_to_end(&mut magic).map_err(|e| Error::io("reading", path, e))?;
    file.seek(SeekFrom::Start(0)).map_err(|e| Error::io("reading", path, e))?;
    let file = BufReader::with_capacity(1 << 17, file);
    Ok(match magic.as_slice() {
        [0x1f, 0x8b, ..] => Box::new(flate2::read::MultiGzDecoder::new(file)),
        [b'B', b'Z', b'h', ..] => Box::new(bzip2::read::MultiBzDecoder::new(file)),
        [0xfd, b'7', b'z', b'X', b'Z', 0] => Box::new(liblzma::read::XzDecoder::new_multi_decoder(file)),
        _ => Box::new(file),
    })
}

/// Unpacks an archive so that what lies in its single top directory (or, without one, at its top) comes to lie in `into`,
/// which must not exist; its parent must. Where there is a file `inner` in it, that archive is unpacked in place of it.
///
/// # Errors
/// The archive is damaged or has paths that lead out of it; the disk is full; the user interrupts.
pub(crate) fn unpack(archive: &Path, into: &Path, inner: Option<&str>) -> Result<()> {
    let mut name = into.file_name().unwrap_or_default().to_owned();
    name.push(".unpack");
    let scratch = into.with_file_name(name);
    std::fs::create_dir(&scratch).map_err(|e| Error::io("creating", &scratch, e))?;
    let mut tar = tar::Archive::new(UntilCancelled(reader(archive)?));
    tar.unpack(&scratch).map_err(|e| {
        if cancelled() {
            return Error::Interrupted;
        }
        // The tar crate wraps the system's error in words of its own.
        let mut cause: Option<&(dyn std::error::Error + 'static)> = Some(&e);
        while let Some(inner) = cause {
            if let Some(io) = inner.downcast_ref::<std::io::Error>()
                && io.kind() == std::io::ErrorKind::StorageFull
            {
                return Error::DiskFull { path: scratch.clone() };
            }
            cause = inner.source();
        }
        Error::io("unpacking", archive, e)
    })?;
    let top = single_directory(&scratch)?;
    std::fs::rename(top.as_deref().unwrap_or(&scratch), into).map_err(|e| Error::io("moving to", into, e))?;
    if top.is_some() {
        std::fs::remove_dir(&scratch).map_err(|e| Error::io("removing", &scratch, e))?;
    }
    let Some(inner) = inner.filter(|name| into.join(name).is_file()) else {
        return Ok(());
    };
    let mut name = into.file_name().unwrap_or_default().to_owned();
    name.push(".outer");
    let outer = into.with_file_name(name);
    std::fs::rename(into, &outer).map_err(|e| Error::io("moving to", &outer, e))?;
    unpack(&outer.join(inner), into, None)?;
    remove_tree(&outer)
}

fn single_directory(dir: &Path) -> Result<Option<PathBuf>> {
    let mut only = None;
    for entry in std::fs::read_dir(dir).map_err(|e| Error::io("reading", dir, e))? {
        let entry = entry.map_err(|e| Error::io("reading", dir, e))?;
        let is_dir = entry.file_type().map_err(|e| Error::io("reading", dir, e))?.is_dir();
        if only.is_some() || !is_dir {
            return Ok(None);
        }
        only = Some(entry.path());
    }
    Ok(only)
}
