//! An overlay merged into what is below it.

use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;

use super::{BLOCK, Header, Identity, chain, is_overlay, open};
use crate::identify::size_of;
use crate::{Error, backing};

/// Blocks moved at a time.
const RUN: u64 = 256;

/// Merges an overlay into the file below it and leaves it empty. An interrupted commit is finished by the next one;
/// until then neither file can be booted through this overlay. Returns the bytes moved.
///
/// # Errors
/// As [`chain`]; or one of the files is in use or cannot be written.
pub fn commit(overlay: &Path, progress: &mut dyn FnMut(u64, u64)) -> Result<u64, Error> {
    let file = open(overlay, true)?;
    backing::lock(&file, overlay)?;
    let mut header = Header::read(overlay, &file)?;
    let below = header.below(overlay);
    let target = open(&below, true)?;
    backing::lock(&target, &below)?;
    // Only now can nobody change it any more.
    chain(if header.committing { &below } else { overlay })?;
    let read = |error: io::Error| Error::io("read", overlay, &error);
    let write = |error: io::Error| Error::io("write", &below, &error);
    let note = |error: io::Error| Error::io("write", overlay, &error);
    let bitmap = super::bitmap(overlay, &file, &header)?;
    let lower = if is_overlay(&below)? { Some(Header::read(&below, &target)?) } else { None };
    let size = match &lower {
        Some(lower) => lower.size,
        None => size_of(&target).map_err(|error| Error::io("find the size of", &below, &error))?,
    };
    if size != header.size {
        return Err(Error::new(format_args!("{}: {} has another size", overlay.display(), below.display())));
    }
    let shift = lower.as_ref().map_or(0, Header::data_at);
    let total: u64 = bitmap.iter().map(|byte| u64::from(byte.count_ones())).sum();
    // From here on the file below may be half the old and half the new one.
    header.committing = true;
    file.write_all_at(&header.encode()?, 0).and_then(|()| file.sync_data()).map_err(note)?;
    let has = |block: u64| bitmap.get((block / 8) as usize).is_some_and(|byte| byte >> (block % 8) & 1 != 0);
    let (mut block, mut done) = (0, 0);
    let blocks = size.div_ceil(BLOCK);
    let mut buffer = vec![0; (RUN * BLOCK) as usize];
    while block < blocks {
        if !has(block) {
            block += 1;
            continue;
        }
        let end = (block..blocks.min(block + RUN)).find(|block| !has(*block)).unwrap_or(blocks.min(block + RUN));
        let (from, to) = (block * BLOCK, (end * BLOCK).min(size));
        let part = buffer.get_mut(..(to - from) as usize).unwrap_or_default();
        file.read_exact_at(part, header.data_at() + from).map_err(read)?;
        target.write_all_at(part, shift + from).map_err(write)?;
        done += end - block;
        progress(done * BLOCK, total * BLOCK);
        block = end;
    }
    target.sync_data().map_err(write)?;
    if let Some(lower) = &lower {
        // The lower overlay has the blocks now; its bits follow what they stand for.
        let mut merged = super::bitmap(&below, &target, lower)?;
        merged.iter_mut().zip(&bitmap).for_each(|(into, from)| *into |= from);
        target.write_all_at(&merged, Header::bitmap_at()).map_err(write)?;
    }
    target.sync_all().map_err(write)?;
    // An empty overlay on the new state: first the bits, since with them it would be the same disk.
    let empty = vec![0; bitmap.len()];
    file.write_all_at(&empty, Header::bitmap_at()).and_then(|()| file.sync_data()).map_err(note)?;
    header.committing = false;
    header.below = Identity::of(&below, &target)?;
    file.write_all_at(&header.encode()?, 0).and_then(|()| file.sync_data()).map_err(note)?;
    // Its blocks take no space any more.
    let free = file.set_len(header.data_at()).and_then(|()| file.set_len(header.data_at() + header.size));
    free.and_then(|()| file.sync_all()).map_err(note)?;
    Ok(done * BLOCK)
}
