//! Numbers and strings as strace writes them.

use crate::errno::Errno;
use alloc::format;
use alloc::string::String;
use core::fmt::Write;

/// `0x1f`, but `0`.
pub(super) fn hex(value: u64) -> String {
    if value == 0 { "0".into() } else { format!("{value:#x}") }
}

/// A string literal of C; `more` adds the dots that stand for the rest.
pub(super) fn quote(bytes: &[u8], more: bool) -> String {
    let mut out = String::with_capacity(bytes.len() + 5);
    out.push('"');
    for (i, &byte) in bytes.iter().enumerate() {
        match byte {
            b'"' | b'\\' => {
                out.push('\\');
                out.push(char::from(byte));
            }
            b'\n' => out.push_str("\\n"),
            b'\t' => out.push_str("\\t"),
            b'\r' => out.push_str("\\r"),
            0x0b => out.push_str("\\v"),
            0x0c => out.push_str("\\f"),
            0x20..=0x7e => out.push(char::from(byte)),
            _ => {
                // A digit behind it would be read as part of a short number.
                let digit_follows = bytes.get(i + 1).is_some_and(u8::is_ascii_digit);
                // Writing to a String never fails.
                let _ = if digit_follows { write!(out, "\\{byte:03o}") } else { write!(out, "\\{byte:o}") };
            }
        }
    }
    out.push('"');
    if more {
        out.push_str("...");
    }
    out
}

/// Every byte in hexadecimal, as strace shows random ones.
pub(super) fn quote_hex(bytes: &[u8], more: bool) -> String {
    let mut out = String::from("\"");
    for byte in bytes {
        // Writing to a String never fails.
        let _ = write!(out, "\\x{byte:02x}");
    }
    out.push('"');
    if more {
        out.push_str("...");
    }
    out
}

/// What strace says of a restart number.
pub(super) fn restart(errno: Errno) -> &'static str {
    match errno {
        Errno::ERESTARTSYS => "To be restarted if SA_RESTART is set",
        Errno::ERESTARTNOINTR => "To be restarted",
        Errno::ERESTARTNOHAND => "To be restarted if no handler",
        _ => "Interrupted by signal",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn strings_are_quoted_as_strace_does() {
        assert_eq!(quote(b"a\"b\\\n\t\0", false), r#""a\"b\\\n\t\0""#);
        assert_eq!(quote(b"\x01\x32\x7f\xff9", true), r#""\0012\177\3779"..."#);
        assert_eq!(quote_hex(b"\x01\xff", false), r#""\x01\xff""#);
        assert_eq!((hex(0).as_str(), hex(255).as_str()), ("0", "0xff"));
    }
}
