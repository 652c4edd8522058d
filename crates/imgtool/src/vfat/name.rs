//! Names: long ones in UTF-16, and the short ones (8.3) that each file has, too.

use std::collections::HashSet;

/// A short name as entries store it: 8 and 3 bytes, padded with spaces.
pub(super) type Short = [u8; 11];

/// Characters 128 to 255 of code page 437, which short names are in.
const CP437: &str = "ÇüéâäàåçêëèïîìÄÅÉæÆôöòûùÿÖÜ¢£¥₧ƒáíóúñÑªº¿⌐¬½¼¡«»░▒▓│┤╡╢╖╕╣║╗╝╜╛┐└┴┬├─┼╞╟╚╔╩╦╠═╬╧╨╤╥╙╘╒╓╫╪┘┌█▄▌▐▀αßΓπΣσµτΦΘΩδ∞φε∩≡±≥≤⌠⌡÷≈°∙·√ⁿ²■\u{a0}";
/// Bit of an entry's byte 12: the name is in lower case.
const LOWER_BASE: u8 = 0x08;
/// Likewise the extension.
const LOWER_EXTENSION: u8 = 0x10;
/// The most units of UTF-16 in a name.
const LONGEST: usize = 255;
/// Units in one entry of a long name.
pub(super) const UNITS: usize = 13;

/// A short name as text; `case` is the entry's byte 12.
pub(super) fn short_text(short: &Short, case: u8) -> String {
    let part = |bytes: &[u8], lower: bool| -> String {
        let len = bytes.iter().rposition(|byte| *byte != b' ').map_or(0, |at| at + 1);
        let text: String = bytes.iter().take(len).map(|byte| decode(*byte)).collect();
        if lower { text.to_lowercase() } else { text }
    };
    let mut bytes = *short;
    // 0xe5 would mean a deleted entry.
    if bytes[0] == 0x05 {
        bytes[0] = 0xe5;
    }
    let (base, extension) = bytes.split_at(8);
    let mut text = part(base, case & LOWER_BASE != 0);
    let extension = part(extension, case & LOWER_EXTENSION != 0);
    if !extension.is_empty() {
        text.push('.');
        text += &extension;
    }
    text
}

fn decode(byte: u8) -> char {
    match byte {
        0..128 => char::from(byte),
        _ => CP437.chars().nth(usize::from(byte) - 128).unwrap_or('\u{fffd}'),
    }
}

/// As names are compared: without case.
pub(super) fn folded(name: &str) -> String {
    name.chars().flat_map(char::to_uppercase).collect()
}

/// Why FAT cannot have this name, if so.
pub(super) fn unfit(name: &str) -> Option<&'static str> {
    if name.encode_utf16().count() > LONGEST {
        return Some("has a name of more than 255 characters");
    }
    if name.chars().any(|c| c < ' ' || "\"*/:<>?\\|\u{7f}".contains(c)) {
        return Some("has a character in its name that FAT refuses (control characters, \" * / : < > ? \\ |)");
    }
    (name.ends_with(['.', ' ']) || name.is_empty()).then_some("has a name that ends in a dot or space")
}

/// The name if it is a short one as it is, in capitals.
fn exact(name: &str) -> Option<Short> {
    let (base, extension) = name.split_once('.').unwrap_or((name, ""));
    let fits = |part: &str, most: usize| {
        part.len() <= most
            && part.bytes().all(|b| b.is_ascii_uppercase() || b.is_ascii_digit() || b"$%'-_@~`!(){}^#&".contains(&b))
    };
    if base.is_empty() || !fits(base, 8) || !fits(extension, 3) || name.ends_with('.') {
        return None;
    }
    let mut short = [b' '; 11];
    super::put(&mut short, 0, base.as_bytes());
    super::put(&mut short, 8, extension.as_bytes());
    Some(short)
}

/// A short name for `name` that is not among `taken`, and whether a long name is needed beside it.
pub(super) fn short_for(name: &str, taken: &HashSet<Short>) -> Option<(Short, bool)> {
    let upper = name.to_ascii_uppercase();
    if let Some(short) = exact(&upper)
        && !taken.contains(&short)
    {
        return Some((short, upper != name));
    }
    let clean = |text: &str, most: usize| -> String {
        let valid = |c: char| c.is_ascii_alphanumeric() || "$%'-_@~`!(){}^#&".contains(c);
        let kept = text.chars().filter(|c| !matches!(c, '.' | ' '));
        kept.map(|c| if valid(c) { c } else { '_' }).take(most).collect()
    };
    let trimmed = upper.trim_start_matches('.');
    let (base, extension) = trimmed.rsplit_once('.').unwrap_or((trimmed, ""));
    let (base, extension) = (clean(base, 6), clean(extension, 3));
    let hash = name.bytes().fold(0x811c_9dc5u32, |hash, byte| (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193));
    let few = (1..10).map(|number| format!("{base}~{number}"));
    // With many names that begin alike, a hash tells them apart at once.
    let start: String = base.chars().take(2).collect();
    let many = (0..0x1_0000u32).flat_map(|step| {
        let middle = hash.wrapping_add(step) & 0xffff;
        let start = start.clone();
        (1..10).map(move |number| format!("{start}{middle:04X}~{number}"))
    });
    few.chain(many).find_map(|base| {
        let mut short = [b' '; 11];
        super::put(&mut short, 0, base.as_bytes());
        super::put(&mut short, 8, extension.as_bytes());
        (!taken.contains(&short)).then_some((short, true))
    })
}

/// The sum of a short name that entries of the long one carry.
pub(super) fn checksum(short: &Short) -> u8 {
    short.iter().fold(0u8, |sum, byte| sum.rotate_right(1).wrapping_add(*byte))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn short_names() {
        assert_eq!(CP437.chars().count(), 128);
        let text = |short: &Short| short_text(short, 0);
        let mut taken = HashSet::new();
        for (name, short, long) in [
            ("README.TXT", "README.TXT", false),
            ("readme.txt", "README~1.TXT", true),
            ("Makefile", "MAKEFILE", true),
            ("a long name.html", "ALONGN~1.HTM", true),
            ("a long name too.html", "ALONGN~2.HTM", true),
            (".profile", "PROFIL~1", true),
            ("x.y.z", "XY~1.Z", true),
            ("größe", "GR__E~1", true),
            ("a+b", "A_B~1", true),
        ] {
            let (made, needs_long) = short_for(name, &taken).unwrap();
            assert_eq!((text(&made).as_str(), needs_long), (short, long), "{name}");
            taken.insert(made);
        }
        for number in 0..3000 {
            let (made, _) = short_for(&format!("file number {number}"), &taken).unwrap();
            assert!(taken.insert(made), "{number}");
        }
    }

    #[test]
    fn case_and_code_page() {
        assert_eq!(short_text(b"FOO     BAR", LOWER_BASE), "foo.BAR");
        assert_eq!(short_text(b"FOO     BAR", LOWER_EXTENSION | LOWER_BASE), "foo.bar");
        assert_eq!(short_text(b"\x05\x8eB        ", 0), "σÄB");
        assert_eq!(folded("straße"), "STRASSE");
        assert_eq!(checksum(b"FOO     BAR"), 0x53);
    }

    #[test]
    fn names_that_fat_refuses() {
        for bad in ["a:b", "a/b", "x\n", "trailing.", "trailing ", &"x".repeat(256)] {
            assert!(unfit(bad).is_some(), "{bad}");
        }
        for good in ["a", ".hidden", "a b", &"ä".repeat(255)] {
            assert!(unfit(good).is_none(), "{good}");
        }
    }
}
