//! The hashes of indexed directories, as Linux's `fs/ext4/hash.c` and e2fsprogs compute them.

/// A name's hash: the part that orders leaf blocks (its lowest bit is free for the index's use), and the part that
/// orders names of equal first parts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct NameHash {
    pub(crate) major: u32,
    pub(crate) minor: u32,
}

/// Hash version numbers of the index root.
pub(crate) const LEGACY: u8 = 0;
pub(crate) const HALF_MD4: u8 = 1;
pub(crate) const TEA: u8 = 2;

/// Hashes a name. `unsigned` says how the file system's first user's machine treated `char`.
/// `None` for a version that is not known.
pub(crate) fn name_hash(name: &[u8], version: u8, unsigned: bool, seed: &[u32; 4]) -> Option<NameHash> {
    let mut buf = [0x6745_2301u32, 0xefcd_ab89, 0x98ba_dcfe, 0x1032_5476];
    if seed.iter().any(|&w| w != 0) {
        buf = *seed;
    }
    let (mut major, minor) = match version {
        LEGACY => (legacy(name, unsigned), 0),
        HALF_MD4 => {
            for (i, _) in name.chunks(32).enumerate() {
                let words = pack::<8>(&name[i * 32..], unsigned);
                half_md4(&mut buf, &words);
            }
            (buf[1], buf[2])
        }
        TEA => {
            for (i, _) in name.chunks(16).enumerate() {
                let words = pack::<4>(&name[i * 16..], unsigned);
                tea(&mut buf, &words);
            }
            (buf[0], buf[1])
        }
        _ => return None,
    };
    major &= !1;
    // The largest value marks the end of a directory.
    if major == 0xFFFF_FFFE {
        major = 0xFFFF_FFFC;
    }
    Some(NameHash { major, minor })
}

fn char_value(b: u8, unsigned: bool) -> u32 {
    if unsigned { u32::from(b) } else { i32::from(b.cast_signed()).cast_unsigned() }
}

fn legacy(name: &[u8], unsigned: bool) -> u32 {
    let (mut h0, mut h1) = (0x12a3_fe2du32, 0x37ab_e8f9u32);
    for &b in name {
        let c = char_value(b, unsigned).wrapping_mul(7_152_373);
        let mut h = h1.wrapping_add(h0 ^ c);
        if h & 0x8000_0000 != 0 {
            h = h.wrapping_sub(0x7fff_ffff);
        }
        h1 = h0;
        h0 = h;
    }
    h0 << 1
}

/// Packs up to `4 * N` bytes into words, big end first, padded with the name's length (`str2hashbuf`).
fn pack<const N: usize>(name: &[u8], unsigned: bool) -> [u32; N] {
    let len = name.len() as u32;
    let mut pad = len | len << 8;
    pad |= pad << 16;
    let mut out = [pad; N];
    let mut val = pad;
    let mut filled = 0;
    for (i, &b) in name.iter().take(N * 4).enumerate() {
        val = char_value(b, unsigned).wrapping_add(val << 8);
        if i % 4 == 3 {
            out[filled] = val;
            filled += 1;
            val = pad;
        }
    }
    if filled < N {
        out[filled] = val;
    }
    out
}

fn half_md4(buf: &mut [u32; 4], x: &[u32; 8]) {
    let [mut a, mut b, mut c, mut d] = *buf;
    let f = |x: u32, y: u32, z: u32| z ^ (x & (y ^ z));
    let g = |x: u32, y: u32, z: u32| (x & y).wrapping_add((x ^ y) & z);
    let h = |x: u32, y: u32, z: u32| x ^ y ^ z;
    let step = |a: u32, n: u32, word: u32, s: u32| a.wrapping_add(n).wrapping_add(word).rotate_left(s);
    for i in [0, 4] {
        a = step(a, f(b, c, d), x[i], 3);
        d = step(d, f(a, b, c), x[i + 1], 7);
        c = step(c, f(d, a, b), x[i + 2], 11);
        b = step(b, f(c, d, a), x[i + 3], 19);
    }
    const K2: u32 = 0x5a82_7999;
    for i in [1, 0] {
        a = step(a, g(b, c, d), x[i].wrapping_add(K2), 3);
        d = step(d, g(a, b, c), x[i + 2].wrapping_add(K2), 5);
        c = step(c, g(d, a, b), x[i + 4].wrapping_add(K2), 9);
        b = step(b, g(c, d, a), x[i + 6].wrapping_add(K2), 13);
    }
    const K3: u32 = 0x6ed9_eba1;
    for i in [3, 1] {
        a = step(a, h(b, c, d), x[i].wrapping_add(K3), 3);
        d = step(d, h(a, b, c), x[i + 4].wrapping_add(K3), 9);
        c = step(c, h(d, a, b), x[i - 1].wrapping_add(K3), 11);
        b = step(b, h(c, d, a), x[i + 3].wrapping_add(K3), 15);
    }
    buf[0] = buf[0].wrapping_add(a);
    buf[1] = buf[1].wrapping_add(b);
    buf[2] = buf[2].wrapping_add(c);
    buf[3] = buf[3].wrapping_add(d);
}

fn tea(buf: &mut [u32; 4], x: &[u32; 4]) {
    let (mut b0, mut b1) = (buf[0], buf[1]);
    let mut sum = 0u32;
    for _ in 0..16 {
        sum = sum.wrapping_add(0x9E37_79B9);
        b0 = b0.wrapping_add((b1 << 4).wrapping_add(x[0]) ^ b1.wrapping_add(sum) ^ (b1 >> 5).wrapping_add(x[1]));
        b1 = b1.wrapping_add((b0 << 4).wrapping_add(x[2]) ^ b0.wrapping_add(sum) ^ (b0 >> 5).wrapping_add(x[3]));
    }
    buf[0] = buf[0].wrapping_add(b0);
    buf[1] = buf[1].wrapping_add(b1);
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Values that `debugfs -R "dx_hash -h VERSION [-s SEED] NAME"` prints.
    #[test]
    fn as_debugfs_computes() {
        let long = b"hello_world_this_is_a_long_name_over_32_bytes";
        let mut seed = [0u32; 4];
        let uuid: [u8; 16] =
            [0x32, 0x76, 0xf8, 0x80, 0xa2, 0x6f, 0x49, 0x1c, 0x8e, 0x99, 0x45, 0x66, 0xe0, 0x67, 0xe1, 0x08];
        for (w, b) in seed.iter_mut().zip(uuid.as_chunks::<4>().0) {
            *w = u32::from_le_bytes(*b);
        }
        let h = |name: &[u8], v, seed: &[u32; 4]| name_hash(name, v, false, seed).map(|h| (h.major, h.minor));
        assert_eq!(h(long, HALF_MD4, &seed), Some((0xab14_13ce, 0x2c98_7485)));
        assert_eq!(h(long, TEA, &seed), Some((0xba4c_1720, 0x1648_c108)));
        assert_eq!(h(long, LEGACY, &seed), Some((0x0863_497e, 0)));
        let name = "été".as_bytes();
        assert_eq!(h(name, HALF_MD4, &[0; 4]), Some((0xa69a_4d3a, 0x22ba_c128)));
        assert_eq!(h(name, TEA, &[0; 4]), Some((0x04d3_37a6, 0x0615_a017)));
        assert_eq!(h(name, LEGACY, &[0; 4]), Some((0x70d7_b7fc, 0)));
        assert_eq!(h(name, 9, &[0; 4]), None);
    }

    #[test]
    fn signedness_matters_beyond_ascii_only() {
        for v in [LEGACY, HALF_MD4, TEA] {
            let h = |n: &[u8], u| name_hash(n, v, u, &[1, 2, 3, 4]);
            assert_eq!(h(b"plain", true), h(b"plain", false));
            assert_ne!(h(b"\xC3\xA9t\xC3\xA9", true), h(b"\xC3\xA9t\xC3\xA9", false));
        }
    }
}
