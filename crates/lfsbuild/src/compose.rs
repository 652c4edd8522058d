//! Laying packages over each other in a directory, as an unprivileged user: the tree that a step finds in `/sysroot`.

use std::path::Path;

use tar::EntryType;

use crate::error::{Error, Result};

/// Unpacks package archives into `into`. Owners become the user's; device nodes are left out, the sandbox has its own.
///
/// # Errors
/// An archive is damaged, or the disk is full.
pub(crate) fn compose<'a>(archives: impl IntoIterator<Item = &'a Path>, into: &Path) -> Result<()> {
    for archive in archives {
        let fail = |e: std::io::Error| Error::io("unpacking", archive, e);
        let file = std::fs::File::open(archive).map_err(fail)?;
        let mut tar = tar::Archive::new(std::io::BufReader::with_capacity(1 << 17, file));
        for entry in tar.entries().map_err(fail)? {
            let mut entry = entry.map_err(fail)?;
            if matches!(
                entry.header().entry_type(),
                EntryType::Char | EntryType::Block | EntryType::Fifo
            ) {
                continue;
            }
            let inside = entry.unpack_in(into).map_err(fail)?;
            if !inside {
                return Err(fail(std::io::Error::other(
                    "a path leads out of the archive",
                )));
            }
        }
    }
    Ok(())
}
