//! A recipe's sources: the files that come from outside, pinned.

use serde::Deserialize;

use crate::error::Result;
use crate::parse::{At, error_at};
use crate::sources::pypi::normalized;

/// One file that comes from outside, pinned by its hash.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Source {
    /// Its name in `/sources`.
    pub file: At<String>,
    /// SHA-256 of upstream's file, in hex.
    pub sha256: At<String>,
    /// Where upstream has it (http, https or file), in order of preference.
    #[serde(default)]
    pub urls: Vec<At<String>>,
    /// Where Debian has it.
    #[serde(default)]
    pub debian: Option<DebianSource>,
    /// Where the Python package index has it.
    #[serde(default)]
    pub pypi: Option<PypiSource>,
    /// Whether to unpack it (tar, plain or compressed by gzip, bzip2, xz); otherwise it is only put into `/sources`.
    #[serde(default = "yes")]
    pub unpack: bool,
}

/// The same file in a Debian source package.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DebianSource {
    /// Name of the source package.
    pub source: String,
    /// Its version in the pinned suite when the pin was made; a later one with the same file serves too.
    pub version: String,
    /// The file's name there.
    pub file: String,
    /// SHA-256 of Debian's file, where Debian repacked it and it therefore differs from upstream's.
    #[serde(default)]
    pub sha256: Option<At<String>>,
    /// The archive inside Debian's file that holds the sources, where Debian wrapped it into another.
    #[serde(default)]
    pub inner: Option<String>,
}

/// The same file in the Python package index that the host's pip is configured with.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PypiSource {
    /// Name of the package, in any spelling that the index takes for the same.
    pub name: At<String>,
    /// Its version.
    pub version: String,
    /// The file's name there, where it is not the source's own `file`.
    #[serde(default)]
    pub file: Option<At<String>>,
    /// SHA-256 of the index's file, where it differs from upstream's.
    #[serde(default)]
    pub sha256: Option<At<String>>,
}

impl Source {
    /// Checks what its text cannot say.
    ///
    /// # Errors
    /// [`Error::Config`](crate::Error::Config) with the place; `path` is the recipe's.
    pub(crate) fn check(&self, path: &str) -> Result<()> {
        check_sha256(path, &self.sha256)?;
        if let Some(sha256) = self.debian.as_ref().and_then(|d| d.sha256.as_ref()) {
            check_sha256(path, sha256)?;
        }
        if let Some(pypi) = &self.pypi {
            if let Some(sha256) = &pypi.sha256 {
                check_sha256(path, sha256)?;
            }
            if !pypi.fits(self) {
                let (file, at) = (pypi.file(self), pypi.file.as_ref().unwrap_or(&pypi.name));
                let message = format!("found file {file:?}, expected one of {} {}", *pypi.name, pypi.version);
                return Err(error_at(path, at, message, Some("`file` names the index's file".into())));
            }
        }
        if self.file.is_empty() || self.file.contains('/') || self.file.starts_with('.') {
            return Err(error_at(
                path,
                &self.file,
                format!("found {:?}, expected a plain file name", self.file.value),
                None,
            ));
        }
        for url in &self.urls {
            if !["https://", "http://", "file:///"].iter().any(|p| url.starts_with(p)) {
                return Err(error_at(
                    path,
                    url,
                    format!("found {:?}, expected a URL beginning with https://, http:// or file:///", url.value),
                    None,
                ));
            }
        }
        if self.urls.is_empty() && self.debian.is_none() && self.pypi.is_none() {
            return Err(error_at(
                path,
                &self.file,
                format!("source {} has none of `urls`, `debian`, `pypi`; expected at least one", self.file.value),
                None,
            ));
        }
        Ok(())
    }
}

impl DebianSource {
    /// The hash of Debian's file.
    pub fn sha256<'a>(&'a self, source: &'a Source) -> &'a str {
        self.sha256.as_ref().unwrap_or(&source.sha256).as_str()
    }
}

impl PypiSource {
    /// The hash of the index's file.
    pub fn sha256<'a>(&'a self, source: &'a Source) -> &'a str {
        self.sha256.as_ref().unwrap_or(&source.sha256).as_str()
    }

    /// The file's name in the index.
    pub fn file<'a>(&'a self, source: &'a Source) -> &'a str {
        self.file.as_ref().unwrap_or(&source.file).as_str()
    }

    /// Whether the file is one of that package and version: `NAME-VERSION.tar.gz`, `NAME-VERSION-py3-none-any.whl`.
    fn fits(&self, source: &Source) -> bool {
        let start = normalized(&format!("{}-{}", *self.name, self.version));
        let file = self.file(source);
        !file.contains('/') && normalized(file).strip_prefix(&start).is_some_and(|rest| rest.starts_with('-'))
    }
}

fn yes() -> bool {
    true
}

fn check_sha256(path: &str, sha256: &At<String>) -> Result<()> {
    if sha256.len() == 64 && sha256.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b)) {
        return Ok(());
    }
    Err(error_at(path, sha256, format!("found {:?}, expected 64 lower-case hexadecimal digits", sha256.value), None))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(rest: &str) -> Result<()> {
        let text = format!("file: flit_core-3.11.0.tar.gz\nsha256: {}\n{rest}\n", "0".repeat(64));
        crate::parse::yaml::<Source>("p.yaml", text.as_bytes())?.check("p.yaml")
    }

    #[test]
    fn a_file_of_the_index_is_one_of_its_package() {
        check("pypi: {name: Flit-Core, version: 3.11.0}").unwrap();
        check("pypi: {name: flit.core, version: 3.11.0, file: flit_core-3.11.0-py3-none-any.whl}").unwrap();
        let cases = [
            (
                "pypi: {name: flit, version: 3.11.0}",
                "p.yaml:3:14: found file \"flit_core-3.11.0.tar.gz\", expected one of flit 3.11.0",
            ),
            ("pypi: {name: flit_core, version: 3.1}", "p.yaml:3:14: found file"),
            (
                "pypi: {name: a, version: 1, file: ../a-1.tar}",
                "p.yaml:3:35: found file \"../a-1.tar\", expected one of a 1",
            ),
            ("pypi: {name: flit_core, version: 3.11.0, sha256: 12}", "p.yaml:3:50: found \"12\", expected 64"),
            ("urls: []", "p.yaml:1:7: source flit_core-3.11.0.tar.gz has none of `urls`, `debian`, `pypi`"),
        ];
        for (text, expected) in cases {
            let found = check(text).unwrap_err().to_string();
            assert!(found.starts_with(expected), "{text}\n   found: {found}\nexpected: {expected}");
        }
    }
}
