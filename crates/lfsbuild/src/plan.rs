//! The plan: which steps a profile takes, in which order, and the key of each.
//!
//! A step is one stage of one recipe, `NAME/STAGE`. Its key is a hash over all that can change what it makes: the stage's text,
//! the hashes of its sources and inputs, the keys of the steps that it needs, the contents of the host tools that it uses, and the
//! builder's own formats. Descriptions, book sections and estimates do not count.

use std::collections::{BTreeMap, BTreeSet};

use crate::config::ConfigDir;
use crate::error::{Error, Location, Result};
use crate::hash::{Fields, sha256};
use crate::host::{HostHashes, HostTools};
use crate::package::MAIN;
use crate::parse::error_at;
use crate::profile::Profile;
use crate::recipe::{OutputRef, Recipe, Root, Source, Stage};
use crate::sandbox::SANDBOX_VERSION;
use crate::store::Store;
use crate::{FORMAT_VERSION, SOURCE_DATE_EPOCH};

/// A step with its key.
#[derive(Debug, Clone)]
pub struct Step {
    /// `NAME/STAGE`.
    pub name: String,
    /// The recipe's name.
    pub recipe: String,
    /// The stage's name.
    pub stage: String,
    /// Its key, 64 hexadecimal digits.
    pub key: String,
    /// What it needs, as written, with the needed steps' keys.
    pub needs: Vec<(OutputRef, String)>,
    /// Its inputs from the configuration tree, by path below `/inputs`.
    pub inputs: BTreeMap<String, Vec<u8>>,
    /// Host commands that it may call: name and path.
    pub commands: Vec<(String, std::path::PathBuf)>,
}

/// The steps of a profile, needed ones before those that need them.
#[derive(Debug, Clone)]
pub struct Plan {
    /// All steps in an order that can be built.
    pub steps: Vec<Step>,
    /// Recipes by name.
    pub recipes: BTreeMap<String, Recipe>,
    /// The packages that make the system, in the profile's order.
    pub packages: Vec<OutputRef>,
}

/// Recipes of everything that a profile reaches, read and checked; no keys yet.
struct Graph<'a> {
    configs: &'a ConfigDir,
    recipes: BTreeMap<String, Recipe>,
    /// Steps in post-order: needed ones first.
    order: Vec<String>,
}

impl Graph<'_> {
    fn recipe(&mut self, name: &str) -> Result<Option<&Recipe>> {
        if !self.recipes.contains_key(name) {
            let Some(recipe) = Recipe::load(self.configs, name)? else {
                return Ok(None);
            };
            self.recipes.insert(name.to_owned(), recipe);
        }
        Ok(self.recipes.get(name))
    }

    /// Visits a step and all that it needs. `path` is the way from the profile to here.
    fn visit(
        &mut self,
        reference: &OutputRef,
        at: &Location,
        path: &mut Vec<String>,
        done: &mut BTreeSet<String>,
    ) -> Result<()> {
        if let Some(start) = path.iter().position(|s| *s == reference.step) {
            let mut circle = path.get(start..).unwrap_or_default().to_vec();
            circle.push(reference.step.clone());
            return Err(Error::Cycle(circle));
        }
        let unknown = |message: String, hint: Option<String>| Error::Config { location: at.clone(), message, hint };
        let (name, stage_name) = reference.step.split_once('/').unwrap_or((&reference.step, ""));
        let configs = self.configs;
        let Some(recipe) = self.recipe(name)? else {
            return Err(unknown(
                format!("{reference}: there is no recipe {}", configs.display_name(&format!("recipes/{name}.yaml"))),
                Some(format!("the recipes are: {}", configs.list("recipes")?.join(", "))),
            ));
        };
        let Some(stage) = recipe.stages.get(stage_name) else {
            let stages: Vec<_> = recipe.stages.keys().cloned().collect();
            return Err(unknown(
                format!("{reference}: {name} has no stage {stage_name:?}"),
                Some(format!("its stages are: {}", stages.join(", "))),
            ));
        };
        if let Some(output) = &reference.output
            && !stage.outputs.contains_key(output)
            && output != MAIN
        {
            return Err(unknown(format!("{reference}: the stage has no output {output:?}"), None));
        }
        if done.contains(&reference.step) {
            return Ok(());
        }
        let needs: Vec<(OutputRef, Location)> = stage
            .needs
            .iter()
            .filter_map(|need| Some((OutputRef::parse(need)?, need.location(&recipe.path))))
            .collect();
        path.push(reference.step.clone());
        for (need, at) in needs {
            self.visit(&need, &at, path, done)?;
        }
        path.pop();
        done.insert(reference.step.clone());
        self.order.push(reference.step.clone());
        Ok(())
    }
}

impl Plan {
    /// Plans a profile: reads its recipes, orders the steps, computes the keys.
    ///
    /// # Errors
    /// Anything wrong in the recipes, a circle, a host that lacks a tool or a declared file.
    pub fn new(configs: &ConfigDir, profile: &Profile, store: &Store) -> Result<Plan> {
        let mut graph = Graph { configs, recipes: BTreeMap::new(), order: Vec::new() };
        let mut done = BTreeSet::new();
        let mut packages = Vec::new();
        for package in &profile.packages {
            visit_package(&mut graph, package, &mut done)?;
            packages.push(package.reference.clone());
        }
        let host = HostTools::load(configs)?;
        let mut hashes = HostHashes::load(store);
        let mut keys: BTreeMap<String, String> = BTreeMap::new();
        let mut steps = Vec::new();
        for name in graph.order {
            let step = keyed(configs, &graph.recipes, &name, &keys, &host, &mut hashes, store)?;
            keys.insert(name, step.key.clone());
            steps.push(step);
        }
        // The store may be missing or not writable while nothing is to be built; then the hashes are computed again next time.
        let _ = hashes.save(store);
        Ok(Plan { steps, recipes: graph.recipes, packages })
    }

    /// A step by name.
    ///
    /// # Errors
    /// [`Error::Usage`], naming the steps that there are.
    pub fn step(&self, name: &str) -> Result<&Step> {
        self.steps.iter().find(|s| s.name == name).ok_or_else(|| Error::Usage {
            message: format!("the plan has no step {name:?}"),
            hint: Some(format!(
                "its steps are: {}",
                self.steps.iter().map(|s| s.name.as_str()).collect::<Vec<_>>().join(", ")
            )),
        })
    }

    /// The recipe and stage of a step of this plan.
    pub fn stage(&self, step: &Step) -> Option<(&Recipe, &Stage)> {
        let recipe = self.recipes.get(&step.recipe)?;
        Some((recipe, recipe.stages.get(&step.stage)?))
    }

    /// All sources of the plan's recipes, with the recipe's name.
    pub fn sources(&self) -> impl Iterator<Item = (&Recipe, &Source)> {
        self.recipes.values().flat_map(|r| r.sources.iter().map(move |s| (r, s)))
    }
}

fn visit_package(graph: &mut Graph<'_>, package: &crate::profile::Package, done: &mut BTreeSet<String>) -> Result<()> {
    graph.visit(&package.reference, &package.location, &mut Vec::new(), done)
}

/// Which of a source's files is taken: Debian's repacked one when only that is in the store, else upstream's.
pub fn chosen_sha256<'a>(source: &'a Source, store: &Store) -> &'a str {
    match source.debian.as_ref().and_then(|d| d.sha256.as_ref()) {
        Some(repacked)
            if !store.source_path(&source.sha256, &source.file).exists()
                && store.source_path(repacked, &source.file).exists() =>
        {
            repacked
        }
        _ => &source.sha256,
    }
}

fn keyed(
    configs: &ConfigDir,
    recipes: &BTreeMap<String, Recipe>,
    name: &str,
    keys: &BTreeMap<String, String>,
    host: &HostTools,
    hashes: &mut HostHashes,
    store: &Store,
) -> Result<Step> {
    let (recipe_name, stage_name) = name.split_once('/').unwrap_or((name, ""));
    let missing = || Error::Usage { message: format!("there is no step {name:?}"), hint: None };
    let recipe = recipes.get(recipe_name).ok_or_else(missing)?;
    let stage = recipe.stages.get(stage_name).ok_or_else(missing)?;
    let mut fields = Fields::new("umlfs step");
    fields.add("format", FORMAT_VERSION.to_string());
    fields.add("sandbox", SANDBOX_VERSION.to_string());
    fields.add("epoch", SOURCE_DATE_EPOCH.to_string());
    fields.add("step", name);
    fields.add("version", &recipe.version);
    let text =
        serde_json::to_string(stage).map_err(|e| Error::Usage { message: format!("{name}: {e}"), hint: None })?;
    fields.add("stage", text);
    for source in &recipe.sources {
        fields.add("source", source.file.as_str());
        fields.add("sha256", chosen_sha256(source, store));
        fields.add("unpack", source.unpack.to_string());
    }
    let mut inputs = BTreeMap::new();
    for input in &stage.inputs {
        let base = input.rsplit('/').next().unwrap_or(input);
        if let Some(bytes) = configs.read(input)? {
            inputs.insert(base.to_owned(), bytes);
        } else {
            for (path, bytes) in configs.read_tree(input)? {
                inputs.insert(format!("{base}/{path}"), bytes);
            }
        }
    }
    for (path, bytes) in &inputs {
        fields.add("input", path);
        fields.add("sha256", sha256(bytes));
    }
    let mut needs = Vec::new();
    for need in stage.needs.iter().filter_map(|n| OutputRef::parse(n)) {
        let key = keys.get(&need.step).ok_or_else(missing)?.clone();
        fields.add("need", need.to_string());
        fields.add("key", &key);
        needs.push((need, key));
    }
    let commands = host_inputs(recipe, name, stage, host, hashes, &mut fields)?;
    Ok(Step {
        name: name.to_owned(),
        recipe: recipe_name.to_owned(),
        stage: stage_name.to_owned(),
        key: fields.finish(),
        needs,
        inputs,
        commands,
    })
}

/// Adds what a stage uses of the host to its key; the value is the commands that it may call.
fn host_inputs(
    recipe: &Recipe,
    name: &str,
    stage: &Stage,
    host: &HostTools,
    hashes: &mut HostHashes,
    fields: &mut Fields,
) -> Result<Vec<(String, std::path::PathBuf)>> {
    if stage.root != Root::Host {
        return Ok(Vec::new());
    }
    for group in &stage.host {
        if !host.tools.contains_key(&group.value) {
            let known: Vec<_> = host.tools.keys().cloned().collect();
            return Err(error_at(
                &recipe.path,
                group,
                format!("found tool group {:?}, expected one of host.yaml's: {}", group.value, known.join(", ")),
                None,
            ));
        }
    }
    let groups: Vec<&str> = stage.host.iter().map(|g| g.value.as_str()).collect();
    let commands = host.commands(&groups, name)?;
    for (command, path) in &commands {
        fields.add("command", command);
        fields.add("contents", hashes.tree(path)?);
    }
    for group in groups.iter().filter_map(|g| host.tools.get(*g)) {
        for (places, path) in group.located_files() {
            let Some(path) = path else {
                return Err(Error::Host {
                    message: format!("the host lacks {places}, which {name} needs"),
                    hint: crate::host::install_command(&group.debian),
                });
            };
            fields.add("tool file", path.as_os_str().as_encoded_bytes());
            fields.add("contents", hashes.tree(&path)?);
        }
    }
    Ok(commands)
}
