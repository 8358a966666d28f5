//! Reads the planted faults and legitimate changes, and makes the configurations with them.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    missing_docs,
    unreachable_pub,
    dead_code,
    reason = "a test fails by panicking, and not every test uses all of this"
)]

pub mod dump;
pub mod envoy;
pub mod paths;

use std::{collections::BTreeMap, fs, path::PathBuf, sync::Mutex};

use serde::Deserialize;
use serde_json::{Map, Value};

use self::paths::Place;

/// The folder of the project.
pub fn project() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../..")
}

/// Changes to a configuration.
#[derive(Clone, Default, Deserialize)]
#[serde(default)]
pub struct Changes {
    set: Map<String, Value>,
    remove: Vec<String>,
    append: Map<String, Value>,
    before: Vec<Insertion>,
    after: Vec<Insertion>,
    #[serde(rename = "move")]
    moved: Option<Move>,
}

#[derive(Clone, Deserialize)]
struct Insertion {
    at: String,
    value: Value,
}

#[derive(Clone, Deserialize)]
struct Move {
    from: String,
    before: String,
}

#[derive(Clone, Deserialize)]
pub struct Fault {
    pub fault: String,
    pub on: String,
    pub rule: String,
    /// Rules that the same fault breaks as well.
    #[serde(default)]
    pub also: Vec<String>,
    pub severity: Option<String>,
    /// `read` if the real Envoy cannot be given it, `dump` if a file cannot have it.
    pub only: Option<String>,
    /// What is set in the dump, by JSON pointers.
    #[serde(default)]
    in_dump: Map<String, Value>,
    /// Changes in every listener.
    #[serde(default)]
    everywhere: Changes,
    #[serde(flatten)]
    changes: Changes,
}

#[derive(Clone, Deserialize)]
pub struct Legitimate {
    pub change: String,
    pub on: String,
    #[serde(default)]
    everywhere: Changes,
    #[serde(flatten)]
    changes: Changes,
}

#[derive(Deserialize)]
struct Base {
    base: String,
    from: String,
    #[serde(default)]
    everywhere: Changes,
    #[serde(flatten)]
    changes: Changes,
}

fn read<T: serde::de::DeserializeOwned>(name: &str) -> T {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/planted").join(name);
    let text = fs::read_to_string(&path).unwrap();
    serde_saphyr::from_str(&text).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

pub fn faults() -> Vec<Fault> {
    read("faults.yaml")
}

pub fn legitimate() -> Vec<Legitimate> {
    read("legitimate.yaml")
}

/// The configurations in which nothing is wrong.
pub const SILENT: [&str; 10] = [
    "envoy.yaml",
    "other-authentication.yaml",
    "rate-limits.yaml",
    "single-step.yaml",
    "traced",
    "with-metrics",
    "two-replicas",
    "istio",
    "envoy-gateway",
    "envoy-gateway-1.9",
];

/// A configuration by its name, as a bootstrap.
pub fn base(name: &str) -> Value {
    static READ: Mutex<BTreeMap<String, Value>> = Mutex::new(BTreeMap::new());
    let known = READ.lock().unwrap().get(name).cloned();
    known.unwrap_or_else(|| {
        let made = make(name);
        READ.lock().unwrap().insert(name.to_owned(), made.clone());
        made
    })
}

fn make(name: &str) -> Value {
    let derived: Vec<Base> = read("bases.yaml");
    if let Some(derived) = derived.iter().find(|one| one.base == name) {
        return derived.everywhere.apply(base(&derived.from), true, &derived.changes);
    }
    if name == "with-metrics" {
        return with_metrics(base("envoy.yaml"));
    }
    let text = match name {
        // As envoy/README.md says.
        "traced" => shipped("envoy.yaml").replace("\n#~", "\n"),
        _ if name.ends_with(".yaml") => shipped(name),
        _ => {
            let path = format!("crates/doctor/tests/planted/bases/{name}.yaml");
            fs::read_to_string(project().join(path)).unwrap()
        }
    };
    serde_saphyr::from_str(&text).unwrap()
}

/// Adds what metrics.yaml adds, as Envoy does with `--config-yaml`.
fn with_metrics(mut configuration: Value) -> Value {
    let more: Value = serde_saphyr::from_str(&shipped("metrics.yaml")).unwrap();
    for (list, added) in more["static_resources"].as_object().unwrap() {
        let list = configuration["static_resources"][list].as_array_mut().unwrap();
        list.extend(added.as_array().unwrap().iter().cloned());
    }
    configuration
}

fn shipped(name: &str) -> String {
    fs::read_to_string(project().join("envoy").join(name)).unwrap()
}

impl Fault {
    pub fn configuration(&self) -> Value {
        self.everywhere.apply(base(&self.on), true, &self.changes)
    }

    /// Its forms, by name: a dump, and a file if a file can have it.
    pub fn forms(&self) -> Vec<(&'static str, Value)> {
        let file = self.configuration();
        let mut dump = dump::of(&file);
        for (pointer, value) in &self.in_dump {
            let (parent, key) = pointer.rsplit_once('/').unwrap();
            let parent = dump.pointer_mut(parent).unwrap_or_else(|| panic!("no {pointer}"));
            match parent {
                Value::Array(items) => items.push(value.clone()),
                other => other[key] = value.clone(),
            }
        }
        let file = (self.only.as_deref() != Some("dump")).then_some(("file", file));
        [("dump", dump)].into_iter().chain(file).collect()
    }
}

impl Legitimate {
    pub fn configuration(&self) -> Value {
        self.everywhere.apply(base(&self.on), true, &self.changes)
    }
}

impl Changes {
    /// Applies these changes in every listener, then `first` in the first one.
    fn apply(&self, mut configuration: Value, everywhere: bool, first: &Self) -> Value {
        let listeners = configuration["static_resources"]["listeners"].as_array().unwrap().len();
        if everywhere {
            for listener in 0..listeners {
                self.apply_in(&mut configuration, listener);
            }
        }
        first.apply_in(&mut configuration, 0);
        configuration
    }

    fn apply_in(&self, configuration: &mut Value, listener: usize) {
        // All paths are found in the configuration as it was, so that a change of a name or a position
        // does not hide the next place.
        let find = |path: &str| Place::find(configuration, listener, path);
        let set: Vec<_> = self.set.iter().map(|(path, value)| (find(path), value)).collect();
        let mut removed: Vec<_> = self.remove.iter().map(|path| find(path)).collect();
        let appended: Vec<_> =
            self.append.iter().map(|(path, value)| (find(path), value)).collect();
        for (place, value) in set {
            place.set(configuration, value.clone());
        }
        for (place, value) in appended {
            place.append(configuration, value.clone());
        }
        // The later ones first, so that positions stay.
        removed.sort();
        for place in removed.iter().rev() {
            place.remove(configuration);
        }
        for insertion in self.before.iter().rev() {
            let place = Place::find(configuration, listener, &insertion.at);
            place.insert(configuration, 0, insertion.value.clone());
        }
        for insertion in &self.after {
            let place = Place::find(configuration, listener, &insertion.at);
            place.insert(configuration, 1, insertion.value.clone());
        }
        if let Some(moved) = &self.moved {
            let from = Place::find(configuration, listener, &moved.from);
            let value = from.remove(configuration);
            let before = Place::find(configuration, listener, &moved.before);
            before.insert(configuration, 0, value);
        }
    }
}
