//! FAT12, FAT16 and FAT32 images, through the `fatfs` crate.

use std::cell::Cell;
use std::collections::{HashMap, HashSet};
use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::FileExt;

use ext4::Timestamp;
use fatfs::{Date, DateTime, Dir, FileSystem, FormatVolumeOptions, FsOptions, Time, TimeProvider};

use crate::create::Progress;
use crate::feed::Feed;
use crate::populate::Stop;
use crate::text::shown;
use crate::tree::{Body, NodeId, Step, Tree};
use crate::{Error, join};

/// Bytes of a sector.
const SECTOR: u64 = 512;
/// The largest file of FAT: its length has 32 bits.
const LARGEST_FILE: u64 = u32::MAX as u64;

thread_local! {
    /// Seconds since the epoch that entries made now get.
    static NOW: Cell<i64> = const { Cell::new(0) };
}

/// Hands the time of the file being written to `fatfs`, so that nothing depends on the clock.
#[derive(Debug)]
struct InputTime;

impl TimeProvider for InputTime {
    fn get_current_date(&self) -> Date {
        self.get_current_date_time().date
    }

    fn get_current_date_time(&self) -> DateTime {
        let (year, month, day, hour, min, sec) = crate::time::civil(NOW.get());
        // FAT's years are 1980 to 2107, in UTC here.
        if !(1980..2108).contains(&year) {
            let (year, month, day) = if year < 1980 { (1980, 1, 1) } else { (2107, 12, 31) };
            return DateTime { date: Date { year, month, day }, time: Time { hour: 0, min: 0, sec: 0, millis: 0 } };
        }
        DateTime {
            date: Date { year: year as u16, month: month as u16, day: day as u16 },
            time: Time { hour: hour as u16, min: min as u16, sec: sec as u16, millis: 0 },
        }
    }
}

static INPUT_TIME: InputTime = InputTime;

/// A part of a file as `fatfs` wants it.
pub(crate) struct Window<'a> {
    pub(crate) file: &'a File,
    pub(crate) start: u64,
    pub(crate) size: u64,
    pub(crate) at: u64,
}

impl Read for Window<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let len = (self.size.saturating_sub(self.at)).min(buffer.len() as u64) as usize;
        let count = self.file.read_at(buffer.get_mut(..len).unwrap_or_default(), self.start + self.at)?;
        self.at += count as u64;
        Ok(count)
    }
}

impl Write for Window<'_> {
    fn write(&mut self, buffer: &[u8]) -> io::Result<usize> {
        let len = (self.size.saturating_sub(self.at)).min(buffer.len() as u64) as usize;
        let count = self.file.write_at(buffer.get(..len).unwrap_or_default(), self.start + self.at)?;
        self.at += count as u64;
        Ok(count)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Seek for Window<'_> {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        let at = match to {
            SeekFrom::Start(at) => Some(at),
            SeekFrom::End(by) => self.size.checked_add_signed(by),
            SeekFrom::Current(by) => self.at.checked_add_signed(by),
        };
        self.at = at.ok_or_else(|| io::Error::from(io::ErrorKind::InvalidInput))?;
        Ok(self.at)
    }
}

/// A volume label as FAT has it: 11 bytes, upper case, padded with spaces.
pub(crate) fn fat_label(label: &str) -> Result<[u8; 11], Error> {
    let upper = label.to_ascii_uppercase();
    let fits = upper.len() <= 11
        && upper.bytes().all(|byte| (b' '..0x7f).contains(&byte) && !b"\"*+,./:;<=>?[\\]|".contains(&byte));
    if !fits {
        return Err(Error::new(format_args!(
            "`{label}` is no FAT label, expected at most 11 letters, digits, hyphens and underscores"
        )));
    }
    let mut bytes = [b' '; 11];
    for (to, from) in bytes.iter_mut().zip(upper.bytes()) {
        *to = from;
    }
    Ok(bytes)
}

/// Bytes that a file system for `tree` needs, about: everything in clusters, and room for the tables.
pub(crate) fn fat_size(tree: &Tree, free: u64) -> u64 {
    const CLUSTER: u64 = 4096;
    let mut bytes = 0u64;
    for step in tree.walk() {
        if let Step::Name { name, id } = step {
            // An entry of 32 bytes and one for each 13 characters of a long name.
            bytes += 64 + 32 * (name.len() as u64).div_ceil(13);
            bytes += match &tree.node(id).body {
                Body::Regular(content) => content.len.next_multiple_of(CLUSTER),
                _ => CLUSTER,
            };
        }
    }
    (bytes + bytes / 64 + free + (1 << 20)).next_multiple_of(1 << 20)
}

fn format_failed(error: &io::Error) -> Stop {
    Stop::Failed(Error::new(format_args!("cannot make a FAT file system: {error}")))
}

/// Makes a file system in the window and writes `tree` into it.
///
/// # Errors
/// It is full; the tree holds what FAT cannot: links, devices, names that differ in case only.
pub(crate) fn write_fat(
    window: Window<'_>,
    tree: &Tree,
    label: &str,
    volume_id: u32,
    time: Timestamp,
    feed: &mut Feed,
    progress: &mut Progress<'_>,
) -> Result<(), Stop> {
    NOW.set(time.sec);
    let Window { file, start, size, .. } = window;
    let again = || Window { file, start, size, at: 0 };
    let Ok(sectors) = u32::try_from(size / SECTOR) else {
        return Err(Stop::Failed(Error::new("FAT ends at 2 TiB").hint("name a smaller --size")));
    };
    if sectors < 128 {
        return Err(Stop::Full("the file system itself".to_owned()));
    }
    let mut options = FormatVolumeOptions::new().total_sectors(sectors).volume_id(volume_id);
    if !label.is_empty() {
        options = options.volume_label(fat_label(label)?);
    }
    fatfs::format_volume(again(), options).map_err(|error| format_failed(&error))?;
    let options = FsOptions::new().time_provider(&INPUT_TIME);
    let fs = FileSystem::new(again(), options).map_err(|error| format_failed(&error))?;
    Writer { tree, feed, progress, first: HashMap::new() }.run(&fs)?;
    let bits = match fs.fat_type() {
        fatfs::FatType::Fat12 => 12,
        fatfs::FatType::Fat16 => 16,
        fatfs::FatType::Fat32 => 32,
    };
    fs.unmount().map_err(|error| format_failed(&error))?;
    crate::fat_mend::mend(file, start, bits).map_err(|error| format_failed(&error))
}

struct Writer<'a, 'p> {
    tree: &'a Tree,
    feed: &'a mut Feed,
    progress: &'a mut Progress<'p>,
    /// Where the contents of a file with several names went: FAT gets a copy for each.
    first: HashMap<NodeId, String>,
}

/// A directory being filled.
struct Level<'f, 'w> {
    dir: Dir<'f, Window<'w>>,
    path: Vec<u8>,
    /// Names so far, as FAT compares them.
    names: HashSet<String>,
}

fn failed(path: &[u8], error: &io::Error) -> Stop {
    let path = shown(path).to_string();
    // The crate has no error kind for it.
    if error.kind() == io::ErrorKind::WriteZero || error.to_string().contains("No space left") {
        return Stop::Full(path);
    }
    Stop::Failed(Error::new(format_args!("cannot write {path} into the image: {error}")))
}

impl Writer<'_, '_> {
    fn run<'f, 'w>(&mut self, fs: &'f FileSystem<Window<'w>>) -> Result<(), Stop> {
        let mut levels: Vec<Level<'f, 'w>> = Vec::new();
        let tree = self.tree;
        for step in tree.walk() {
            match step {
                Step::Root => {
                    levels.push(Level { dir: fs.root_dir(), path: Vec::new(), names: HashSet::new() });
                }
                Step::Leave => {
                    levels.pop();
                }
                Step::Name { name, id } => {
                    let Some(level) = levels.last_mut() else { continue };
                    if let Some(below) = self.name(fs, level, name, id)? {
                        levels.push(below);
                    }
                }
            }
        }
        self.progress.tell();
        Ok(())
    }

    fn name<'f, 'w>(
        &mut self,
        fs: &'f FileSystem<Window<'w>>,
        level: &mut Level<'f, 'w>,
        name: &[u8],
        id: NodeId,
    ) -> Result<Option<Level<'f, 'w>>, Stop> {
        let path = join(&level.path, name);
        let refuse = |what: &str| {
            Stop::Failed(
                Error::new(format_args!("{} {what}", shown(&path))).hint("leave it out, or make an ext4 image"),
            )
        };
        let Ok(text) = std::str::from_utf8(name) else {
            return Err(refuse("has a name that is no UTF-8, which FAT needs"));
        };
        if !level.names.insert(text.to_uppercase()) {
            return Err(refuse("has a name that differs from another one in case only, which FAT does not tell apart"));
        }
        let node = self.tree.node(id);
        NOW.set(node.meta.mtime.sec);
        self.progress.files += 1;
        match &node.body {
            Body::Directory(_) => {
                let dir = level.dir.create_dir(text).map_err(|error| failed(&path, &error))?;
                Ok(Some(Level { dir, path, names: HashSet::new() }))
            }
            Body::Regular(content) => {
                if content.len > LARGEST_FILE {
                    return Err(refuse("is larger than 4 GiB, which FAT cannot hold"));
                }
                let mut file = level.dir.create_file(text).map_err(|error| failed(&path, &error))?;
                let whole = String::from_utf8_lossy(&path).trim_start_matches('/').to_owned();
                if let Some(first) = self.first.get(&id) {
                    let mut from = fs.root_dir().open_file(first).map_err(|error| failed(&path, &error))?;
                    io::copy(&mut from, &mut file).map_err(|error| failed(&path, &error))?;
                } else {
                    self.first.insert(id, whole);
                    self.contents(id, content, &path, &mut file)?;
                }
                file.flush().map_err(|error| failed(&path, &error))?;
                Ok(None)
            }
            Body::Symlink(_) => Err(refuse("is a symbolic link, which FAT cannot hold")),
            _ => Err(refuse("is a device, pipe or socket, which FAT cannot hold")),
        }
    }

    fn contents(
        &mut self,
        id: NodeId,
        content: &crate::tree::Content,
        path: &[u8],
        file: &mut fatfs::File<'_, Window<'_>>,
    ) -> Result<(), Stop> {
        let total: u64 = content.segments().map(|segment| segment.len).sum();
        let (mut done, mut at) = (0, 0);
        while done < total {
            let mut failure = None;
            let count = self.feed.piece(id, |piece, data| {
                let written = zeros(file, piece.offset - at).and_then(|()| file.write_all(data));
                at = piece.offset + data.len() as u64;
                failure = written.err();
                Ok(())
            })?;
            if let Some(error) = failure {
                return Err(failed(path, &error));
            }
            done += count;
            self.progress.bytes += count;
            self.progress.tell();
        }
        // FAT has no holes.
        zeros(file, content.len - at).map_err(|error| failed(path, &error))
    }
}

fn zeros(file: &mut impl Write, len: u64) -> io::Result<()> {
    io::copy(&mut io::repeat(0).take(len), file).map(|_| ())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_are_checked() {
        assert_eq!(&fat_label("boot-1").unwrap(), b"BOOT-1     ");
        for bad in ["twelve bytes", "a/b", "\u{e4}", "a.b"] {
            assert!(fat_label(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn times_stay_within_what_fat_knows() {
        for (seconds, year) in [(0, 1980), (1_700_000_000, 2023), (i64::from(u32::MAX) * 3, 2107)] {
            NOW.set(seconds);
            assert_eq!(InputTime.get_current_date().year, year);
        }
    }
}
