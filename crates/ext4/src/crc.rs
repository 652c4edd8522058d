//! The two checksums of the on-disk format: CRC-32C (Castagnoli) for `metadata_csum` and the journal, CRC-16
//! (ANSI) for `uninit_bg` group descriptors.

/// Tables for sixteen bytes a step.
static TABLES: [[u32; 256]; 16] = tables();

const fn tables() -> [[u32; 256]; 16] {
    let mut t = [[0u32; 256]; 16];
    let mut i = 0;
    while i < 256 {
        let mut c = i as u32;
        let mut k = 0;
        while k < 8 {
            c = if c & 1 != 0 { (c >> 1) ^ 0x82F6_3B78 } else { c >> 1 };
            k += 1;
        }
        t[0][i] = c;
        i += 1;
    }
    let mut j = 1;
    while j < 16 {
        let mut i = 0;
        while i < 256 {
            let p = t[j - 1][i];
            t[j][i] = (p >> 8) ^ t[0][(p & 0xff) as usize];
            i += 1;
        }
        j += 1;
    }
    t
}

/// Continues a CRC-32C without inverting it at either end, as Linux's `ext4_chksum` does.
pub(crate) fn crc32c(seed: u32, data: &[u8]) -> u32 {
    let t = &TABLES;
    let mut c = seed;
    let (chunks, rest) = data.as_chunks::<16>();
    for b in chunks {
        let lo = u32::from_le_bytes([b[0], b[1], b[2], b[3]]) ^ c;
        // Two halves that do not wait for each other; only the first four bytes wait for the step before.
        let late = t[15][(lo & 0xff) as usize]
            ^ t[14][(lo >> 8 & 0xff) as usize]
            ^ t[13][(lo >> 16 & 0xff) as usize]
            ^ t[12][(lo >> 24) as usize];
        let early = t[11][usize::from(b[4])]
            ^ t[10][usize::from(b[5])]
            ^ t[9][usize::from(b[6])]
            ^ t[8][usize::from(b[7])]
            ^ t[7][usize::from(b[8])]
            ^ t[6][usize::from(b[9])]
            ^ t[5][usize::from(b[10])]
            ^ t[4][usize::from(b[11])]
            ^ t[3][usize::from(b[12])]
            ^ t[2][usize::from(b[13])]
            ^ t[1][usize::from(b[14])]
            ^ t[0][usize::from(b[15])];
        c = late ^ early;
    }
    for &b in rest {
        c = (c >> 8) ^ t[0][((c ^ u32::from(b)) & 0xff) as usize];
    }
    c
}

/// Continues a CRC-16 (polynomial 0x8005, reflected).
pub(crate) fn crc16(seed: u16, data: &[u8]) -> u16 {
    let mut c = seed;
    for &b in data {
        c ^= u16::from(b);
        for _ in 0..8 {
            c = if c & 1 != 0 { (c >> 1) ^ 0xA001 } else { c >> 1 };
        }
    }
    c
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn check_values() {
        // The check values of the CRC catalogue: "123456789".
        assert_eq!(!crc32c(!0, b"123456789"), 0xE306_9283);
        assert_eq!(crc16(0, b"123456789"), 0xBB3D);
    }

    #[test]
    fn splitting_does_not_matter() {
        let data: [u8; 100] = core::array::from_fn(|i| (i * 7) as u8);
        for cut in 0..100 {
            assert_eq!(crc32c(crc32c(5, &data[..cut]), &data[cut..]), crc32c(5, &data));
        }
    }
}
