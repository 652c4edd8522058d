//! YAML with places: every error names file, line, column, what was found and what was expected.

use serde::de::{DeserializeOwned, MapAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::error::{Error, Location, Result};

/// A value and where it stands in its file, for errors that only show once the whole file is read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct At<T> {
    /// The value.
    pub value: T,
    /// Line, from 1 (0: unknown).
    pub line: u64,
    /// Column, from 1 (0: unknown).
    pub column: u64,
}

impl<T> At<T> {
    /// The place, in the file that the value was read from.
    pub fn location(&self, file: &str) -> Location {
        Location { file: file.to_owned(), line: self.line, column: self.column }
    }
}

impl<T> std::ops::Deref for At<T> {
    type Target = T;
    fn deref(&self) -> &T {
        &self.value
    }
}

impl<'de, T: Deserialize<'de>> Deserialize<'de> for At<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let spanned = serde_saphyr::Spanned::<T>::deserialize(deserializer)?;
        Ok(At { line: spanned.referenced.line(), column: spanned.referenced.column(), value: spanned.value })
    }
}

/// Only the value: places do not count in a step's key.
impl<T: Serialize> Serialize for At<T> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.value.serialize(serializer)
    }
}

/// A YAML mapping in the order in which it was written.
pub(crate) fn ordered_map<'de, D, V>(deserializer: D) -> Result<Vec<(String, V)>, D::Error>
where
    D: Deserializer<'de>,
    V: Deserialize<'de>,
{
    struct Ordered<V>(std::marker::PhantomData<V>);
    impl<'de, V: Deserialize<'de>> Visitor<'de> for Ordered<V> {
        type Value = Vec<(String, V)>;
        fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
            f.write_str("a mapping")
        }
        fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
            let mut entries = Vec::new();
            while let Some(entry) = map.next_entry::<String, V>()? {
                entries.push(entry);
            }
            Ok(entries)
        }
    }
    deserializer.deserialize_map(Ordered(std::marker::PhantomData))
}

/// Reads one YAML document.
///
/// # Errors
/// [`Error::Config`] with the place and the parser's words.
pub(crate) fn yaml<T: DeserializeOwned>(file: &str, text: &[u8]) -> Result<T> {
    let text = std::str::from_utf8(text).map_err(|e| {
        let before = text.get(..e.valid_up_to()).unwrap_or_default();
        let line = before.iter().filter(|&&b| b == b'\n').count() as u64 + 1;
        Error::Config {
            location: Location { file: file.to_owned(), line, column: 0 },
            message: "found a byte that is not UTF-8, expected YAML text".into(),
            hint: None,
        }
    })?;
    let options = serde_saphyr::options! { with_snippet: false };
    serde_saphyr::from_str_with_options(text, options).map_err(|e| {
        let place = e.location();
        // The formatter ends its message with the place, which is printed in front here.
        let message = e.render_with_formatter(&serde_saphyr::UserMessageFormatter);
        let message = match message.rfind(" at line ") {
            Some(i) => message.get(..i).unwrap_or(&message).to_owned(),
            None => message,
        };
        let found = place.as_ref().and_then(|l| found_at(text, l.line(), l.column()));
        let message = with_found(&message, found);
        Error::Config {
            location: Location {
                file: file.to_owned(),
                line: place.as_ref().map_or(0, |l| l.line()),
                column: place.as_ref().map_or(0, |l| l.column()),
            },
            message,
            hint: None,
        }
    })
}

/// The value that begins at a place, as far as it stands on that line.
fn found_at(text: &str, line: u64, column: u64) -> Option<&str> {
    let line = text.lines().nth(usize::try_from(line).ok()?.checked_sub(1)?)?;
    let start = line.char_indices().nth(usize::try_from(column).ok()?.checked_sub(1)?)?.0;
    let rest = line.get(start..)?;
    let end = rest.find(" #").unwrap_or(rest.len());
    let value = rest.get(..end)?.trim_end();
    (!value.is_empty()).then_some(value)
}

/// Puts the parser's words into "found X, expected Y", where it only says that something was wrong.
fn with_found(message: &str, found: Option<&str>) -> String {
    if message.starts_with("unknown") || message.contains("found") || message.contains("duplicate") {
        return message.to_owned();
    }
    let expected = match message {
        "expected mapping start" => "a mapping (lines of `key: value`)",
        "expected sequence start" => "a list (lines of `- value`, or [a, b])",
        "expected string scalar" => "text",
        m if m.starts_with("invalid floating point") => "a number",
        m if m.starts_with("invalid boolean") => "true or false",
        m if m.starts_with("invalid integer") || m.starts_with("invalid number") => "a whole number",
        m => match m.strip_prefix("expected ") {
            Some(expected) => expected,
            None => return m.to_owned(),
        },
    };
    match found {
        Some(found) => format!("found `{found}`, expected {expected}"),
        None => format!("found nothing, expected {expected}"),
    }
}

/// An error at a value of a file.
pub(crate) fn error_at<T>(file: &str, at: &At<T>, message: impl Into<String>, hint: Option<String>) -> Error {
    Error::Config { location: at.location(file), message: message.into(), hint }
}
