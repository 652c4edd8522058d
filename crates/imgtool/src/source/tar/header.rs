//! The 512-byte header of an entry.

use crate::Error;

/// Size of a tar block in bytes.
pub(super) const BLOCK: usize = 512;

/// What an entry is, from its type flag.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Regular,
    HardLink,
    Symlink,
    CharDevice,
    BlockDevice,
    Directory,
    Fifo,
    /// GNU's old form of sparse files: the map is in the header.
    SparseGnu,
    /// pax records for the next entry.
    Pax,
    /// pax records for all following entries.
    PaxGlobal,
    /// GNU: the next entry's path.
    LongPath,
    /// GNU: the next entry's link target.
    LongTarget,
    /// GNU: a label for the whole archive.
    VolumeName,
}

/// A decoded header.
#[derive(Debug)]
pub(super) struct Header {
    pub(super) kind: Kind,
    pub(super) path: Vec<u8>,
    pub(super) target: Vec<u8>,
    /// The twelve permission bits.
    pub(super) mode: u16,
    pub(super) uid: u64,
    pub(super) gid: u64,
    /// Bytes of contents that follow.
    pub(super) size: u64,
    /// Seconds since the epoch.
    pub(super) mtime: i64,
    pub(super) major: u64,
    pub(super) minor: u64,
}

impl Header {
    /// Decodes a header.
    ///
    /// # Errors
    /// The checksum is wrong, a number is malformed, or the type is unknown.
    pub(super) fn parse(block: &[u8; BLOCK]) -> Result<Self, Error> {
        let stated = octal(&block[148..156]).map_err(|_| no_tar())?;
        // The checksum field itself counts as spaces. Some old archivers summed signed bytes.
        let sum = |value: fn(u8) -> i64| -> i64 {
            block.iter().enumerate().map(|(at, byte)| if (148..156).contains(&at) { 32 } else { value(*byte) }).sum()
        };
        let (unsigned, signed) = (sum(i64::from), sum(|byte| i64::from(byte as i8)));
        let stated = i64::try_from(stated).map_err(|_| no_tar())?;
        if stated != unsigned && stated != signed {
            return Err(no_tar());
        }
        let kind = match block[156] {
            b'0' | b'7' | 0 => Kind::Regular,
            b'1' => Kind::HardLink,
            b'2' => Kind::Symlink,
            b'3' => Kind::CharDevice,
            b'4' => Kind::BlockDevice,
            b'5' | b'D' => Kind::Directory,
            b'6' => Kind::Fifo,
            b'S' => Kind::SparseGnu,
            b'x' | b'X' => Kind::Pax,
            b'g' => Kind::PaxGlobal,
            b'L' => Kind::LongPath,
            b'K' => Kind::LongTarget,
            b'V' => Kind::VolumeName,
            b'M' => {
                return Err(Error::new("the entry continues from another volume; multi-volume archives are not read"));
            }
            other => {
                return Err(Error::new(format_args!("unknown entry type `{}`", other.escape_ascii())));
            }
        };
        let ustar = &block[257..263] == b"ustar\0";
        let mut path = text(&block[..100]).to_vec();
        // GNU headers (`ustar  \0`) keep other things where POSIX has the prefix.
        let prefix = text(&block[345..500]);
        if ustar && !prefix.is_empty() {
            path = [prefix, b"/", &path].concat();
        }
        let wrong = |name: &'static str| move |error: Error| error.at(name);
        let device = matches!(kind, Kind::CharDevice | Kind::BlockDevice);
        let size = number(&block[124..136]).map_err(wrong("size"))?;
        let size =
            u64::try_from(size).map_err(|_| Error::new(format_args!("size {size}, expected a number from 0 on")))?;
        let has_contents = !matches!(
            kind,
            Kind::HardLink | Kind::Symlink | Kind::CharDevice | Kind::BlockDevice | Kind::Directory | Kind::Fifo
        );
        let unsigned = |range: &[u8], name| {
            let value = number(range).map_err(wrong(name))?;
            u64::try_from(value).map_err(|_| Error::new(format_args!("{name} {value}, expected a number from 0 on")))
        };
        Ok(Self {
            kind,
            path,
            target: text(&block[157..257]).to_vec(),
            mode: (number(&block[100..108]).map_err(wrong("mode"))? & 0o7777) as u16,
            uid: unsigned(&block[108..116], "user")?,
            gid: unsigned(&block[116..124], "group")?,
            // Links carry the size of their target, but no contents.
            size: if has_contents { size } else { 0 },
            mtime: number(&block[136..148]).map_err(wrong("modification time"))?,
            major: if device { unsigned(&block[329..337], "major number")? } else { 0 },
            minor: if device { unsigned(&block[337..345], "minor number")? } else { 0 },
        })
    }
}

fn no_tar() -> Error {
    Error::new("no tar header: its checksum is wrong")
        .hint("expected a tar archive, plain or compressed with gzip, xz, zstd or bzip2")
}

/// A string field: up to its first zero.
fn text(field: &[u8]) -> &[u8] {
    let end = field.iter().position(|byte| *byte == 0).unwrap_or(field.len());
    field.get(..end).unwrap_or_default()
}

/// A number field: octal digits, or GNU's big-endian two's complement, told by the top bit.
pub(super) fn number(field: &[u8]) -> Result<i64, Error> {
    let Some((first, rest)) = field.split_first().filter(|(first, _)| **first & 0x80 != 0) else {
        let value = octal(field)?;
        return i64::try_from(value).map_err(|_| Error::new(format_args!("number {value} is too large")));
    };
    // Bit 6 is the sign; the flag bit is none of the number's.
    let mut value = i128::from(*first & 0x3f) - i128::from(*first & 0x40);
    for byte in rest {
        value = value
            .checked_mul(256)
            .and_then(|value| value.checked_add(i128::from(*byte)))
            .ok_or_else(|| Error::new("a number that is too large"))?;
    }
    i64::try_from(value).map_err(|_| Error::new(format_args!("number {value} is too large")))
}

/// Octal digits with spaces around them and a zero or space at the end; an empty field is 0.
fn octal(field: &[u8]) -> Result<u64, Error> {
    let digits = text(field).trim_ascii();
    digits.iter().try_fold(0u64, |value, byte| match byte {
        b'0'..=b'7' => value
            .checked_mul(8)
            .map(|value| value + u64::from(byte - b'0'))
            .ok_or_else(|| Error::new("a number that is too large")),
        _ => Err(Error::new(format_args!("`{}`, expected octal digits", digits.escape_ascii()))),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_octal_or_binary() {
        assert_eq!(number(b"0000644\0").unwrap(), 0o644);
        assert_eq!(number(b"   644 \0").unwrap(), 0o644);
        assert_eq!(number(b"\0\0\0\0").unwrap(), 0);
        assert_eq!(number(b"77777777777\0").unwrap(), 0o77_777_777_777);
        assert_eq!(number(&[0x80, 0, 0, 0, 0, 0, 0, 2, 0, 0, 0, 0]).unwrap(), 2 << 32);
        assert_eq!(number(&[0xff; 12]).unwrap(), -1);
        assert_eq!(number(&[0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0]).unwrap(), -256);
        assert!(number(b"0000689\0").is_err());
        assert!(number(&[0xbf, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0]).is_err());
    }
}
