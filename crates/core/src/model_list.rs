//! Finds the models that a token may use in a domain, if their names are known, and writes the
//! lists of them in the forms of the APIs.

use serde::{Serialize, Serializer};

use crate::{
    domain::Domain,
    operation::{EntityType, Operation, OperationSet},
    principal::DomainGrants,
    vocabulary::vocabulary,
};

vocabulary! {
    /// The form in which patgate answers a request for the models that a token may use.
    ListForm, "form of an answer" {
        OpenaiModels = "openai-models",
        OpenaiModel = "openai-model",
        OllamaTags = "ollama-tags",
        OllamaPs = "ollama-ps",
    }
}

impl ListForm {
    /// Returns whether the answer is about the one model that the path names.
    pub(crate) fn is_of_one(self) -> bool {
        match self {
            Self::OpenaiModel => true,
            Self::OpenaiModels | Self::OllamaTags | Self::OllamaPs => false,
        }
    }
}

/// Most names of a token's scopes, and of a domain's list, that are looked at for one list.
const MAX_NAMES: usize = 10_000;
/// Most comparisons of names with patterns for one list.
const MAX_COMPARISONS: usize = 1_000_000;
/// Most bytes of a list, if no name has characters that JSON escapes.
const MAX_BYTES: usize = 1_000_000;

/// The cost of looking at a name, in comparisons with a pattern.
const A_NAME: usize = 16;
/// Up to this cost, patgate makes a list in the task of the connection: 256 names without patterns.
const SHORT: usize = 4096;

/// Returns the operations on a model other than reading about it.
fn uses() -> OperationSet {
    let operations = EntityType::Models.operations();
    operations.iter().filter(|operation| *operation != Operation::LlmRead).collect()
}

/// Those of a domain's models for which the token's scopes and its owner's roles permit some
/// operation besides `llm_read`.
#[derive(Clone, Copy)]
pub struct UsableModels<'a> {
    grants: &'a DomainGrants,
    domain: &'a Domain,
    /// The operations that count: those that the owner's roles include.
    permitted: OperationSet,
    /// Whether scopes permit one of them on every model.
    every: bool,
}

impl<'a> UsableModels<'a> {
    /// Returns what these grants let their token use in `domain`.
    pub fn new(grants: &'a DomainGrants, domain: &'a Domain) -> Self {
        let permitted = grants.permitted().intersection(uses());
        let every = grants.on_every(EntityType::Models).intersects(permitted);
        Self { grants, domain, permitted, every }
    }

    /// Returns whether the token or the domain is limited to some models: the domain lists its
    /// models, or scopes name the models that the token may read about or use.
    pub(crate) fn is_limited(&self) -> bool {
        let uses_some = || self.grants.on_some(EntityType::Models).intersects(self.permitted);
        self.domain.lists_models()
            || !self.grants.scoped(Operation::LlmRead, EntityType::Models, None)
            || (!self.every && uses_some())
    }

    /// Returns the exact names, sorted by their bytes. A model that only a pattern or `*` covers
    /// has no known name.
    pub fn names(&self) -> Vec<&'a str> {
        let of_domain = self.domain.names().filter(|_| self.every).take(MAX_NAMES);
        let scoped = self.grants.one_by_one(EntityType::Models).iter().take(self.scoped());
        let usable = scoped.filter(|(_, name, operations)| self.covers(name, *operations));
        let mut names: Vec<_> = usable.map(|(_, name, _)| &**name).chain(of_domain).collect();
        // Both parts are sorted already.
        names.sort();
        names.dedup();
        names.truncate(MAX_NAMES);
        names
    }

    /// Returns whether `name` is one of [`Self::names`], ignoring the limits on their number.
    pub(crate) fn has(&self, name: &str) -> bool {
        let scopes = self.grants.one_by_one(EntityType::Models);
        let scope = scopes.binary_search_by(|(_, scoped, _)| (**scoped).cmp(name)).ok();
        let scoped = scope.and_then(|at| scopes.get(at));
        scoped.is_some_and(|(_, name, operations)| self.covers(name, *operations))
            || (self.every && self.domain.has_name(name))
    }

    fn covers(&self, name: &str, scoped: OperationSet) -> bool {
        (self.every || scoped.intersects(self.permitted))
            && self.domain.upstream_for(Some(name)).is_some()
    }

    /// Returns how many names of scopes are looked at.
    fn scoped(&self) -> usize {
        let names = self.grants.one_by_one(EntityType::Models).len();
        let comparable = MAX_COMPARISONS / self.domain.patterns().max(1);
        names.min(MAX_NAMES).min(comparable.max(1))
    }

    /// Returns whether [`Self::names`] takes so long that other checks should not wait for it.
    pub(crate) fn takes_long(&self) -> bool {
        let of_domain = if self.every { self.domain.names().len().min(MAX_NAMES) } else { 0 };
        let of_scopes = self.scoped();
        (of_domain + of_scopes) * A_NAME + of_scopes * self.domain.patterns() > SHORT
    }
}

/// Returns the body of an answer with these names. patgate knows nothing else about a model, so the
/// answer says nothing else.
pub(crate) fn body(form: ListForm, names: &[&str]) -> String {
    // Only a backend knows which models are loaded.
    let names = if form == ListForm::OllamaPs { &[] } else { names };
    let mut bytes = 0;
    let fitting = names.iter().take_while(|name| {
        bytes += name.len() + 64;
        bytes <= MAX_BYTES
    });
    let names = &names[..fitting.count()];
    let written = match (form, names) {
        (ListForm::OpenaiModels, _) => {
            serde_json::to_string(&OpenaiList { object: "list", data: Entries(names, openai) })
        }
        (ListForm::OpenaiModel, names) => {
            serde_json::to_string(&names.first().map(|name| openai(name)))
        }
        (ListForm::OllamaTags | ListForm::OllamaPs, _) => {
            serde_json::to_string(&OllamaList { models: Entries(names, ollama) })
        }
    };
    // Writing texts to a string does not fail.
    written.unwrap_or_default()
}

/// Serializes one entry per name.
struct Entries<'a, T>(&'a [&'a str], fn(&'a str) -> T);

impl<T: Serialize> Serialize for Entries<'_, T> {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.collect_seq(self.0.iter().map(|name| (self.1)(name)))
    }
}

#[derive(Serialize)]
struct OpenaiList<'a> {
    object: &'static str,
    data: Entries<'a, OpenaiModel<'a>>,
}

#[derive(Serialize)]
struct OpenaiModel<'a> {
    id: &'a str,
    object: &'static str,
}

#[derive(Serialize)]
struct OllamaList<'a> {
    models: Entries<'a, OllamaModel<'a>>,
}

#[derive(Serialize)]
struct OllamaModel<'a> {
    name: &'a str,
    model: &'a str,
}

fn openai(id: &str) -> OpenaiModel<'_> {
    OpenaiModel { id, object: "model" }
}

fn ollama(name: &str) -> OllamaModel<'_> {
    OllamaModel { name, model: name }
}

#[cfg(test)]
mod tests;
