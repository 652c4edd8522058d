//! Flag words.

use super::text;
use alloc::format;
use alloc::string::String;

/// The names of the bits that are set, in the table's order, joined by `|`; what is left as a number, which alone has the
/// comment `unknown`. A name for 0 in the table stands for the empty word.
pub(super) fn show(value: u64, names: &[(u64, &str)], unknown: &str) -> String {
    if value == 0 {
        return names.iter().find(|n| n.0 == 0).map_or("0", |n| n.1).into();
    }
    let mut left = value;
    let mut out = String::new();
    for &(bits, name) in names {
        if bits != 0 && left & bits == bits {
            if !out.is_empty() {
                out.push('|');
            }
            out.push_str(name);
            left &= !bits;
        }
    }
    if left == 0 {
        out
    } else if out.is_empty() {
        format!("{} /* {unknown} */", text::hex(left))
    } else {
        format!("{out}|{}", text::hex(left))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bits_left_over_are_shown() {
        const NAMES: &[(u64, &str)] = &[(3, "AB"), (1, "A"), (2, "B")];
        assert_eq!(show(0, NAMES, "?"), "0");
        assert_eq!(show(0, &[(0, "NONE"), (1, "A")], "?"), "NONE");
        assert_eq!(show(3, NAMES, "?"), "AB");
        assert_eq!(show(6, NAMES, "?"), "B|0x4");
        assert_eq!(show(4, NAMES, "X_???"), "0x4 /* X_??? */");
    }
}
