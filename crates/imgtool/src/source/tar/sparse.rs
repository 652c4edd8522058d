//! Sparse files: GNU's old format (map in the header) and its pax formats 0.0, 0.1 and 1.0.
//!
//! Source: GNU tar's manual, appendix "Storing Sparse Files".

use super::Reader;
use super::header::{BLOCK, Header, Kind, number};
use super::pax::{Records, parse_decimal};
use crate::Error;
use crate::tree::Segment;

/// The length of a sparse file and where its data lies.
pub(super) type Map = (u64, Box<[Segment]>);

/// The map of the entry, or `None` for a file that is not sparse. Steps over the contents.
///
/// # Errors
/// The map is malformed, or does not agree with the amount of data that follows.
pub(super) fn map(
    reader: &mut Reader<'_>,
    header: &Header,
    records: &Records,
    block: &[u8; BLOCK],
    size: u64,
) -> Result<Option<Map>, Error> {
    let (len, runs, data, stored) = if header.kind == Kind::SparseGnu {
        let (len, runs) = gnu(reader, block)?;
        let data = reader.skip(size)?;
        (len, runs, data, size)
    } else if records.get("GNU.sparse.major") == Some(b"1") && records.get("GNU.sparse.minor") == Some(b"0") {
        let start = reader.skip(size)?;
        let (runs, map_len) = pax_1_0(reader, start, size)?;
        let len = records.number("GNU.sparse.realsize")?.ok_or_else(|| missing("GNU.sparse.realsize"))?;
        (len, runs, start + map_len, size - map_len)
    } else if records.get("GNU.sparse.numblocks").is_some() || records.get("GNU.sparse.map").is_some() {
        let len = records.number("GNU.sparse.size")?.ok_or_else(|| missing("GNU.sparse.size"))?;
        let runs = match records.get("GNU.sparse.map") {
            Some(list) => pax_0_1(list)?,
            None => records.sparse.clone(),
        };
        let data = reader.skip(size)?;
        (len, runs, data, size)
    } else {
        return Ok(None);
    };
    Ok(Some((len, segments(&runs, len, data, stored)?)))
}

fn missing(key: &str) -> Error {
    Error::new(format_args!("a sparse file without {key}"))
}

/// Places the runs in the data and checks that they are in order, inside the file, and all of the data.
fn segments(runs: &[(u64, u64)], len: u64, data: u64, stored: u64) -> Result<Box<[Segment]>, Error> {
    let (mut end, mut used) = (0u64, 0u64);
    let mut found = Vec::with_capacity(runs.len());
    for (offset, count) in runs.iter().copied() {
        let next = offset.checked_add(count).filter(|next| *next <= len);
        let (Some(next), true) = (next, offset >= end) else {
            return Err(Error::new(format_args!(
                "sparse map: {count} bytes at {offset}, expected them after byte {end} and inside the {len} of the file"
            )));
        };
        // An empty run at the end only marks the length.
        if count > 0 {
            found.push(Segment { offset, len: count, source: data + used });
        }
        end = next;
        used += count;
        if used > stored {
            break;
        }
    }
    if used != stored {
        return Err(Error::new(format_args!("sparse map: it places {used} bytes of data, but the entry has {stored}")));
    }
    Ok(found.into())
}

/// The old GNU format: 4 runs in the header, then blocks of 21.
fn gnu(reader: &mut Reader<'_>, block: &[u8; BLOCK]) -> Result<(u64, Vec<(u64, u64)>), Error> {
    let unsigned = |field: &[u8]| -> Result<u64, Error> {
        let value = number(field)?;
        u64::try_from(value).map_err(|_| Error::new(format_args!("sparse map: {value}, expected a number from 0 on")))
    };
    let mut runs = Vec::new();
    let mut take = |fields: &[u8]| -> Result<(), Error> {
        for field in fields.chunks_exact(24) {
            // An unused place is empty.
            if field.first() == Some(&0) {
                break;
            }
            let (offset, count) = field.split_at(12);
            runs.push((unsigned(offset)?, unsigned(count)?));
        }
        Ok(())
    };
    take(&block[386..482])?;
    let mut more = block[482] != 0;
    while more {
        let at = reader.at;
        let next = reader.block()?.ok_or_else(|| {
            Error::new(format_args!("the archive is truncated at byte {at}, expected more of a sparse map"))
        })?;
        take(&next[..504])?;
        more = next[504] != 0;
    }
    Ok((unsigned(&block[483..495])?, runs))
}

/// pax format 0.1: `OFFSET,LENGTH,...` in one record.
fn pax_0_1(list: &[u8]) -> Result<Vec<(u64, u64)>, Error> {
    let numbers: Vec<u64> = list
        .split(|byte| *byte == b',')
        .map(parse_decimal)
        .collect::<Option<_>>()
        .ok_or_else(|| Error::new("GNU.sparse.map is no list of decimal numbers"))?;
    let (pairs, rest) = numbers.as_chunks::<2>();
    if !rest.is_empty() {
        return Err(Error::new("GNU.sparse.map has an odd count of numbers"));
    }
    Ok(pairs.iter().map(|[offset, count]| (*offset, *count)).collect())
}

/// pax format 1.0: the map precedes the data, as lines of decimal numbers, padded to a whole block. Returns the runs
/// and the length of the map.
fn pax_1_0(reader: &Reader<'_>, start: u64, size: u64) -> Result<(Vec<(u64, u64)>, u64), Error> {
    let mut buffer = [0; BLOCK];
    let mut at = 0u64;
    let mut line = Vec::new();
    let mut numbers = Vec::new();
    let mut wanted = None;
    loop {
        if at + BLOCK as u64 > size {
            return Err(Error::new("the map of a sparse file is longer than the file's contents"));
        }
        reader
            .archive
            .read_exact_at(&mut buffer, start + at)
            .map_err(|error| Error::new(format_args!("cannot read the map of a sparse file: {error}")))?;
        at += BLOCK as u64;
        for byte in buffer {
            if byte != b'\n' {
                line.push(byte);
                if line.len() > 20 {
                    return Err(Error::new("the map of a sparse file has a line that is no number"));
                }
                continue;
            }
            let value = parse_decimal(&line)
                .filter(|_| !line.is_empty())
                .ok_or_else(|| Error::new("the map of a sparse file has a line that is no number"))?;
            line.clear();
            match wanted {
                None => wanted = Some(value.saturating_mul(2)),
                Some(_) => numbers.push(value),
            }
            if wanted == Some(numbers.len() as u64) {
                let (pairs, _) = numbers.as_chunks::<2>();
                return Ok((pairs.iter().map(|[offset, count]| (*offset, *count)).collect(), at));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn maps_must_agree_with_the_data() {
        let good = segments(&[(0, 10), (100, 20), (200, 0)], 200, 512, 30).unwrap();
        let expected = [Segment { offset: 0, len: 10, source: 512 }, Segment { offset: 100, len: 20, source: 522 }];
        assert_eq!(*good, expected);
        for (runs, len, stored) in [
            (&[(0, 10)][..], 5, 10),
            (&[(0, 10), (5, 10)], 100, 20),
            (&[(10, 5), (0, 5)], 100, 10),
            (&[(0, 10)], 100, 20),
            (&[(0, 30)], 100, 20),
            (&[(u64::MAX, 2)], u64::MAX, 2),
            (&[(0, u64::MAX), (u64::MAX, 0)], u64::MAX, 2),
        ] {
            assert!(segments(runs, len, 0, stored).is_err(), "{runs:?}");
        }
    }
}
