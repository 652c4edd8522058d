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
