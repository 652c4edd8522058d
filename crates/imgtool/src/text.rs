//! Values as text for people.

use std::fmt;

/// A path for people: `/`-joined, control characters escaped, long ones cut.
pub(crate) fn shown(path: &[u8]) -> impl fmt::Display {
    const LONGEST: usize = 200;
    let text: String = String::from_utf8_lossy(path)
        .chars()
        .flat_map(|c| {
            let control = c.is_control();
            control.then(|| c.escape_default()).into_iter().flatten().chain((!control).then_some(c))
        })
        .collect();
    match text.char_indices().nth(LONGEST) {
        Some((end, _)) => format!("{}...", text.get(..end).unwrap_or_default()),
        None => text,
    }
}

/// A UUID in its usual form.
pub(crate) fn uuid_text(uuid: &[u8; 16]) -> String {
    let hex: String = uuid.iter().map(|byte| format!("{byte:02x}")).collect();
    let part = |from: usize, to: usize| hex.get(from..to).unwrap_or_default().to_owned();
    [part(0, 8), part(8, 12), part(12, 16), part(16, 20), part(20, 32)].join("-")
}

/// Whether `name` matches a shell pattern: `*`, `?`, `[a-z]`, `[!a]`, and `\` before a character that stands for
/// itself (`fnmatch(3)` without flags).
pub fn glob(pattern: &[u8], name: &[u8]) -> bool {
    let (mut p, mut n) = (0, 0);
    // After the last star: where the pattern goes on, and the name's byte tried next.
    let mut star: Option<(usize, usize)> = None;
    loop {
        let matched = match (pattern.get(p), name.get(n)) {
            (None, None) => return true,
            (Some(b'*'), _) => {
                star = Some((p + 1, n));
                p += 1;
                continue;
            }
            (Some(_), Some(byte)) => one(pattern.get(p..).unwrap_or_default(), *byte),
            _ => None,
        };
        match (matched, star) {
            (Some(len), _) => (p, n) = (p + len, n + 1),
            (None, Some((after, at))) if at < name.len() => {
                star = Some((after, at + 1));
                (p, n) = (after, at + 1);
            }
            _ => return false,
        }
    }
}

/// How many bytes of the pattern match `byte`, if they do.
fn one(pattern: &[u8], byte: u8) -> Option<usize> {
    match pattern {
        [b'?', ..] => Some(1),
        [b'\\', literal, ..] => (*literal == byte).then_some(2),
        [b'[', rest @ ..] => {
            let negated = matches!(rest.first(), Some(b'!' | b'^'));
            let set = rest.get(usize::from(negated)..)?;
            // A bracket that comes first is a member.
            let end = 1 + set.get(1..)?.iter().position(|byte| *byte == b']')?;
            let members = set.get(..end)?;
            let mut found = false;
            let mut at = 0;
            while let Some(first) = members.get(at) {
                match (members.get(at + 1), members.get(at + 2)) {
                    (Some(b'-'), Some(last)) => {
                        found |= (*first..=*last).contains(&byte);
                        at += 3;
                    }
                    _ => {
                        found |= *first == byte;
                        at += 1;
                    }
                }
            }
            (found != negated).then_some(1 + usize::from(negated) + end + 1)
        }
        [literal, ..] => (*literal == byte).then_some(1),
        [] => None,
    }
}

#[cfg(test)]
mod tests {
    use super::glob;

    #[test]
    fn patterns_match_as_the_shell_has_them() {
        for (pattern, name, expected) in [
            ("*.so*", "libc.so.6", true),
            ("*.so", "libc.so.6", false),
            ("a?c", "abc", true),
            ("a?c", "ac", false),
            ("[a-c]x", "bx", true),
            ("[!a-c]x", "bx", false),
            ("[]]", "]", true),
            ("\\*", "*", true),
            ("\\*", "a", false),
            ("*a*b", "xaxxab", true),
            ("", "", true),
            ("*", "", true),
            ("[", "[", false),
        ] {
            assert_eq!(glob(pattern.as_bytes(), name.as_bytes()), expected, "{pattern} {name}");
        }
    }
}
