//! Laying packages over each other: in a directory, as an unprivileged user (the tree that a step finds in `/sysroot`), or in one
//! archive.

use std::collections::BTreeSet;
use std::fs::File;
use std::io::{BufReader, BufWriter, Read, Write};
use std::path::Path;

use tar::EntryType;

use crate::cancel::{UntilCancelled, cancelled};
use crate::error::{Error, Result};

/// Unpacks package archives into `into`. Owners become the user's; device nodes are left out, the sandbox has its own.
///
/// # Errors
/// An archive is damaged, or the disk is full; the user interrupts.
pub(crate) fn compose<'a>(archives: impl IntoIterator<Item = &'a Path>, into: &Path) -> Result<()> {
    for archive in archives {
        let fail =
            |e: std::io::Error| if cancelled() { Error::Interrupted } else { Error::io("unpacking", archive, e) };
        let file = File::open(archive).map_err(fail)?;
        let mut tar = tar::Archive::new(UntilCancelled(BufReader::with_capacity(1 << 17, file)));
        for entry in tar.entries().map_err(fail)? {
            let mut entry = entry.map_err(fail)?;
            if matches!(entry.header().entry_type(), EntryType::Char | EntryType::Block | EntryType::Fifo) {
                continue;
            }
            let inside = entry.unpack_in(into).map_err(fail)?;
            if !inside {
                return Err(fail(std::io::Error::other("a path leads out of the archive")));
            }
        }
    }
    Ok(())
}

/// Writes package archives as one, byte for byte but for directories that come again.
///
/// # Errors
/// An archive is damaged; the file cannot be written. Nothing is left of it then.
pub(crate) fn merge(archives: &[&Path], into: &Path) -> Result<()> {
    let mut name = into.file_name().unwrap_or_default().to_owned();
    name.push(".part");
    let part = into.with_file_name(name);
    let merged = merge_to(archives, &part)
        .and_then(|()| std::fs::rename(&part, into).map_err(|e| Error::io("moving to", into, e)));
    if merged.is_err() {
        // The error that stopped us says more than one about the remains.
        let _ = std::fs::remove_file(&part);
    }
    merged
}

fn merge_to(archives: &[&Path], part: &Path) -> Result<()> {
    let write_error = |e: std::io::Error| Error::io("writing", part, e);
    let mut out = BufWriter::with_capacity(1 << 17, File::create(part).map_err(write_error)?);
    let mut directories = BTreeSet::new();
    for archive in archives {
        let fail = |e: std::io::Error| Error::io("reading", archive, e);
        let mut copy = BufReader::with_capacity(1 << 17, File::open(archive).map_err(fail)?);
        let mut tar = tar::Archive::new(BufReader::with_capacity(1 << 17, File::open(archive).map_err(fail)?));
        let mut done = 0;
        for entry in tar.entries().map_err(fail)? {
            let entry = entry.map_err(fail)?;
            // From the end of the entry before (long names come in headers of their own) to the end of this one, padded.
            let end = entry.raw_file_position() + entry.size().next_multiple_of(512);
            let known = entry.header().entry_type() == EntryType::Directory
                && !directories.insert(entry.path_bytes().into_owned());
            let mut bytes = (&mut copy).take(end - done);
            if known {
                std::io::copy(&mut bytes, &mut std::io::sink()).map_err(fail)?;
            } else {
                std::io::copy(&mut bytes, &mut out).map_err(write_error)?;
            }
            done = end;
        }
    }
    // Two blocks of zeros end an archive.
    out.write_all(&[0; 1024]).and_then(|()| out.flush()).map_err(write_error)
}
