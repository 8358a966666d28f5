//! The paths of the corpus.

use serde_json::{Map, Value};

/// A place in a configuration: the keys and positions that lead to it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Place(Vec<Step>);

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Step {
    Key(String),
    At(usize),
}

impl Place {
    /// Finds the place of a path; its last part may be missing in an object.
    pub fn find(configuration: &Value, listener: usize, path: &str) -> Self {
        let mut parts = parts(path);
        let first = parts.remove(0);
        let mut steps = Vec::new();
        let mut value = configuration;
        let mut all = start(configuration, listener, &first);
        all.extend(parts);
        let last = all.len() - 1;
        for (number, part) in all.iter().enumerate() {
            let step = step(value, part)
                .unwrap_or_else(|| panic!("{path}: no `{part}` in {}", shortened(value)));
            let missing = Value::Null;
            let next = match &step {
                Step::Key(key) => value.get(key).unwrap_or(&missing).clone(),
                Step::At(at) => value[*at].clone(),
            };
            assert!(
                number == last || !next.is_null(),
                "{path}: no `{part}` in {}",
                shortened(value)
            );
            steps.push(step);
            value = if number == last { value } else { descend(configuration, &steps) };
        }
        Self(steps)
    }

    pub fn set(&self, configuration: &mut Value, new: Value) {
        *self.make(configuration) = new;
    }

    pub fn append(&self, configuration: &mut Value, new: Value) {
        self.make(configuration).as_array_mut().expect("a list").push(new);
    }

    pub fn insert(&self, configuration: &mut Value, shift: usize, new: Value) {
        let (parent, Step::At(at)) = self.parent(configuration) else {
            panic!("no list: {self:?}")
        };
        parent.as_array_mut().unwrap().insert(at + shift, new);
    }

    pub fn remove(&self, configuration: &mut Value) -> Value {
        match self.parent(configuration) {
            (parent, Step::At(at)) => parent.as_array_mut().unwrap().remove(at),
            (parent, Step::Key(key)) => {
                parent.as_object_mut().unwrap().remove(&key).expect("something to remove")
            }
        }
    }

    fn parent<'v>(&self, configuration: &'v mut Value) -> (&'v mut Value, Step) {
        let (last, before) = self.0.split_last().unwrap();
        (Self(before.to_vec()).make(configuration), last.clone())
    }

    fn make<'v>(&self, configuration: &'v mut Value) -> &'v mut Value {
        self.0.iter().fold(configuration, |value, step| match step {
            Step::At(at) => &mut value[*at],
            Step::Key(key) => {
                if value.is_null() {
                    *value = Value::Object(Map::new());
                }
                value.as_object_mut().unwrap().entry(key.clone()).or_insert(Value::Null)
            }
        })
    }
}

fn descend<'v>(configuration: &'v Value, steps: &[Step]) -> &'v Value {
    steps.iter().fold(configuration, |value, step| match step {
        Step::Key(key) => &value[key.as_str()],
        Step::At(at) => &value[*at],
    })
}

/// The place for which the first part of a path stands.
fn start(configuration: &Value, listener: usize, first: &str) -> Vec<String> {
    let (name, rest) = match first.find('[') {
        Some(at) => (&first[..at], Some(first[at..].to_owned())),
        None => (first, None),
    };
    let listener_at = format!("static_resources/listeners/{listener}");
    let value = &configuration["static_resources"]["listeners"][listener];
    let chain = if value.get("filter_chains").is_some() {
        format!("{listener_at}/filter_chains/0")
    } else {
        format!("{listener_at}/default_filter_chain")
    };
    let hcm = format!("{chain}/filters/0/typed_config");
    let manager = if value.get("filter_chains").is_some() {
        &value["filter_chains"][0]["filters"][0]["typed_config"]
    } else {
        &value["default_filter_chain"]["filters"][0]["typed_config"]
    };
    let filters: &[Value] = manager["http_filters"].as_array().map_or(&[], Vec::as_slice);
    let of_type = |kind: &str, number: usize| {
        let typed = |filter: &&(usize, &Value)| {
            filter.1["typed_config"]["@type"].as_str().is_some_and(|url| url.ends_with(kind))
        };
        let all: Vec<_> = filters.iter().enumerate().collect();
        let found = all.iter().filter(typed).nth(number);
        let found = found.unwrap_or_else(|| panic!("no filter {number} of {kind}"));
        format!("{hcm}/http_filters/{}/typed_config", found.0)
    };
    let place = match name {
        "listener" => listener_at,
        "chain" => chain,
        "hcm" => hcm,
        "filters" => format!("{hcm}/http_filters"),
        "early" => format!("{hcm}/early_header_mutation_extensions/0/typed_config/mutations"),
        "authz" => of_type(".ExtAuthz", 0),
        "second" => of_type(".ExtAuthz", 1),
        "guard" => {
            let at = filters.iter().position(|filter| filter["name"] == "patgate.guard");
            format!("{hcm}/http_filters/{}/typed_config", at.expect("a guard"))
        }
        "vhost" => format!("{hcm}/route_config/virtual_hosts/0"),
        "routes" => format!("{hcm}/route_config/virtual_hosts/0/routes"),
        "patgate" => "static_resources/clusters/0".to_owned(),
        "clusters" => "static_resources/clusters".to_owned(),
        other => other.to_owned(),
    };
    let mut steps: Vec<_> = place.split('/').map(str::to_owned).collect();
    steps.extend(rest);
    steps
}

/// Splits a path at its slashes, but not in brackets, which become parts of their own.
fn parts(path: &str) -> Vec<String> {
    let mut parts = vec![String::new()];
    let mut depth = 0;
    let mut first = true;
    for character in path.chars() {
        match character {
            '/' if depth == 0 => {
                parts.push(String::new());
                first = false;
                continue;
            }
            '[' => {
                depth += 1;
                // The first part keeps its bracket until it is known what it stands for.
                if depth == 1 && !first {
                    parts.push(String::new());
                }
            }
            ']' => depth -= 1,
            _ => {}
        }
        parts.last_mut().unwrap().push(character);
    }
    parts
}

fn step(value: &Value, part: &str) -> Option<Step> {
    let named = part.strip_prefix('[').and_then(|part| part.strip_suffix(']'));
    match (value, named) {
        (Value::Array(items), Some(name)) => {
            items.iter().position(|item| item["name"] == name).map(Step::At)
        }
        (Value::Array(items), None) => {
            part.parse().ok().filter(|at| *at < items.len()).map(Step::At)
        }
        (Value::Object(_) | Value::Null, name) => Some(Step::Key(name.unwrap_or(part).to_owned())),
        _ => None,
    }
}

fn shortened(value: &Value) -> String {
    value.to_string().chars().take(200).collect()
}
