//! Recipes: how one package is made. One YAML file each, `recipes/NAME.yaml`.
//!
//! ```yaml
//! name: musl
//! version: 1.2.5
//! summary: The C library
//! license: MIT
//! sources:
//!   - file: musl-1.2.5.tar.gz
//!     sha256: a9a1...
//!     urls: [https://...]
//!     debian: {source: musl, version: 1.2.5-3, file: musl_1.2.5.orig.tar.gz}
//!     pypi: {name: meson, version: 1.7.0} # where it is a Python package
//! stages:
//!   tools:
//!     summary: The C library and its compiler wrapper, below /tools
//!     needs: [linux-headers/tools]
//!     host: [base, compiler, make]
//!     phases:
//!       configure: ./configure --prefix=/tools
//!       build: make
//!       install: make DESTDIR=$DEST install
//!     test: make check
//! ```

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::base::{Bases, Placed};
use crate::config::ConfigDir;
use crate::error::{Error, Location, Result};
use crate::parse::{At, error_at, ordered_map, yaml};
pub use crate::source::{DebianSource, PypiSource, Source};

/// A recipe as read from its file, checked.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Recipe {
    /// The package's name; also the file's.
    pub name: At<String>,
    /// The package's version.
    pub version: String,
    /// What it is, in one line.
    pub summary: String,
    /// SPDX licence expression.
    pub license: String,
    /// Upstream's page.
    #[serde(default)]
    pub homepage: Option<String>,
    /// The files it is made from. The first is unpacked into the directory in which the phases run.
    #[serde(default)]
    pub sources: Vec<Source>,
    /// The ways in which it is built (`tools`, `temporary`, `final`), by name.
    pub stages: BTreeMap<String, Stage>,
    /// The file it was read from, for messages.
    #[serde(skip)]
    pub path: String,
}

/// One way of building the package.
///
/// What is serialized here is what decides whether a finished step can be reused: descriptions and estimates are left out.
#[derive(Debug, Clone, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Stage {
    /// What this stage makes and why, in a line or a few.
    #[serde(skip_serializing)]
    pub summary: String,
    /// The section of the Linux From Scratch book that it follows.
    #[serde(default, skip_serializing)]
    pub book: Option<String>,
    /// Expected time in standard build units (the time of the book's first binutils, on one core).
    #[serde(default = "small", skip_serializing)]
    pub sbu: f64,
    /// Steps whose packages must be there, `NAME/STAGE` or `NAME/STAGE:OUTPUT`. Counted by their keys.
    #[serde(default, skip_serializing)]
    pub needs: Vec<At<String>>,
    /// The base of `bases.yaml` that it stands on. Counted by what it brings.
    #[serde(default, skip_serializing)]
    pub base: Option<At<String>>,
    /// What the base needs.
    #[serde(skip)]
    pub inherited_needs: Vec<Placed>,
    /// The base's tool groups.
    #[serde(skip)]
    pub inherited_host: Vec<Placed>,
    /// The file of the base's `finish`, which is then the last of the phases.
    #[serde(skip)]
    pub finish_file: Option<String>,
    /// Steps whose packages this one's stands in for: where both are needed, theirs are left out.
    #[serde(default, skip_serializing)]
    pub replaces: Vec<At<String>>,
    /// Recipes whose sources are unpacked beside this one's, as `../NAME`. Counted by the sources' hashes.
    #[serde(default, skip_serializing)]
    pub beside: Vec<At<String>>,
    /// Directory below the sources in which the phases start; it is made.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub directory: Option<String>,
    /// Environment variables of the phases, besides those of every step.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub env: BTreeMap<String, String>,
    /// What the root of the sandbox is made of.
    #[serde(default)]
    pub root: Root,
    /// Names of the tool groups of `host.yaml` that the phases use (only with `root: host`). Counted by the tools' contents.
    #[serde(default, skip_serializing)]
    pub host: Vec<At<String>>,
    /// Files or directories of the configuration tree, copied to `/inputs/BASENAME`. Counted by their contents.
    #[serde(default, skip_serializing)]
    pub inputs: Vec<At<String>>,
    /// Shell text, phase by phase, in this order; each runs in a shell of its own that stops at the first error.
    #[serde(default, deserialize_with = "ordered_map")]
    pub phases: Vec<(String, At<String>)>,
    /// Shell text that runs the package's own test suite, with `umlfs build --test`: when the package has been made, in the tree that
    /// was built, as the phases are. It does not count in the key; what it prints is counted ([`crate::suite`]).
    #[serde(default, skip_serializing)]
    pub test: Option<At<String>>,
    /// Owners, modes and kinds that an unprivileged build cannot give, by absolute path.
    #[serde(default)]
    pub files: BTreeMap<String, FileRule>,
    /// Parts of what is installed that become outputs of their own: output name to absolute paths (with all below them).
    #[serde(default)]
    pub outputs: BTreeMap<String, Vec<String>>,
}

/// What the root of a step's sandbox is made of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Root {
    /// The host's `/usr`, read-only, with only the declared tools in `PATH`; needed packages are below `/sysroot`.
    #[default]
    Host,
    /// Nothing but the needed packages: the book's chroot.
    Packages,
}

/// How an installed path is recorded, or made when it does not exist.
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct FileRule {
    /// Kind of a path that the rule makes; without it the path must have been installed.
    #[serde(default, rename = "type")]
    pub kind: Option<NodeKind>,
    /// Permission bits in octal, as text (`"4755"`).
    #[serde(default)]
    pub mode: Option<Mode>,
    /// Numeric user ID of the owner.
    #[serde(default)]
    pub uid: u32,
    /// Numeric group ID.
    #[serde(default)]
    pub gid: u32,
    /// Device numbers `[major, minor]`.
    #[serde(default)]
    pub device: Option<(u32, u32)>,
    /// Target of a symbolic link.
    #[serde(default)]
    pub target: Option<String>,
    /// Text of a regular file.
    #[serde(default)]
    pub content: Option<String>,
}

/// Kinds of path that a [`FileRule`] can make.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum NodeKind {
    /// Directory.
    Dir,
    /// Regular file with the rule's `content`.
    File,
    /// Symbolic link to `target`.
    Symlink,
    /// Character device.
    Char,
    /// Block device.
    Block,
    /// Named pipe.
    Fifo,
}

/// Permission bits written in octal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Mode(pub u32);

impl<'de> Deserialize<'de> for Mode {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        match u32::from_str_radix(&text, 8) {
            Ok(mode) if mode <= 0o7777 => Ok(Mode(mode)),
            _ => Err(serde::de::Error::custom(format!(
                "found mode {text:?}, expected octal digits between \"0000\" and \"7777\""
            ))),
        }
    }
}

impl Serialize for Mode {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&format!("{:04o}", self.0))
    }
}

fn small() -> f64 {
    0.01
}

/// `NAME/STAGE[:OUTPUT]`, taken apart.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct OutputRef {
    /// `NAME/STAGE`.
    pub step: String,
    /// The output; none for the main one.
    pub output: Option<String>,
}

impl OutputRef {
    /// Takes `NAME/STAGE[:OUTPUT]` apart; none when it is not of that form.
    pub fn parse(text: &str) -> Option<Self> {
        let (step, output) = match text.split_once(':') {
            Some((step, output)) => (step, Some(output)),
            None => (text, None),
        };
        let (name, stage) = step.split_once('/')?;
        let good = |s: &str| !s.is_empty() && s.chars().all(|c| c.is_ascii_alphanumeric() || "+-._".contains(c));
        (good(name) && good(stage) && output.is_none_or(good))
            .then(|| OutputRef { step: step.to_owned(), output: output.map(str::to_owned) })
    }
}

impl std::fmt::Display for OutputRef {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match &self.output {
            Some(output) => write!(f, "{}:{output}", self.step),
            None => f.write_str(&self.step),
        }
    }
}

impl Recipe {
    /// Reads and checks `recipes/NAME.yaml`; none when there is no such file.
    ///
    /// # Errors
    /// [`Error::Config`] with the place of what is wrong.
    pub fn load(configs: &ConfigDir, bases: &Bases, name: &str) -> Result<Option<Recipe>> {
        let relative = format!("recipes/{name}.yaml");
        let Some(text) = configs.read(&relative)? else {
            return Ok(None);
        };
        let path = configs.display_name(&relative);
        let mut recipe = Recipe::parse(&path, &text)?;
        for stage in recipe.stages.values_mut() {
            bases.apply(&path, stage)?;
        }
        if *recipe.name != name {
            return Err(error_at(
                &path,
                &recipe.name,
                format!("found name {:?}, expected {name:?} as the file is called", recipe.name.value),
                None,
            ));
        }
        for stage in recipe.stages.values() {
            for input in &stage.inputs {
                if configs.read(input)?.is_none() && configs.read_tree(input)?.is_empty() {
                    return Err(error_at(
                        &path,
                        input,
                        format!("input {} does not exist", configs.display_name(input)),
                        Some("inputs are paths below the configuration directory".into()),
                    ));
                }
            }
        }
        Ok(Some(recipe))
    }

    /// Parses and checks a recipe's text. `path` is for messages.
    ///
    /// # Errors
    /// [`Error::Config`].
    pub fn parse(path: &str, text: &[u8]) -> Result<Recipe> {
        let mut recipe: Recipe = yaml(path, text)?;
        recipe.path = path.to_owned();
        recipe.check()?;
        Ok(recipe)
    }

    fn check(&self) -> Result<()> {
        let path = self.path.as_str();
        for source in &self.sources {
            source.check(path)?;
        }
        for (name, stage) in &self.stages {
            let step = format!("{}/{name}", self.name.value);
            let whole = |message: String| Error::Config {
                location: Location { file: path.to_owned(), line: 0, column: 0 },
                message: format!("{step}: {message}"),
                hint: None,
            };
            if OutputRef::parse(&step).is_none() {
                return Err(whole("names of recipes and stages are letters, digits and + - . _".into()));
            }
            for need in stage.needs.iter().chain(&stage.replaces) {
                if OutputRef::parse(need).is_none() {
                    return Err(error_at(
                        path,
                        need,
                        format!("found {:?}, expected NAME/STAGE or NAME/STAGE:OUTPUT", need.value),
                        None,
                    ));
                }
            }
            if stage.root == Root::Packages {
                if let Some(group) = stage.host.first() {
                    return Err(error_at(
                        path,
                        group,
                        "`root: packages` has no access to the host, expected no `host` entries",
                        None,
                    ));
                }
                if stage.needs.is_empty() && stage.base.is_none() {
                    return Err(whole("`root: packages` needs packages to make a root from".into()));
                }
            }
            if let Some(directory) = &stage.directory
                && check_path(&format!("/{directory}")).is_err()
            {
                return Err(whole(format!("found directory {directory:?}, expected a path below the sources")));
            }
            if let (true, Some(test)) = (stage.phases.is_empty(), &stage.test) {
                return Err(error_at(path, test, "`test` has nothing to test without `phases`", None));
            }
            if stage.phases.is_empty() && stage.files.is_empty() {
                return Err(whole("found neither `phases` nor `files`, expected at least one".into()));
            }
            for (path, rule) in &stage.files {
                rule.check(path).map_err(&whole)?;
            }
            for (output, paths) in &stage.outputs {
                for p in paths {
                    check_path(p).map_err(|e| whole(format!("output {output}: {e}")))?;
                }
            }
        }
        Ok(())
    }
}

fn check_path(path: &str) -> Result<(), String> {
    if !path.starts_with('/')
        || path.len() < 2
        || path.ends_with('/')
        || path.split('/').skip(1).any(|c| matches!(c, "" | "." | ".."))
    {
        return Err(format!("found path {path:?}, expected an absolute path without empty, . and .. parts"));
    }
    Ok(())
}

impl FileRule {
    /// Whether the rule's parts fit together.
    ///
    /// # Errors
    /// A message that names the path and what does not fit.
    pub fn check(&self, path: &str) -> Result<(), String> {
        check_path(path)?;
        let is = |kinds: &[NodeKind]| self.kind.is_some_and(|k| kinds.contains(&k));
        let wants = [
            ("device", self.device.is_some(), is(&[NodeKind::Char, NodeKind::Block]), "type: char or block"),
            ("target", self.target.is_some(), is(&[NodeKind::Symlink]), "type: symlink"),
            ("content", self.content.is_some(), is(&[NodeKind::File]), "type: file"),
        ];
        for (key, present, wanted, kind) in wants {
            if present != wanted {
                return Err(format!("{path}: `{key}` and `{kind}` go together, found only one of them"));
            }
        }
        if is(&[NodeKind::Symlink]) && self.mode.is_some() {
            return Err(format!("{path}: a symbolic link has no mode of its own"));
        }
        if let Some((major, minor)) = self.device
            && (major > 0xfff || minor > 0xf_ffff)
        {
            return Err(format!("{path}: found device [{major}, {minor}], expected at most [4095, 1048575]"));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Four lines, so that what follows begins on line 5.
    const HEAD: &str = "name: p\nversion: 1\nsummary: s\nlicense: MIT\n";

    fn parse(rest: &str) -> Result<Recipe> {
        Recipe::parse("p.yaml", format!("{HEAD}{rest}").as_bytes())
    }

    fn error(rest: &str) -> String {
        parse(rest).unwrap_err().to_string()
    }

    #[test]
    fn errors_name_line_column_found_and_expected() {
        let stage = |rest: &str| format!("stages:\n  final:\n    summary: s\n{rest}");
        let cases = [
            (
                stage("    phases: {build: make}\n    colour: red\n"),
                "p.yaml:9:5: unknown field `colour`, expected one of summary, ",
            ),
            ("stages: [final]\n".into(), "p.yaml:5:9: found `[final]`, expected a mapping"),
            ("stages:\n  final:\n    phases: {a: b}\n".into(), "p.yaml:7:5: missing field `summary`"),
            (stage("    sbu: fast # very\n    phases: {a: b}\n"), "p.yaml:8:10: found `fast`, expected a number"),
            (
                stage("    root: hots\n    phases: {a: b}\n"),
                "p.yaml:8:11: unknown variant `hots`, expected one of host, packages",
            ),
            (stage("    needs: a/b\n    phases: {a: b}\n"), "p.yaml:8:12: found `a/b`, expected a list"),
            (stage("    needs: [a/b, c]\n    phases: {a: b}\n"), "p.yaml:8:18: found \"c\", expected NAME/STAGE"),
            (stage("    phases: {a: b, a: c}\n"), "p.yaml:8:20: duplicate mapping key `a`"),
            (stage("    files: {}\n    test: x\n"), "p.yaml:9:11: `test` has nothing to test"),
            (stage(""), "p.yaml: p/final: found neither `phases` nor `files`"),
            (
                stage("    files:\n      /x: {type: file, mode: \"9\", content: a}\n"),
                "p.yaml:9:30: found mode \"9\", expected octal",
            ),
            (
                stage("    files:\n      /x: {type: file}\n"),
                "p.yaml: p/final: /x: `content` and `type: file` go together",
            ),
            (
                stage("    files:\n      /x/../y: {type: dir}\n"),
                "p.yaml: p/final: found path \"/x/../y\", expected an absolute",
            ),
            (
                "sources:\n  - file: a\n    sha256: 12\n    urls: [https://a/a]\nstages: {}\n".into(),
                "p.yaml:7:13: found \"12\", expected 64",
            ),
            (
                format!("sources:\n  - file: a\n    sha256: {}\n    urls: [ftp://a]\nstages: {{}}\n", "0".repeat(64)),
                "p.yaml:8:12: found \"ftp://a\", expected a URL",
            ),
            (
                format!("sources:\n  - file: a/b\n    sha256: {}\n    urls: []\nstages: {{}}\n", "0".repeat(64)),
                "p.yaml:6:11: found \"a/b\", expected a plain file name",
            ),
        ];
        for (text, expected) in cases {
            let found = error(&text);
            assert!(found.starts_with(expected), "{text}\n   found: {found}\nexpected: {expected}");
        }
    }

    #[test]
    fn bytes_that_are_no_text_are_named_with_their_line() {
        let found = Recipe::parse("p.yaml", b"name: p\nversion: \xff\n").unwrap_err().to_string();
        assert!(found.starts_with("p.yaml:2: found a byte that is not UTF-8"), "{found}");
    }

    #[test]
    fn phases_keep_their_order_and_place() {
        let recipe =
            parse("stages:\n  final:\n    summary: s\n    phases:\n      z: |\n        one\n        two\n      a: x\n")
                .unwrap();
        let phases = &recipe.stages["final"].phases;
        let got: Vec<_> = phases.iter().map(|(n, t)| (n.as_str(), t.value.as_str(), t.line)).collect();
        assert_eq!(got, [("z", "one\ntwo\n", 10), ("a", "x", 12)]);
    }

    #[test]
    fn references_come_apart_and_together() {
        let parse = |text| OutputRef::parse(text).map(|r| r.to_string());
        for good in ["a/b", "gcc-14.2+x/pass1", "busybox/final:testsuite"] {
            assert_eq!(parse(good).as_deref(), Some(good));
        }
        for bad in ["", "a", "a/", "/b", "a/b/c", "a/b:", "a b/c", "../a/b"] {
            assert_eq!(parse(bad), None, "{bad}");
        }
    }

    proptest::proptest! {
        /// Whatever a file holds, the answer is a recipe or an error that names it.
        #[test]
        fn any_text_gives_a_recipe_or_an_error(text in "[ -~\n]{0,200}") {
            if let Err(error) = Recipe::parse("p.yaml", text.as_bytes()) {
                proptest::prop_assert!(error.to_string().starts_with("p.yaml"), "{}", error);
            }
        }
    }
}
