//! Bases: what many stages stand on, said once. `bases.yaml`.
//!
//! The book's chapters differ in where their commands run: chapters 5 and 6 on the host with the cross toolchain, from chapter 7
//! on in a root of the new system's own programs. A base is such a place; a stage names one with `base: NAME` and adds its own.
//!
//! ```yaml
//! bases:
//!   cross:
//!     summary: the host, with the cross toolchain in front
//!     host: [base, make]
//!     needs: [binutils/pass1, gcc/pass1]
//!     env: {LFS_TGT: x86_64-lfs-linux-gnu}
//!     finish: |
//!       rm -rf "$DEST/usr/share/man"
//! ```

use std::collections::BTreeMap;

use serde::Deserialize;

use crate::config::ConfigDir;
use crate::error::{Error, Result};
use crate::parse::{At, error_at, yaml};
use crate::recipe::{OutputRef, Root, Stage};

/// The file that holds all bases.
const FILE: &str = "bases.yaml";

/// Name of the phase that a base's `finish` becomes.
pub(crate) const FINISH: &str = "finish";

/// A text with the file it stands in, where that is another than the recipe.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Placed {
    /// The text and its line and column.
    pub value: At<String>,
    /// The file, as the user can find it.
    pub file: String,
}

/// What stages may share.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Base {
    /// What it is, in a line or a few.
    pub summary: String,
    /// A base that this one adds to.
    #[serde(default)]
    pub extends: Option<At<String>>,
    /// What the root of the sandbox is made of.
    #[serde(default)]
    pub root: Option<Root>,
    /// Tool groups of `host.yaml`.
    #[serde(default)]
    pub host: Vec<At<String>>,
    /// Steps whose packages are there.
    #[serde(default)]
    pub needs: Vec<At<String>>,
    /// Environment variables.
    #[serde(default)]
    pub env: BTreeMap<String, String>,
    /// Shell text that runs as the last phase of every stage.
    #[serde(default)]
    pub finish: Option<At<String>>,
}

/// A step that people know under a name of its own (`chroot`).
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Place {
    /// The profile whose plan has the step.
    pub profile: String,
    /// The step.
    pub step: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    bases: BTreeMap<String, Base>,
    #[serde(default)]
    places: BTreeMap<String, Place>,
}

/// All bases, read and checked.
#[derive(Debug, Clone, Default)]
pub struct Bases {
    bases: BTreeMap<String, Base>,
    places: BTreeMap<String, Place>,
    path: String,
}

impl Bases {
    /// Reads `bases.yaml`; a tree without one has no bases.
    ///
    /// # Errors
    /// [`Error::Config`] with the place of what is wrong.
    pub fn load(configs: &ConfigDir) -> Result<Bases> {
        let path = configs.display_name(FILE);
        let Some(text) = configs.read(FILE)? else {
            return Ok(Bases { path, ..Bases::default() });
        };
        let File { bases, places } = yaml(&path, &text)?;
        let all = Bases { bases, places, path };
        for base in all.bases.values() {
            for need in &base.needs {
                if OutputRef::parse(need).is_none() {
                    return Err(error_at(
                        &all.path,
                        need,
                        format!("found {:?}, expected NAME/STAGE or NAME/STAGE:OUTPUT", need.value),
                        None,
                    ));
                }
            }
        }
        Ok(all)
    }

    /// The place of that name.
    ///
    /// # Errors
    /// [`Error::Usage`], naming the places that there are.
    pub fn place(&self, name: &str) -> Result<&Place> {
        self.places.get(name).ok_or_else(|| Error::Usage {
            message: format!("there is no step or place {name:?}"),
            hint: Some(match self.places.keys().map(String::as_str).collect::<Vec<_>>() {
                known if known.is_empty() => "steps are named NAME/STAGE; `umlfs build --dry-run` lists them".into(),
                known => format!("steps are named NAME/STAGE; places are: {}", known.join(", ")),
            }),
        })
    }

    /// Gives a stage what its base has. The stage's own entries come after the base's and win over them.
    ///
    /// # Errors
    /// There is no such base, or bases extend each other in a circle.
    pub(crate) fn apply(&self, recipe_path: &str, stage: &mut Stage) -> Result<()> {
        let mut chain: Vec<&Base> = Vec::new();
        let mut next = stage.base.clone().map(|name| (name, recipe_path));
        while let Some((name, file)) = next {
            let Some(base) = self.bases.get(name.as_str()) else {
                let known: Vec<_> = self.bases.keys().map(String::as_str).collect();
                return Err(error_at(
                    file,
                    &name,
                    format!("found base {:?}, expected one of {}: {}", name.value, self.path, known.join(", ")),
                    None,
                ));
            };
            if chain.iter().any(|b| std::ptr::eq(*b, base)) {
                return Err(error_at(file, &name, format!("base {} extends itself", name.value), None));
            }
            chain.push(base);
            next = base.extends.clone().map(|name| (name, self.path.as_str()));
        }
        let placed = |value: &At<String>| Placed { value: value.clone(), file: self.path.clone() };
        let mut env = BTreeMap::new();
        for base in chain.into_iter().rev() {
            if let Some(root) = base.root {
                stage.root = root;
            }
            stage.inherited_host.extend(base.host.iter().map(placed));
            stage.inherited_needs.extend(base.needs.iter().map(placed));
            env.extend(base.env.clone());
            if let Some(finish) = &base.finish {
                stage.phases.retain(|(name, _)| name != FINISH || stage.finish_file.is_none());
                stage.phases.push((FINISH.to_owned(), finish.clone()));
                stage.finish_file = Some(self.path.clone());
            }
        }
        env.append(&mut stage.env);
        stage.env = env;
        if stage.root == Root::Packages {
            // A base on the host's tools may be extended to one without: its tools are then left behind.
            stage.inherited_host.clear();
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::recipe::Recipe;

    const BASES: &str = "\
bases:
  host: {summary: s, host: [tools], needs: [a/x], env: {A: '1', B: '1'}, finish: first}
  more: {summary: s, extends: host, needs: [b/x], env: {B: '2', C: '2'}, finish: second}
  inside: {summary: s, extends: more, root: packages}
  round: {summary: s, extends: round}
";

    fn stage(base: &str) -> Result<Stage> {
        let File { bases, places } = yaml("bases.yaml", BASES.as_bytes())?;
        let bases = Bases { bases, places, path: "bases.yaml".into() };
        let text = format!(
            "name: p\nversion: 1\nsummary: s\nlicense: MIT\nstages:\n  final:\n    summary: s\n    base: {base}\n    needs: [c/x]\n    env: {{C: '3'}}\n    phases: {{build: make}}\n"
        );
        let mut stage = Recipe::parse("p.yaml", text.as_bytes())?.stages.remove("final").unwrap();
        bases.apply("p.yaml", &mut stage)?;
        Ok(stage)
    }

    #[test]
    fn a_stage_gets_what_its_bases_have_and_its_own_wins() {
        let stage = stage("more").unwrap();
        let needs: Vec<_> = stage.inherited_needs.iter().map(|p| p.value.value.as_str()).collect();
        assert_eq!(needs, ["a/x", "b/x"]);
        let env: Vec<_> = stage.env.iter().map(|(k, v)| format!("{k}{v}")).collect();
        assert_eq!(env, ["A1", "B2", "C3"]);
        let phases: Vec<_> = stage.phases.iter().map(|(name, text)| (name.as_str(), text.value.as_str())).collect();
        assert_eq!(phases, [("build", "make"), (FINISH, "second")]);
        assert_eq!(stage.inherited_host.len(), 1);
    }

    #[test]
    fn a_root_of_packages_has_no_tools_of_the_host() {
        let stage = stage("inside").unwrap();
        assert_eq!(stage.root, Root::Packages);
        assert!(stage.inherited_host.is_empty());
    }

    #[test]
    fn mistakes_are_named_with_their_place() {
        let error = |base| stage(base).unwrap_err().to_string();
        assert!(error("other").starts_with("p.yaml:8:11: found base \"other\", expected one of bases.yaml: host, "));
        assert!(error("round").starts_with("bases.yaml:5:32: base round extends itself"), "{}", error("round"));
    }
}
