//! The plan: which steps a profile takes, in which order, and the key of each.
//!
//! A step is one stage of one recipe, `NAME/STAGE`. Its key is a hash over all that can change what it makes: the stage's text,
//! the hashes of its sources and inputs, the keys of the steps that it needs, the contents of the host tools that it uses, and the
//! builder's own formats. Descriptions, book sections and estimates do not count.

use std::collections::{BTreeMap, BTreeSet};

use crate::base::Bases;
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
    /// The sources that it unpacks: with the name of the recipe whose they are, for those that come beside its own.
    pub sources: Vec<(Option<String>, Source)>,
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
    bases: Bases,
    recipes: BTreeMap<String, Recipe>,
    /// Steps in post-order: needed ones first.
    order: Vec<String>,
}

impl<'a> Graph<'a> {
    /// All that a profile reaches.
    fn new(configs: &'a ConfigDir, profile: &Profile) -> Result<Self> {
        let mut graph = Graph { configs, bases: Bases::load(configs)?, recipes: BTreeMap::new(), order: Vec::new() };
        let mut done = BTreeSet::new();
        for package in &profile.packages {
            graph.visit(&package.reference, &package.location, &mut Vec::new(), &mut done)?;
        }
        Ok(graph)
    }

    fn recipe(&mut self, name: &str) -> Result<Option<&Recipe>> {
        if !self.recipes.contains_key(name) {
            let Some(recipe) = Recipe::load(self.configs, &self.bases, name)? else {
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
        let needs = located_needs(recipe, stage);
        let beside: Vec<(String, Location)> =
            stage.beside.iter().map(|name| (name.value.clone(), name.location(&recipe.path))).collect();
        for (name, at) in beside {
            if self.recipe(&name)?.is_none() {
                return Err(Error::Config {
                    location: at,
                    message: format!("there is no recipe {name:?}, whose sources are wanted beside"),
                    hint: Some(format!("the recipes are: {}", configs.list("recipes")?.join(", "))),
                });
            }
        }
        // What is replaced is known only once all of them are read.
        for (need, _) in &needs {
            self.recipe(need.step.split('/').next().unwrap_or_default())?;
        }
        let kept = without_replaced(&self.recipes, needs.iter().map(|(need, _)| need.clone()).collect());
        path.push(reference.step.clone());
        for (need, at) in needs.into_iter().filter(|(need, _)| kept.contains(need)) {
            self.visit(&need, &at, path, done)?;
        }
        path.pop();
        done.insert(reference.step.clone());
        self.order.push(reference.step.clone());
        Ok(())
    }
}

/// Names of the groups of `host.yaml` that a profile's steps use; also on a host that lacks them.
///
/// # Errors
/// Anything wrong in the profile or its recipes.
pub fn host_groups(configs: &ConfigDir, profile: &Profile) -> Result<BTreeSet<String>> {
    let graph = Graph::new(configs, profile)?;
    let mut groups = BTreeSet::new();
    for (name, stage) in graph.order.iter().filter_map(|step| step.split_once('/')) {
        if let Some(stage) = graph.recipes.get(name).and_then(|recipe| recipe.stages.get(stage)) {
            groups.extend(stage.inherited_host.iter().map(|p| p.value.value.clone()));
            groups.extend(stage.host.iter().map(|group| group.value.clone()));
        }
    }
    Ok(groups)
}

impl Plan {
    /// Plans a profile: reads its recipes, orders the steps, computes the keys.
    ///
    /// # Errors
    /// Anything wrong in the recipes, a circle, a host that lacks a tool or a declared file.
    pub fn new(configs: &ConfigDir, profile: &Profile, store: &Store) -> Result<Plan> {
        let graph = Graph::new(configs, profile)?;
        let packages = profile.packages.iter().map(|package| package.reference.clone()).collect();
        let host = HostTools::load(configs)?;
        let mut hashes = HostHashes::load(store);
        let mut keys: BTreeMap<String, String> = BTreeMap::new();
        let mut steps = Vec::new();
        for name in graph.order {
            let step = keyed(configs, &graph.recipes, &name, &keys, &host, &mut hashes)?;
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

/// All needs of a stage, its base's first, each with its place.
fn located_needs(recipe: &Recipe, stage: &Stage) -> Vec<(OutputRef, Location)> {
    let inherited = stage.inherited_needs.iter().map(|p| (&p.value, p.file.as_str()));
    let own = stage.needs.iter().map(|need| (need, recipe.path.as_str()));
    let mut needs: Vec<(OutputRef, Location)> = Vec::new();
    for (need, file) in inherited.chain(own) {
        if let Some(reference) = OutputRef::parse(need)
            && !needs.iter().any(|(known, _)| *known == reference)
        {
            needs.push((reference, need.location(file)));
        }
    }
    needs
}

/// Leaves out the needs that another one of them replaces.
fn without_replaced(recipes: &BTreeMap<String, Recipe>, needs: Vec<OutputRef>) -> Vec<OutputRef> {
    let stage = |need: &OutputRef| {
        let (name, stage) = need.step.split_once('/')?;
        recipes.get(name)?.stages.get(stage)
    };
    let replaced: BTreeSet<String> =
        needs.iter().filter_map(stage).flat_map(|s| s.replaces.iter().map(|r| r.value.clone())).collect();
    needs.into_iter().filter(|need| !replaced.contains(&need.step)).collect()
}

/// The sources of a stage, in the order in which they are unpacked, with the name of the recipe for those that come beside.
fn stage_sources<'a>(
    recipes: &'a BTreeMap<String, Recipe>,
    recipe: &'a Recipe,
    stage: &Stage,
) -> Vec<(Option<&'a str>, &'a Source)> {
    let beside = stage
        .beside
        .iter()
        .filter_map(|name| recipes.get(name.as_str()))
        .flat_map(|other| other.sources.iter().map(|s| (Some(other.name.as_str()), s)));
    recipe.sources.iter().map(|s| (None, s)).chain(beside).collect()
}

fn keyed(
    configs: &ConfigDir,
    recipes: &BTreeMap<String, Recipe>,
    name: &str,
    keys: &BTreeMap<String, String>,
    host: &HostTools,
    hashes: &mut HostHashes,
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
    let sources = stage_sources(recipes, recipe, stage);
    for (place, source) in &sources {
        if let Some(place) = place {
            fields.add("beside", place);
        }
        fields.add("source", source.file.as_str());
        fields.add("sha256", source.sha256.as_str());
        // Either of the two files may be taken: the same release, the same key. The record tells which one it was.
        if let Some(repacked) = source.debian.as_ref().and_then(|d| d.sha256.as_ref()) {
            fields.add("sha256", repacked.as_str());
        }
        if let Some(other) = source.pypi.as_ref().and_then(|p| p.sha256.as_ref()) {
            fields.add("sha256", other.as_str());
        }
        fields.add("unpack", source.unpack.to_string());
    }
    let sources = sources.into_iter().map(|(place, source)| (place.map(str::to_owned), source.clone())).collect();
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
    for need in without_replaced(recipes, located_needs(recipe, stage).into_iter().map(|(need, _)| need).collect()) {
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
        sources,
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
    let own = stage.host.iter().map(|group| (group, recipe.path.as_str()));
    let groups: Vec<_> = stage.inherited_host.iter().map(|p| (&p.value, p.file.as_str())).chain(own).collect();
    for (group, file) in &groups {
        if !host.tools.contains_key(&group.value) {
            let known: Vec<_> = host.tools.keys().cloned().collect();
            return Err(error_at(
                file,
                group,
                format!("found tool group {:?}, expected one of host.yaml's: {}", group.value, known.join(", ")),
                None,
            ));
        }
    }
    let groups: Vec<&str> = groups.iter().map(|(group, _)| group.value.as_str()).collect();
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
