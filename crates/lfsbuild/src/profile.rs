//! Profiles: which packages make a system, and the defaults of its image. `profiles/NAME.yaml`.

use std::collections::BTreeMap;

use serde::Deserialize;

use crate::config::ConfigDir;
use crate::error::{Error, Location, Result};
use crate::parse::{At, error_at, yaml};
use crate::recipe::{FileRule, OutputRef};

/// A profile, with what it extends merged in.
#[derive(Debug, Clone)]
pub struct Profile {
    /// Its name.
    pub name: String,
    /// What it is, in one line.
    pub summary: String,
    /// The packages of the system; files of earlier ones come first in the image.
    pub packages: Vec<Package>,
    /// Defaults for its image.
    pub image: ImageDefaults,
    /// Files of the profile's own. They may replace files of packages.
    pub files: BTreeMap<String, FileRule>,
    /// The file it was read from, for messages.
    pub path: String,
}

/// A package of a profile, with the place that names it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Package {
    /// The step's output.
    pub reference: OutputRef,
    /// Where the profile names it.
    pub location: Location,
}

/// What the image is like unless the command line says otherwise.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ImageDefaults {
    /// Size with a unit (`64M`).
    #[serde(default)]
    pub size: Option<String>,
    /// Volume label.
    #[serde(default)]
    pub label: Option<String>,
    /// Kind of file system (`ext4`).
    #[serde(default, rename = "type")]
    pub kind: Option<String>,
    /// The machine's name.
    #[serde(default)]
    pub hostname: Option<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ProfileFile {
    name: At<String>,
    summary: String,
    #[serde(default)]
    extends: Option<At<String>>,
    packages: Vec<At<String>>,
    #[serde(default)]
    image: ImageDefaults,
    #[serde(default)]
    files: BTreeMap<String, FileRule>,
}

impl Profile {
    /// Reads `profiles/NAME.yaml` and what it extends.
    ///
    /// # Errors
    /// No such profile ([`Error::Usage`], naming those that exist); anything wrong in the file.
    pub fn load(configs: &ConfigDir, name: &str) -> Result<Profile> {
        Self::load_chain(configs, name, &mut Vec::new())
    }

    fn load_chain(configs: &ConfigDir, name: &str, chain: &mut Vec<String>) -> Result<Profile> {
        let relative = format!("profiles/{name}.yaml");
        let Some(text) = configs.read(&relative)? else {
            return Err(Error::Usage {
                message: format!("there is no profile {name:?}"),
                hint: Some(format!("the profiles are: {}", configs.list("profiles")?.join(", "))),
            });
        };
        let path = configs.display_name(&relative);
        let file: ProfileFile = yaml(&path, &text)?;
        if *file.name != name {
            return Err(error_at(
                &path,
                &file.name,
                format!("found name {:?}, expected {name:?} as the file is called", file.name.value),
                None,
            ));
        }
        let mut packages = Vec::new();
        for package in &file.packages {
            let Some(reference) = OutputRef::parse(package) else {
                return Err(error_at(
                    &path,
                    package,
                    format!("found {:?}, expected NAME/STAGE or NAME/STAGE:OUTPUT", package.value),
                    None,
                ));
            };
            packages.push(Package { reference, location: package.location(&path) });
        }
        for (file_path, rule) in &file.files {
            rule.check(file_path).map_err(|message| Error::Config {
                location: Location { file: path.clone(), line: 0, column: 0 },
                message,
                hint: None,
            })?;
        }
        let mut profile = Profile {
            name: file.name.value.clone(),
            summary: file.summary,
            packages,
            image: file.image,
            files: file.files,
            path: path.clone(),
        };
        chain.push(name.to_owned());
        if let Some(base_name) = file.extends {
            if chain.contains(&base_name.value) {
                return Err(error_at(
                    &path,
                    &base_name,
                    format!("profiles extend each other in a circle: {} -> {}", chain.join(" -> "), base_name.value),
                    None,
                ));
            }
            if configs.read(&format!("profiles/{}.yaml", base_name.value))?.is_none() {
                return Err(error_at(
                    &path,
                    &base_name,
                    format!("there is no profile {:?} to extend", base_name.value),
                    None,
                ));
            }
            let base = Self::load_chain(configs, &base_name, chain)?;
            let own = std::mem::replace(&mut profile.packages, base.packages);
            profile.packages.extend(own);
            let mut files = base.files;
            files.append(&mut profile.files);
            profile.files = files;
            let ImageDefaults { size, label, kind, hostname } = profile.image;
            profile.image = ImageDefaults {
                size: size.or(base.image.size),
                label: label.or(base.image.label),
                kind: kind.or(base.image.kind),
                hostname: hostname.or(base.image.hostname),
            };
        }
        Ok(profile)
    }
}
