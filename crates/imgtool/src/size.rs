//! Sizes as people write and read them: `512M`, `1.5 GiB`.

use std::fmt;

use crate::Error;

/// Reads a size in bytes: a whole number with an optional unit K, M, G or T (powers of 1024; `KiB`, `MB`... mean the
/// same), or `s` for 512-byte sectors.
///
/// # Errors
/// Says what was expected when the text is anything else or the size does not fit 64 bits.
pub fn parse_size(text: &str) -> Result<u64, Error> {
    let wrong = || {
        Error::new(format_args!(
            "`{text}` is no size; expected a whole number of bytes with an optional unit, such as 512M or 1G"
        ))
    };
    let trimmed = text.trim();
    let digits = trimmed.find(|c: char| !c.is_ascii_digit()).unwrap_or(trimmed.len());
    let (number, unit) = trimmed.split_at(digits);
    let number: u64 = number.parse().map_err(|_| wrong())?;
    let unit = unit.trim().to_ascii_lowercase();
    let multiplier: u64 = match unit.strip_suffix("ib").or(unit.strip_suffix('b')).unwrap_or(&unit) {
        "" => 1,
        "s" => 512,
        "k" => 1 << 10,
        "m" => 1 << 20,
        "g" => 1 << 30,
        "t" => 1 << 40,
        _ => return Err(wrong()),
    };
    number.checked_mul(multiplier).ok_or_else(wrong)
}

/// Bytes for people: `17 B`, `4.0 KiB`, `1.5 GiB`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HumanSize(
    /// The size in bytes.
    pub u64,
);

impl fmt::Display for HumanSize {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const UNITS: [&str; 6] = ["KiB", "MiB", "GiB", "TiB", "PiB", "EiB"];
        if self.0 < 1024 {
            return write!(f, "{} B", self.0);
        }
        let mut value = self.0 as f64 / 1024.0;
        let mut unit = "KiB";
        for next in &UNITS[1..] {
            // 1023.95 would already print as 1024.0.
            if value < 1023.95 {
                break;
            }
            value /= 1024.0;
            unit = next;
        }
        if value.fract() == 0.0 { write!(f, "{value:.0} {unit}") } else { write!(f, "{value:.1} {unit}") }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_read() {
        for (text, bytes) in [
            ("0", 0),
            ("4096", 4096),
            ("1k", 1024),
            ("512M", 512 << 20),
            ("2 GiB", 2 << 30),
            ("1T", 1 << 40),
            ("8s", 4096),
            ("10MB", 10 << 20),
        ] {
            assert_eq!(parse_size(text).unwrap(), bytes, "{text}");
        }
        for text in ["", "G", "-1", "1.5G", "12x", "1kk", "99999999999T", "auto"] {
            assert!(parse_size(text).unwrap_err().to_string().contains("no size"), "{text}");
        }
    }

    #[test]
    fn sizes_are_printed() {
        for (bytes, text) in [
            (0, "0 B"),
            (1023, "1023 B"),
            (1024, "1 KiB"),
            (1536, "1.5 KiB"),
            ((1 << 20) - 1, "1.0 MiB"),
            (256 << 20, "256 MiB"),
            (u64::MAX, "16 EiB"),
        ] {
            assert_eq!(HumanSize(bytes).to_string(), text);
        }
    }
}
