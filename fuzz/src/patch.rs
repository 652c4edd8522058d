//! A large input from a small one: what is to be changed in a sound file.

/// Changes `base` as `patches` say: three bytes of an offset, one of a length, and the bytes to be there.
pub fn apply(base: &[u8], mut patches: &[u8]) -> Vec<u8> {
    let mut bytes = base.to_vec();
    while let Some((head, rest)) = patches.split_first_chunk::<4>() {
        let offset = u32::from_le_bytes([head[0], head[1], head[2], 0]) as usize % bytes.len().max(1);
        let len = (usize::from(head[3]) % 16 + 1).min(rest.len()).min(bytes.len() - offset);
        bytes[offset..offset + len].copy_from_slice(&rest[..len]);
        patches = &rest[len..];
    }
    bytes
}

#[cfg(test)]
mod tests {
    use super::apply;

    #[test]
    fn patches_stay_inside() {
        assert_eq!(apply(b"abcdef", &[1, 0, 0, 1, b'X', b'Y', 11, 0, 0, 9, b'Z', b'Z']), b"aXYdeZ");
        assert_eq!(apply(b"abc", &[]), b"abc");
        assert_eq!(apply(b"", &[1, 0, 0, 1, b'X']), b"");
    }
}
