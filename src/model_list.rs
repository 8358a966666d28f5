//! The models that a token may use in a domain, as far as they are known by name, and the lists of
//! them in the forms of the APIs.

use serde::{Serialize, Serializer};

use crate::{
    domain::Domain,
    operation::{EntityType, Operation, OperationSet, vocabulary},
    principal::DomainGrants,
};

vocabulary! {
    /// In which form patgate answers a request for the models that a token may use.
    ListForm, "form of an answer" {
        OpenaiModels = "openai-models",
        OpenaiModel = "openai-model",
        OllamaTags = "ollama-tags",
        OllamaPs = "ollama-ps",
    }
}

impl ListForm {
    /// Whether it is about the one model that the path names.
    pub(crate) fn is_of_one(self) -> bool {
        match self {
            Self::OpenaiModel => true,
            Self::OpenaiModels | Self::OllamaTags | Self::OllamaPs => false,
        }
    }
}

/// Names of a token's scopes, and of a domain's list, that are looked at for one list.
const MAX_NAMES: usize = 10_000;
/// Comparisons of names with patterns for one list.
const MAX_COMPARISONS: usize = 1_000_000;
/// Bytes of a list, if no name has characters that JSON escapes.
const MAX_BYTES: usize = 1_000_000;

/// What it costs to look at a name, in comparisons with a pattern.
const A_NAME: usize = 16;
/// Up to this cost, a list is made on the connection; 256 names without patterns.
const SHORT: usize = 4096;

/// What can be done with a model besides reading about it.
fn uses() -> OperationSet {
    let operations = EntityType::Models.operations();
    operations.iter().filter(|operation| *operation != Operation::LlmRead).collect()
}

/// Of a domain's models, those for which the token's scopes and its owner's roles permit some
/// operation besides `llm_read`.
#[derive(Clone, Copy)]
pub(crate) struct Usable<'a> {
    grants: &'a DomainGrants,
    domain: &'a Domain,
    /// The operations that count: those that the owner's roles include.
    permitted: OperationSet,
    /// Whether scopes give one of them on every model.
    every: bool,
}

impl<'a> Usable<'a> {
    pub(crate) fn new(grants: &'a DomainGrants, domain: &'a Domain) -> Self {
        let permitted = grants.permitted().intersection(uses());
        let every = grants.on_every(EntityType::Models).intersects(permitted);
        Self { grants, domain, permitted, every }
    }

    /// Whether the token or the domain is limited to some models: the domain lists its models, or
    /// scopes name those that the token may read about, or those that it may use.
    pub(crate) fn is_limited(&self) -> bool {
        let uses_some = || self.grants.on_some(EntityType::Models).intersects(self.permitted);
        self.domain.lists_models()
            || !self.grants.scoped(Operation::LlmRead, EntityType::Models, None)
            || (!self.every && uses_some())
    }

    /// The exact names, in the order of their bytes. What only a pattern or `*` covers has none.
    pub(crate) fn names(&self) -> Vec<&'a str> {
        let of_domain = self.domain.names().filter(|_| self.every).take(MAX_NAMES);
        let scoped = self.grants.one_by_one(EntityType::Models).iter().take(self.scoped());
        let usable = scoped.filter(|(_, name, operations)| self.covers(name, *operations));
        let mut names: Vec<_> = usable.map(|(_, name, _)| &**name).chain(of_domain).collect();
        // Two runs that are sorted already.
        names.sort();
        names.dedup();
        names.truncate(MAX_NAMES);
        names
    }

    /// Whether `name` is one of [`Self::names`], but for the bounds on their number.
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

    /// How many names of scopes are looked at.
    fn scoped(&self) -> usize {
        let names = self.grants.one_by_one(EntityType::Models).len();
        let comparable = MAX_COMPARISONS / self.domain.patterns().max(1);
        names.min(MAX_NAMES).min(comparable.max(1))
    }

    /// Whether [`Self::names`] take so long that other checks should not wait for them.
    pub(crate) fn takes_long(&self) -> bool {
        let of_domain = if self.every { self.domain.names().len().min(MAX_NAMES) } else { 0 };
        let of_scopes = self.scoped();
        (of_domain + of_scopes) * A_NAME + of_scopes * self.domain.patterns() > SHORT
    }
}

/// The body of an answer about these names. Nothing else is known of a model, so nothing else is
/// said of it.
pub(crate) fn body(form: ListForm, names: &[&str]) -> String {
    // Which models are loaded only a backend knows.
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

/// The entry of each name.
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
