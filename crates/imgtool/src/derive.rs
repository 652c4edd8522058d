//! Identifiers made from the input, so that the same input gives the same bytes.

use sha2::{Digest, Sha256};

use crate::tree::{Body, Step, Tree};

/// Bytes that are put into the digest at once.
const GATHERED: usize = 16 * 1024;

/// An image's UUID and the seed of its directory hashes.
pub(crate) type Identifiers = ([u8; 16], [u8; 16]);

/// A UUID and a hash seed for an image of `tree`: a digest of all names, attributes, link targets and lengths, and of
/// `parameters`, which sets images of the same tree apart. Contents do not count: reading them all first would double
/// the work, and a changed file nearly always has another time or length.
pub(crate) fn identifiers(tree: &Tree, parameters: &str) -> Identifiers {
    let mut hash = Sha256::new();
    // The digest takes many bytes at once far faster than a few at a time.
    let mut gathered = Vec::with_capacity(2 * GATHERED);
    let mut field = |bytes: &[u8]| {
        gathered.extend_from_slice(&(bytes.len() as u64).to_le_bytes());
        gathered.extend_from_slice(bytes);
        if gathered.len() >= GATHERED {
            hash.update(&gathered);
            gathered.clear();
        }
    };
    field(b"umlfs image 1");
    field(parameters.as_bytes());
    for step in tree.walk() {
        let id = match step {
            Step::Root => crate::tree::NodeId::ROOT,
            Step::Name { name, id } => {
                field(name);
                id
            }
            Step::Leave => {
                field(b"/");
                continue;
            }
        };
        let node = tree.node(id);
        let meta = &node.meta;
        let numbers = [
            i64::from(meta.mode),
            i64::from(meta.uid),
            i64::from(meta.gid),
            meta.mtime.sec,
            i64::from(meta.mtime.nsec),
        ];
        field(numbers.map(i64::to_le_bytes).as_flattened());
        for (key, value) in &node.xattrs {
            field(key);
            field(value);
        }
        let device =
            |kind: &[u8], major: &u32, minor: &u32| [kind, &major.to_le_bytes(), &minor.to_le_bytes()].concat();
        match &node.body {
            Body::Directory(_) => field(b"d"),
            Body::Regular(content) => field(&[&b"f"[..], &content.len.to_le_bytes()].concat()),
            Body::Symlink(target) => field(&[b"l", &target[..]].concat()),
            Body::CharDevice(major, minor) => field(&device(b"c", major, minor)),
            Body::BlockDevice(major, minor) => field(&device(b"b", major, minor)),
            Body::Fifo => field(b"p"),
            Body::Socket => field(b"s"),
        }
    }
    hash.update(&gathered);
    let digest = hash.finalize();
    let half = |start: usize| -> [u8; 16] { std::array::from_fn(|at| digest[start + at]) };
    let mut uuid = half(0);
    // RFC 9562: version 8 (made by an application's own rule), variant 10.
    uuid[6] = uuid[6] & 0x0f | 0x80;
    uuid[8] = uuid[8] & 0x3f | 0x80;
    (uuid, half(16))
}

/// Reads a UUID: 32 hexadecimal digits, hyphens between them ignored.
pub fn parse_uuid(text: &str) -> Option<[u8; 16]> {
    let digits: Option<Vec<u8>> =
        text.chars().filter(|c| *c != '-').map(|c| c.to_digit(16).and_then(|digit| u8::try_from(digit).ok())).collect();
    let digits = digits.filter(|digits| digits.len() == 32)?;
    let (pairs, _) = digits.as_chunks::<2>();
    let mut uuid = [0; 16];
    for (byte, [high, low]) in uuid.iter_mut().zip(pairs) {
        *byte = high << 4 | low;
    }
    Some(uuid)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::text::uuid_text;

    #[test]
    fn uuids_are_read_and_written() {
        let text = "df6e8177-ccc4-4a44-9a26-a98e038326d3";
        assert_eq!(uuid_text(&parse_uuid(text).unwrap()), text);
        assert_eq!(parse_uuid("df6e8177"), None);
        assert_eq!(parse_uuid("zf6e8177-ccc4-4a44-9a26-a98e038326d3"), None);
        assert_eq!(parse_uuid(&format!("{text}0")), None);
    }

    #[test]
    fn identifiers_depend_on_the_input_alone() {
        let tree = Tree::new();
        let (uuid, seed) = identifiers(&tree, "a");
        assert_eq!(identifiers(&tree, "a"), (uuid, seed));
        assert_ne!(identifiers(&tree, "b").0, uuid);
        assert_eq!(uuid[6] >> 4, 8);
        assert_eq!(uuid[8] >> 6, 2);
    }
}
