//! `image diff`: where two images hold different files.

use ext4::{Attr, FileType, Ino};

use crate::image::Image;
use crate::{Error, join};

/// Bytes compared at a time.
const CHUNK: usize = 256 * 1024;

/// How a path differs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Difference {
    /// Only the first image has it.
    OnlyFirst,
    /// Only the second image has it.
    OnlySecond,
    /// Both have it; these properties are not the same: `type`, `mode`, `owner`, `size`, `contents`, `target`,
    /// `device`, `time`, `attributes`, `links`.
    Changed(Vec<&'static str>),
}

/// What [`diff`] calls with each path that differs.
pub type Reporter<'a> = dyn FnMut(&[u8], &Difference) -> Result<(), Error> + 'a;

/// Compares the files of two images below `path`, in order of their names. `report` is called for each difference; what
/// is below a directory that only one has is not told one by one. With `times`, modification times count.
///
/// # Errors
/// One of the images cannot be read, or what `report` returns.
pub fn diff(
    first: &mut Image,
    second: &mut Image,
    path: &[u8],
    times: bool,
    report: &mut Reporter<'_>,
) -> Result<(), Error> {
    let (a, b) = (first.resolve(path, true)?, second.resolve(path, true)?);
    let mut buffers = (vec![0; CHUNK], vec![0; CHUNK]);
    // Pairs to compare, the next one last.
    let mut waiting = vec![(path.to_vec(), a, b)];
    while let Some((path, a, b)) = waiting.pop() {
        let changed = compare(first, second, &path, (a, b), times, &mut buffers)?;
        if !changed.is_empty() {
            report(&path, &Difference::Changed(changed))?;
        }
        let is_directory =
            |image: &mut Image, ino| image.fs.attr(ino).is_ok_and(|attr| attr.file_type == FileType::Directory);
        if !is_directory(first, a) || !is_directory(second, b) {
            continue;
        }
        let (names, others) = (first.names(a, &path)?, second.names(b, &path)?);
        let (mut i, mut k) = (0, 0);
        let mut both = Vec::new();
        loop {
            let order = match (names.get(i), others.get(k)) {
                (None, None) => break,
                (Some(_), None) => std::cmp::Ordering::Less,
                (None, Some(_)) => std::cmp::Ordering::Greater,
                (Some((name, _)), Some((other, _))) => name.cmp(other),
            };
            match (order, names.get(i), others.get(k)) {
                (std::cmp::Ordering::Less, Some((name, _)), _) => {
                    report(&join(&path, name), &Difference::OnlyFirst)?;
                    i += 1;
                }
                (std::cmp::Ordering::Greater, _, Some((name, _))) => {
                    report(&join(&path, name), &Difference::OnlySecond)?;
                    k += 1;
                }
                (_, Some((name, a)), Some((_, b))) => {
                    both.push((join(&path, name), *a, *b));
                    i += 1;
                    k += 1;
                }
                _ => break,
            }
        }
        waiting.extend(both.into_iter().rev());
    }
    Ok(())
}

fn compare(
    first: &mut Image,
    second: &mut Image,
    path: &[u8],
    (a, b): (Ino, Ino),
    times: bool,
    buffers: &mut (Vec<u8>, Vec<u8>),
) -> Result<Vec<&'static str>, Error> {
    let x = first.fs.attr(a).map_err(|error| first.failed(path, error))?;
    let y = second.fs.attr(b).map_err(|error| second.failed(path, error))?;
    let mut found = Vec::new();
    if x.file_type != y.file_type {
        return Ok(vec!["type"]);
    }
    let mut note = |differs: bool, what| {
        if differs {
            found.push(what);
        }
    };
    note(x.mode != y.mode, "mode");
    note((x.uid, x.gid) != (y.uid, y.gid), "owner");
    note(times && x.mtime != y.mtime, "time");
    match x.file_type {
        FileType::Regular => {
            note(x.nlink != y.nlink, "links");
            note(x.size != y.size, "size");
            note(x.size == y.size && !same_contents(first, second, path, (&x, &y), buffers)?, "contents");
        }
        FileType::Symlink => {
            let target = first.fs.read_link(a).map_err(|error| first.failed(path, error))?;
            let other = second.fs.read_link(b).map_err(|error| second.failed(path, error))?;
            note(target != other, "target");
        }
        FileType::CharDevice | FileType::BlockDevice => note(x.rdev != y.rdev, "device"),
        FileType::Directory | FileType::Fifo | FileType::Socket => {}
    }
    if path.iter().any(|byte| *byte != b'/') {
        note(first.xattrs(path)? != second.xattrs(path)?, "attributes");
    }
    Ok(found)
}

fn same_contents(
    first: &mut Image,
    second: &mut Image,
    path: &[u8],
    (x, y): (&Attr, &Attr),
    (one, other): &mut (Vec<u8>, Vec<u8>),
) -> Result<bool, Error> {
    let mut at = 0;
    while at < x.size {
        let count = first.fs.read(x.ino, at, one).map_err(|error| first.failed(path, error))?;
        let len = second.fs.read(y.ino, at, other).map_err(|error| second.failed(path, error))?;
        if count != len || one.get(..count) != other.get(..count) || count == 0 {
            return Ok(false);
        }
        at += count as u64;
    }
    Ok(true)
}
