//! What of a guest's memory is in the host's (`smaps` of proc(5)), mapping by mapping as the host has them.

use alloc::vec::Vec;

/// One of the host's mappings in a guest process. Sizes in bytes, as the host tells them: multiples of 1024.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    /// First address.
    pub start: u64,
    /// First address behind it.
    pub end: u64,
    /// What is resident, by [`Size`].
    pub sizes: [u64; Size::COUNT],
}

/// What is told of a mapping, with the names of `smaps`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs, reason = "the names are those of proc(5)")]
pub enum Size {
    Rss,
    Pss,
    SharedClean,
    SharedDirty,
    PrivateClean,
    PrivateDirty,
    Referenced,
    Anonymous,
}

impl Size {
    /// How many there are.
    pub const COUNT: usize = 8;
    /// All, with their names in the text.
    pub const ALL: [(Size, &'static str); Size::COUNT] = [
        (Size::Rss, "Rss"),
        (Size::Pss, "Pss"),
        (Size::SharedClean, "Shared_Clean"),
        (Size::SharedDirty, "Shared_Dirty"),
        (Size::PrivateClean, "Private_Clean"),
        (Size::PrivateDirty, "Private_Dirty"),
        (Size::Referenced, "Referenced"),
        (Size::Anonymous, "Anonymous"),
    ];
}

impl Usage {
    /// Bytes of one in a message.
    pub const SIZE: usize = 8 * (2 + Size::COUNT);

    /// One of the sizes.
    pub fn size(&self, which: Size) -> u64 {
        self.sizes[which as usize]
    }

    /// As bytes.
    pub fn encode(&self) -> [u8; Usage::SIZE] {
        let mut bytes = [0; Usage::SIZE];
        let words = [self.start, self.end].into_iter().chain(self.sizes);
        for (place, word) in bytes.as_chunks_mut().0.iter_mut().zip(words) {
            *place = word.to_le_bytes();
        }
        bytes
    }

    /// From bytes that anybody may have written.
    pub fn decode(bytes: &[u8; Usage::SIZE]) -> Usage {
        let mut words = bytes.as_chunks().0.iter().map(|word| u64::from_le_bytes(*word));
        let mut next = || words.next().unwrap_or(0);
        let (start, end) = (next(), next());
        Usage { start, end, sizes: core::array::from_fn(|_| next()) }
    }

    /// Adds the part of another mapping that lies in this range: of one that reaches beyond, in proportion.
    pub fn add(&mut self, other: &Usage) {
        let (start, end) = (other.start.max(self.start), other.end.min(self.end));
        let len = other.end.saturating_sub(other.start);
        if start >= end || len == 0 {
            return;
        }
        for (size, of_other) in self.sizes.iter_mut().zip(other.sizes) {
            let part = u128::from(of_other) * u128::from(end - start) / u128::from(len);
            *size = size.saturating_add(part as u64);
        }
    }
}

/// Reads the text of `/proc/PID/smaps`.
pub fn parse(text: &str) -> Vec<Usage> {
    let mut all: Vec<Usage> = Vec::new();
    for line in text.lines() {
        let mut words = line.split_ascii_whitespace();
        let Some(first) = words.next() else { continue };
        if let Some(name) = first.strip_suffix(':') {
            let found = Size::ALL.iter().find(|(_, known)| *known == name);
            let kilobytes = words.next().and_then(|number| number.parse::<u64>().ok());
            if let (Some((which, _)), Some(usage), Some(n)) = (found, all.last_mut(), kilobytes) {
                usage.sizes[*which as usize] = n.saturating_mul(1024);
            }
        } else if let Some((start, end)) = first.split_once('-')
            && let (Ok(start), Ok(end)) = (u64::from_str_radix(start, 16), u64::from_str_radix(end, 16))
        {
            all.push(Usage { start, end, ..Usage::default() });
        }
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "\
7f0000000000-7f0000003000 r--p 00000000 fe:00 1    /lib/x
Size:                 12 kB
Rss:                   8 kB
Pss:                   4 kB
Private_Dirty:         4 kB
VmFlags: rd mr mw me
7f0000003000-7f0000004000 rw-p 00000000 00:00 0
Rss:                   4 kB
";

    #[test]
    fn the_host_s_text_is_read() {
        let all = parse(TEXT);
        assert_eq!(all.len(), 2);
        assert_eq!((all[0].start, all[0].end), (0x7f00_0000_0000, 0x7f00_0000_3000));
        assert_eq!(
            (all[0].size(Size::Rss), all[0].size(Size::Pss), all[0].size(Size::PrivateDirty)),
            (8192, 4096, 4096)
        );
        assert_eq!(all[1].size(Size::Rss), 4096);
        assert_eq!(Usage::decode(&all[0].encode()), all[0]);
        assert!(parse("rubbish\nRss: 4 kB\nx-y z\n").is_empty());
    }

    #[test]
    fn mappings_are_shared_out_in_proportion() {
        let mut range = Usage { start: 0x7f00_0000_2000, end: 0x7f00_0000_4000, ..Usage::default() };
        parse(TEXT).iter().for_each(|usage| range.add(usage));
        assert_eq!(range.size(Size::Rss), 8192 / 3 + 4096);
    }
}
