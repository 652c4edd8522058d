//! Tar archives: POSIX ustar and pax, GNU (long names, sparse files, large numbers), and the old V7 format.
//!
//! Format: POSIX.1-2017 `pax`, and GNU tar's manual, "Tar Internals". Headers are read into a [`Tree`]; contents are
//! only located, so that they are copied once, when the image is written.

mod header;
mod pax;
mod sparse;

use std::collections::BTreeMap;

use ext4::Timestamp;

use self::header::{BLOCK, Header, Kind};
use self::pax::Records;
use super::ArchiveFile;
use crate::Error;
use crate::text::shown;
use crate::tree::{Body, Content, Data, Meta, Node, Origin, SafePath, Tree, symlink_target};

/// The largest pax header or long name that is believed, in bytes. Linux limits one extended attribute to 64 KiB; maps
/// of sparse files can be longer.
const LONGEST_EXTENSION: u64 = 16 << 20;

/// Adds all that `archive`, the `number`th input, holds to `tree`.
///
/// # Errors
/// The archive is damaged or ends early, an entry would leave the root, or an entry contradicts an earlier one. The
/// error names the archive, the byte offset of the entry and its path.
pub(crate) fn read_tar(archive: &ArchiveFile, number: u32, tree: &mut Tree) -> Result<(), Error> {
    read_tar_entries(archive, number, &mut |entry| add(tree, entry))
}

/// Hands every entry of `archive`, the `number`th input, to `take`.
///
/// # Errors
/// The archive is damaged or ends early, or `take` fails; the error names the archive and the entry's byte offset.
pub(crate) fn read_tar_entries(
    archive: &ArchiveFile,
    number: u32,
    take: &mut dyn FnMut(&Entry) -> Result<(), Error>,
) -> Result<(), Error> {
    let mut reader = Reader { archive, window: Vec::new(), window_at: 0, at: 0 };
    let mut global = Records::default();
    let mut entries = 0u64;
    loop {
        let start = reader.at;
        match reader.entry(&mut global, number) {
            Ok(Some(entry)) => {
                entries += 1;
                take(&entry).map_err(|error| error.at(format_args!("{}: entry at byte {start}", reader.name())))?;
            }
            Ok(None) => break,
            Err(error) => return Err(error.at(reader.name())),
        }
    }
    if entries == 0 {
        tracing::warn!("{}: the archive has no entries", archive.path.display());
    }
    Ok(())
}

/// An entry with everything applied that preceded it: pax records, long names, sparse maps.
pub(crate) struct Entry {
    path: Vec<u8>,
    node: NodeOrLink,
}

impl Entry {
    /// Its path as the archive has it.
    pub(crate) fn path(&self) -> &[u8] {
        &self.path
    }
}

/// Adds an entry that may take the place of a file of another type.
pub(crate) fn add_over(tree: &mut Tree, entry: &Entry) -> Result<(), Error> {
    let path = SafePath::new(&entry.path)?;
    let is_directory = matches!(&entry.node, NodeOrLink::Node(node) if matches!(node.body, Body::Directory(_)));
    tree.make_way(&path, is_directory);
    add(tree, entry)
}

enum NodeOrLink {
    Node(Node),
    HardLink(Vec<u8>),
}

fn add(tree: &mut Tree, entry: &Entry) -> Result<(), Error> {
    let path = SafePath::new(&entry.path)?;
    match &entry.node {
        NodeOrLink::Node(node) => tree.insert(&path, node.clone()),
        NodeOrLink::HardLink(target) => {
            let target =
                SafePath::new(target).map_err(|error| error.at(format_args!("hard link `{}`", shown(&entry.path))))?;
            tree.link(&path, &target)
        }
    }
}

/// Reads headers in order and skips contents.
struct Reader<'a> {
    archive: &'a ArchiveFile,
    /// A part of the archive, so that small entries do not cost a system call each.
    window: Vec<u8>,
    window_at: u64,
    /// Offset of the next header.
    at: u64,
}

impl Reader<'_> {
    fn name(&self) -> String {
        self.archive.path.display().to_string()
    }

    /// The 512 bytes at `self.at`, and steps over them; `None` at the end of the file.
    fn block(&mut self) -> Result<Option<[u8; BLOCK]>, Error> {
        let left = self.archive.len.saturating_sub(self.at);
        if left == 0 {
            return Ok(None);
        }
        if left < BLOCK as u64 {
            return Err(Error::new(format_args!(
                "byte {}: the archive is truncated: {left} bytes are left, expected a header of {BLOCK}",
                self.at
            ))
            .hint("fetch or make the archive again"));
        }
        let inside = self.at.checked_sub(self.window_at).and_then(|offset| usize::try_from(offset).ok());
        let found = inside.and_then(|offset| self.window.get(offset..)?.first_chunk::<BLOCK>());
        let block = match found {
            Some(block) => *block,
            None => {
                const WINDOW: u64 = 64 * 1024;
                self.window.resize(left.min(WINDOW) as usize, 0);
                self.window_at = self.at;
                self.archive
                    .read_exact_at(&mut self.window, self.at)
                    .map_err(|error| Error::new(format_args!("byte {}: cannot read: {error}", self.at)))?;
                // The window holds at least one block: `left` does.
                self.window.first_chunk::<BLOCK>().copied().unwrap_or([0; BLOCK])
            }
        };
        self.at += BLOCK as u64;
        Ok(Some(block))
    }

    /// Steps over `len` bytes of contents and their padding; returns where they start.
    fn skip(&mut self, len: u64) -> Result<u64, Error> {
        let start = self.at;
        let left = self.archive.len - start;
        if len > left {
            return Err(Error::new(format_args!(
                "byte {start}: the archive is truncated: the contents of an entry take {len} bytes, {left} are left"
            ))
            .hint("fetch or make the archive again"));
        }
        // The padding of the last entry may be missing only when the end mark is missing too, which is noticed there.
        self.at = start.saturating_add(len.div_ceil(BLOCK as u64).saturating_mul(BLOCK as u64)).min(self.archive.len);
        Ok(start)
    }

    /// Contents that are part of the metadata.
    fn extension(&mut self, len: u64, what: &str) -> Result<Vec<u8>, Error> {
        if len > LONGEST_EXTENSION {
            return Err(Error::new(format_args!(
                "byte {}: a {what} of {len} bytes, expected at most {LONGEST_EXTENSION}",
                self.at
            )));
        }
        let start = self.skip(len)?;
        let mut bytes = vec![0; len as usize];
        self.archive
            .read_exact_at(&mut bytes, start)
            .map_err(|error| Error::new(format_args!("byte {start}: cannot read: {error}")))?;
        Ok(bytes)
    }

    /// The next entry; `None` after the last one.
    fn entry(&mut self, global: &mut Records, number: u32) -> Result<Option<Entry>, Error> {
        let mut records = Records::default();
        let (mut long_path, mut long_target) = (None, None);
        let mut pending = false;
        loop {
            let start = self.at;
            let Some(block) = self.block()? else {
                return Err(Error::new(format_args!(
                    "byte {start}: the archive is truncated: it ends without its end mark of zero blocks"
                ))
                .hint("fetch or make the archive again"));
            };
            if block.iter().all(|byte| *byte == 0) {
                if pending {
                    return Err(Error::new(format_args!(
                        "byte {start}: the archive ends after an extension header, expected the entry it belongs to"
                    )));
                }
                return Ok(None);
            }
            let header = Header::parse(&block).map_err(|error| error.at(format_args!("byte {start}")))?;
            match header.kind {
                Kind::PaxGlobal => {
                    let bytes = self.extension(header.size, "pax header")?;
                    global.parse(&bytes).map_err(|error| error.at(format_args!("byte {start}: pax header")))?;
                    continue;
                }
                Kind::Pax => {
                    let bytes = self.extension(header.size, "pax header")?;
                    records.parse(&bytes).map_err(|error| error.at(format_args!("byte {start}: pax header")))?;
                }
                Kind::LongPath => long_path = Some(self.long_name(header.size)?),
                Kind::LongTarget => long_target = Some(self.long_name(header.size)?),
                Kind::VolumeName => {
                    self.skip(header.size)?;
                    continue;
                }
                _ => {
                    let all = records.over(global);
                    let path = all.path().or(long_path).unwrap_or_else(|| header.path.clone());
                    let target = all.target().or(long_target).unwrap_or_else(|| header.target.clone());
                    let node = self
                        .finish(&header, &all, &block, &path, target, number)
                        .map_err(|error| error.at(format_args!("byte {start}: `{}`", shown(&path))))?;
                    return Ok(Some(Entry { path, node }));
                }
            }
            pending = true;
        }
    }

    fn long_name(&mut self, len: u64) -> Result<Vec<u8>, Error> {
        let mut name = self.extension(len, "long name")?;
        // GNU tar counts the terminating zero.
        let end = name.iter().position(|byte| *byte == 0).unwrap_or(name.len());
        name.truncate(end);
        Ok(name)
    }

    /// Makes the node of an entry whose extension headers are known, and steps over its contents.
    fn finish(
        &mut self,
        header: &Header,
        records: &Records,
        block: &[u8; BLOCK],
        path: &[u8],
        target: Vec<u8>,
        number: u32,
    ) -> Result<NodeOrLink, Error> {
        let size = records.number("size")?.unwrap_or(header.size);
        let id = |name: &str, value: u64| {
            u32::try_from(value).map_err(|_| Error::new(format_args!("{name} {value}, expected at most 4294967295")))
        };
        let meta = Meta {
            mode: header.mode,
            uid: id("user", records.number("uid")?.unwrap_or(header.uid))?,
            gid: id("group", records.number("gid")?.unwrap_or(header.gid))?,
            mtime: records.time("mtime")?.unwrap_or(Timestamp { sec: header.mtime, nsec: 0 }),
        };
        let directory = || Body::Directory(BTreeMap::new());
        let body = match header.kind {
            // The old format has no type for directories, only a slash at the end.
            Kind::Regular if path.ends_with(b"/") && size == 0 => directory(),
            Kind::Directory => directory(),
            Kind::Regular | Kind::SparseGnu => {
                let (len, data) = match sparse::map(self, header, records, block, size)? {
                    Some((len, segments)) => (len, Data::Segments(segments)),
                    None => (size, Data::Whole(self.skip(size)?)),
                };
                Body::Regular(Content { len, origin: Origin::Archive(number), data })
            }
            Kind::Symlink => Body::Symlink(symlink_target(&target)?),
            Kind::HardLink => return Ok(NodeOrLink::HardLink(target)),
            Kind::CharDevice | Kind::BlockDevice => {
                let major = id("major number", records.number("SCHILY.devmajor")?.unwrap_or(header.major))?;
                let minor = id("minor number", records.number("SCHILY.devminor")?.unwrap_or(header.minor))?;
                // The kernel's dev_t: 12 bits and 20 bits, the widest that ext stores.
                if major > 0xfff || minor > 0xf_ffff {
                    return Err(Error::new(format_args!(
                        "device number {major}:{minor}, expected at most 4095:1048575"
                    )));
                }
                match header.kind {
                    Kind::CharDevice => Body::CharDevice(major, minor),
                    _ => Body::BlockDevice(major, minor),
                }
            }
            Kind::Fifo => Body::Fifo,
            Kind::Pax | Kind::PaxGlobal | Kind::LongPath | Kind::LongTarget | Kind::VolumeName => {
                return Err(Error::new("an extension header in place of an entry"));
            }
        };
        Ok(NodeOrLink::Node(Node { meta, xattrs: records.xattrs(), body, kept: None }))
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use proptest::prelude::*;

    use super::*;

    fn read(bytes: &[u8]) -> Result<Tree, Error> {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(bytes).unwrap();
        let archive = ArchiveFile { path: "x.tar".into(), file, len: bytes.len() as u64 };
        let mut tree = Tree::new();
        read_tar(&archive, 0, &mut tree).map(|()| tree)
    }

    proptest! {
        /// Headers with right checksums and anything else in them: an error or a tree, never a panic, and every piece
        /// of contents lies inside the archive.
        #[test]
        fn any_header_is_read_or_refused(
            headers in prop::collection::vec(
                (prop::collection::vec((0usize..500, any::<u8>()), 0..12), prop::sample::select(&b"0123456SxgLKV5\0D"[..]), 0u64..3000),
                1..6,
            ),
            extension in "([0-9]{1,2} (path|size|uid|mtime|GNU.sparse.map|GNU.sparse.size|GNU.sparse.major|linkpath)=[0-9,./a]{0,12}\n){0,4}",
        ) {
            let mut archive = Vec::new();
            for (changes, kind, size) in headers {
                let mut header = [0; BLOCK];
                header[..4].copy_from_slice(b"./ab");
                header[100..108].copy_from_slice(b"0000644\0");
                header[124..136].copy_from_slice(format!("{size:011o}\0").as_bytes());
                header[156] = kind;
                header[157..159].copy_from_slice(b"ab");
                header[257..263].copy_from_slice(b"ustar\0");
                for (at, byte) in changes {
                    header[at] = byte;
                }
                header[148..156].fill(b' ');
                let sum: u32 = header.iter().map(|byte| u32::from(*byte)).sum();
                header[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
                archive.extend_from_slice(&header);
                let mut contents = extension.as_bytes().to_vec();
                contents.resize(size as usize, b'\n');
                archive.extend_from_slice(&contents);
                archive.resize(archive.len().next_multiple_of(BLOCK), 0);
            }
            archive.resize(archive.len() + 2 * BLOCK, 0);
            if let Ok(tree) = read(&archive) {
                for step in tree.walk() {
                    let crate::tree::Step::Name { id, .. } = step else { continue };
                    if let Body::Regular(content) = &tree.node(id).body {
                        for segment in content.segments() {
                            prop_assert!(segment.source + segment.len <= archive.len() as u64);
                            prop_assert!(segment.offset + segment.len <= content.len);
                        }
                    }
                }
            }
        }
    }
}
