//! Layers of OCI images (the image specification's "Image Layer Filesystem Changeset"): tar archives in which a name
//! `.wh.NAME` removes NAME of the layers below, and `.wh..wh..opq` all that they have in its directory.

use super::ArchiveFile;
use super::tar::{add_over, read_tar_entries};
use crate::Error;
use crate::tree::{SafePath, Tree};

/// What marks a whiteout.
const WHITEOUT: &[u8] = b".wh.";
/// Names that belong to whoever stacks layers.
const RESERVED: &[u8] = b".wh..wh.";
/// The whiteout of a whole directory.
const OPAQUE: &[u8] = b".wh..wh..opq";

/// Lays `archive`, the `number`th input, over `tree`.
///
/// # Errors
/// As for any archive.
pub(crate) fn read_oci_layer(archive: &ArchiveFile, number: u32, tree: &mut Tree) -> Result<(), Error> {
    // Whiteouts are about the layers below, wherever they stand in the archive.
    read_tar_entries(archive, number, &mut |entry| {
        let (directory, name) = split(entry.path());
        if name == OPAQUE {
            tree.clear(&SafePath::new(directory)?);
        } else if let Some(hidden) = name.strip_prefix(WHITEOUT).filter(|_| !name.starts_with(RESERVED)) {
            tree.remove(&SafePath::new(&[directory, b"/", hidden].concat())?);
        }
        Ok(())
    })?;
    read_tar_entries(archive, number, &mut |entry| {
        if split(entry.path()).1.starts_with(WHITEOUT) { Ok(()) } else { add_over(tree, entry) }
    })
}

/// The directory and the last component of a path.
fn split(path: &[u8]) -> (&[u8], &[u8]) {
    let path = path.strip_suffix(b"/").unwrap_or(path);
    match path.iter().rposition(|byte| *byte == b'/') {
        Some(at) => (path.get(..at).unwrap_or_default(), path.get(at + 1..).unwrap_or_default()),
        None => (b".", path),
    }
}
