//! pax extended headers: `LENGTH KEY=VALUE\n` records.

use std::collections::BTreeMap;

use ext4::Timestamp;

use crate::Error;
use crate::text::shown;
use crate::tree::Xattr;

/// GNU tar, star and bsdtar: an extended attribute, its value as it is.
const XATTR: &[u8] = b"SCHILY.xattr.";

/// Records by key; a later one replaces an earlier one, an empty value removes what a global header set.
#[derive(Clone, Debug, Default)]
pub(super) struct Records {
    values: BTreeMap<Vec<u8>, Vec<u8>>,
    /// Sparse format 0.0 repeats two keys for each run of data: their values in order.
    pub(super) sparse: Vec<(u64, u64)>,
    sparse_offset: Option<u64>,
}

impl Records {
    /// Adds the records of one header.
    ///
    /// # Errors
    /// A record is malformed.
    pub(super) fn parse(&mut self, mut bytes: &[u8]) -> Result<(), Error> {
        while !bytes.is_empty() {
            let (key, value, rest) = record(bytes).ok_or_else(|| {
                Error::new(format_args!(
                    "malformed record `{}`, expected `LENGTH KEY=VALUE` and a line feed",
                    shown(bytes.get(..40).unwrap_or(bytes))
                ))
            })?;
            bytes = rest;
            match key {
                b"GNU.sparse.offset" => self.sparse_offset = Some(decimal(key, value)?),
                b"GNU.sparse.numbytes" => {
                    let offset = self
                        .sparse_offset
                        .take()
                        .ok_or_else(|| Error::new("GNU.sparse.numbytes without GNU.sparse.offset before it"))?;
                    self.sparse.push((offset, decimal(key, value)?));
                }
                _ => {
                    self.values.insert(key.to_vec(), value.to_vec());
                }
            }
        }
        Ok(())
    }

    /// These records on top of `global` ones.
    pub(super) fn over(self, global: &Self) -> Self {
        let mut all = global.clone();
        all.values.extend(self.values);
        // An attribute may well be empty.
        all.values.retain(|key, value| !value.is_empty() || key.starts_with(XATTR));
        all.sparse = self.sparse;
        all
    }

    pub(super) fn get(&self, key: &str) -> Option<&[u8]> {
        self.values.get(key.as_bytes()).map(Vec::as_slice)
    }

    /// The entry's path; sparse files keep the real one in a key of their own.
    pub(super) fn path(&self) -> Option<Vec<u8>> {
        self.get("GNU.sparse.name").or(self.get("path")).map(<[u8]>::to_vec)
    }

    pub(super) fn target(&self) -> Option<Vec<u8>> {
        self.get("linkpath").map(<[u8]>::to_vec)
    }

    /// A decimal number.
    ///
    /// # Errors
    /// The value is something else.
    pub(super) fn number(&self, key: &str) -> Result<Option<u64>, Error> {
        self.get(key).map(|value| decimal(key.as_bytes(), value)).transpose()
    }

    /// A time: decimal seconds, perhaps negative, perhaps with a fraction. Digits beyond nanoseconds are dropped
    /// towards the past.
    ///
    /// # Errors
    /// The value is something else.
    pub(super) fn time(&self, key: &str) -> Result<Option<Timestamp>, Error> {
        let Some(value) = self.get(key) else {
            return Ok(None);
        };
        parse_time(value).map(Some).ok_or_else(|| {
            Error::new(format_args!("{key} is `{}`, expected seconds as a decimal number", shown(value)))
        })
    }

    /// The extended attributes, sorted by name.
    pub(super) fn xattrs(&self) -> Vec<Xattr> {
        self.values
            .iter()
            .filter_map(|(key, value)| Some((key.strip_prefix(XATTR)?.into(), value.as_slice().into())))
            .collect()
    }
}

/// Splits off the first record: key, value, and what follows.
fn record(bytes: &[u8]) -> Option<(&[u8], &[u8], &[u8])> {
    let space = bytes.iter().take(20).position(|byte| *byte == b' ')?;
    let len: usize = std::str::from_utf8(&bytes[..space]).ok()?.parse().ok()?;
    let body = bytes.get(space + 1..len)?.strip_suffix(b"\n")?;
    let equals = body.iter().position(|byte| *byte == b'=')?;
    let key = body.get(..equals).filter(|key| !key.is_empty())?;
    Some((key, body.get(equals + 1..)?, bytes.get(len..)?))
}

fn decimal(key: &[u8], value: &[u8]) -> Result<u64, Error> {
    parse_decimal(value)
        .ok_or_else(|| Error::new(format_args!("{} is `{}`, expected a decimal number", shown(key), shown(value))))
}

/// Decimal digits and nothing else (`parse` would take a sign).
pub(super) fn parse_decimal(value: &[u8]) -> Option<u64> {
    let digits = std::str::from_utf8(value).ok().filter(|text| text.bytes().all(|byte| byte.is_ascii_digit()))?;
    digits.parse().ok()
}

fn parse_time(value: &[u8]) -> Option<Timestamp> {
    let (negative, digits) = match value.split_first()? {
        (b'-', rest) => (true, rest),
        _ => (false, value),
    };
    let mut parts = digits.splitn(2, |byte| *byte == b'.');
    let sec = i64::try_from(parse_decimal(parts.next()?)?).ok()?;
    let fraction = parts.next().unwrap_or_default();
    if !fraction.iter().all(u8::is_ascii_digit) {
        return None;
    }
    let nsec = (0..9).fold(0, |value, at| value * 10 + fraction.get(at).map_or(0, |digit| u32::from(digit - b'0')));
    let dropped = fraction.get(9..).unwrap_or_default().iter().any(|digit| *digit != b'0');
    if !negative {
        return Some(Timestamp { sec, nsec });
    }
    // -1.25 s is 2 s before the epoch and 750,000,000 ns after that.
    let nsec = nsec + u32::from(dropped);
    Some(match nsec {
        0 => Timestamp { sec: -sec, nsec: 0 },
        _ => Timestamp { sec: -sec - 1, nsec: 1_000_000_000 - nsec },
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_are_read() {
        let mut records = Records::default();
        records.parse(b"11 path=ab\n25 SCHILY.xattr.user.a=b\n\n").unwrap_err();
        let mut records = Records::default();
        records.parse(b"11 path=ab\n24 SCHILY.xattr.user.a=b\n18 mtime=12.5000000\n").unwrap_err();
        let mut records = Records::default();
        records.parse(b"11 path=ab\n26 SCHILY.xattr.user.a=b\n\n14 mtime=12.5\n").unwrap();
        assert_eq!(records.path().unwrap(), b"ab");
        assert_eq!(records.xattrs(), vec![(b"user.a"[..].into(), b"b\n"[..].into())]);
        assert_eq!(records.time("mtime").unwrap(), Some(Timestamp { sec: 12, nsec: 500_000_000 }));
        for bad in [&b"0 a=b\n"[..], b"6 a=b", b"99 a=b\n", b"6 =ab\n", b"x a=b\n", b" 6 a=b\n", b"6 abc\n"] {
            assert!(Records::default().parse(bad).is_err(), "{}", bad.escape_ascii());
        }
    }

    #[test]
    fn global_records_are_overridden() {
        let mut global = Records::default();
        global.parse(b"8 uid=1\n8 gid=2\n").unwrap();
        let mut own = Records::default();
        own.parse(b"8 uid=3\n7 gid=\n24 SCHILY.xattr.user.a=\n").unwrap();
        let all = own.over(&global);
        assert_eq!(all.number("uid").unwrap(), Some(3));
        assert_eq!(all.number("gid").unwrap(), None);
        assert_eq!(all.xattrs(), vec![(b"user.a"[..].into(), b""[..].into())]);
    }

    #[test]
    fn times_are_read() {
        let time = |sec, nsec| Some(Timestamp { sec, nsec });
        assert_eq!(parse_time(b"0"), time(0, 0));
        assert_eq!(parse_time(b"1700000000.123456789999"), time(1_700_000_000, 123_456_789));
        assert_eq!(parse_time(b"-1.25"), time(-2, 750_000_000));
        assert_eq!(parse_time(b"-3"), time(-3, 0));
        assert_eq!(parse_time(b"-0.9999999999"), time(-1, 0));
        for bad in [&b""[..], b"-", b"1.x", b"1e3", b"+1", b"99999999999999999999"] {
            assert_eq!(parse_time(bad), None, "{}", bad.escape_ascii());
        }
    }
}
