//! The APIs that patgate protects: tables, which are read from YAML and compiled once.
//!
//! The host and the beginning of the path select at most one API. Within it, the method and a path
//! template select at most one rule. Templates match whole segments; one named
//! tail may end them. A request without a rule is denied. The cost of finding a rule does not grow
//! with the number of rules.

mod compile;
mod errors;
mod host;
mod nearest;
pub mod schema;
mod style;
mod table;
mod table_source;
mod template;
mod tree;

use std::{
    borrow::Cow,
    collections::{BTreeSet, HashMap},
    fmt,
};

pub use self::{
    errors::ErrorStyle,
    style::{
        ApiStyle, ContentTypeUse, InsufficientStatus, Method, TokenScheme, TokenSource,
        TokenSources, Upgrade,
    },
    table_source::TableSource,
};
use self::{
    errors::ErrorStyles,
    host::HostPattern,
    style::Methods,
    template::{Capture, Template},
    tree::Tree,
};
use crate::{
    backend::BackendName,
    body::{self, BodyForm},
    model_list::ListForm,
    operation::{EntityType, Operation},
};

/// All protected APIs, compiled from their tables.
#[derive(Debug, Default)]
pub struct Apis {
    all: Vec<Api>,
    /// Mounts by exact host.
    at: HashMap<Box<str>, Tree<usize>>,
    /// Mounts by the part of the host that follows its first label, which names the domain.
    under: HashMap<Box<str>, Tree<usize>>,
    /// Mounts at every host.
    anywhere: Tree<usize>,
}

/// One protected API: its mount, its style and its rules.
#[derive(Debug)]
pub struct Api {
    name: Box<str>,
    host: HostPattern,
    mount: Template,
    api_style: ApiStyle,
    /// The form of errors, by path.
    errors: ErrorStyles,
    /// The names of cookies that must not reach a backend.
    cookies: Box<[Box<str>]>,
    domain: DomainSource,
    /// The backend that serves all domains, in place of the backends of the domains.
    upstream: Option<BackendName>,
    /// The positions in `rules`, by path template.
    tree: Tree<usize>,
    rules: Vec<Rule>,
}

/// The part of a request that names its domain.
#[derive(Clone, Debug, PartialEq)]
enum DomainSource {
    /// The first label of the host.
    Host,
    /// A segment of the path.
    Path(Capture),
    /// No part: all requests are about this domain.
    Fixed(Box<str>),
}

/// What requests with some methods and a path template do.
#[derive(Clone, Debug)]
struct Rule {
    methods: Methods,
    /// The whole path, including the mount.
    template: Template,
    operation: Operation,
    entity_type: EntityType,
    id: IdSource,
    /// The protocol to which such a request may be upgraded.
    upgrade: Option<Upgrade>,
    /// The backend that serves such requests, in place of the table's.
    upstream: Option<BackendName>,
    /// The form in which patgate answers itself, if the token or the domain is limited to some models.
    answer: Option<ListForm>,
}

/// The part of a request that names the entity.
#[derive(Clone, Debug, Default, PartialEq)]
enum IdSource {
    #[default]
    None,
    Path(Capture),
    Body(BodyForm),
    /// The parameter `model` of the query, which must occur once.
    Query,
}

/// The API to which a request belongs, by its host and the beginning of its path.
#[derive(Clone, Debug)]
pub struct MatchedApi<'a> {
    api: &'a Api,
    /// The first label of the host, if it names the domain.
    label: Option<Cow<'a, str>>,
}

/// What the rule for a request says about it: what the request does, on what, and where it goes.
#[derive(Debug, PartialEq)]
pub struct MatchedRule<'a> {
    /// The domain, as the request or the table names it.
    pub domain: Cow<'a, str>,
    /// The operation of the request.
    pub operation: Operation,
    /// The type of entity on which the request acts.
    pub entity_type: EntityType,
    /// The entity on which the request acts.
    pub entity: Entity<'a>,
    /// The backend that serves the request. `None`: a backend of the domain.
    pub upstream: Option<&'a BackendName>,
    /// The form in which patgate answers itself, if the token or the domain is limited to some models.
    pub answer: Option<ListForm>,
}

/// The entity that a request is about.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Entity<'a> {
    /// The request is about no entity in particular.
    None,
    /// The request names the entity with this id.
    Named(&'a str),
    /// The body names the entity in this form, and has not been read.
    Unread(BodyForm),
}

impl Entity<'_> {
    /// Returns how the body names the entity; `None` if the body does not name it.
    pub fn unread(&self) -> Option<BodyForm> {
        match self {
            Self::Unread(form) => Some(*form),
            Self::None | Self::Named(_) => None,
        }
    }

    /// Returns the id, if it is known.
    pub fn name(&self) -> Option<&str> {
        match self {
            Self::Named(name) => Some(name),
            Self::None | Self::Unread(_) => None,
        }
    }
}

/// An error in a table, and its place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TableError {
    /// The path of the file, as the operator gave it.
    pub file: String,
    /// The number of the line, from 1; 0 for the file as a whole.
    pub line: u64,
    /// Methods and path of the rule that has the error.
    pub rule: Option<String>,
    /// The description of the error, for people.
    pub problem: String,
}

/// All errors in the tables, one line each.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TableErrors(Vec<TableError>);

impl TableErrors {
    /// Collects errors of files that could not be read.
    pub fn new(errors: Vec<TableError>) -> Self {
        Self(errors)
    }
}

impl std::error::Error for TableErrors {}

impl fmt::Display for TableErrors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, error) in self.0.iter().enumerate() {
            let newline = if index == 0 { "" } else { "\n" };
            write!(f, "{newline}{error}")?;
        }
        Ok(())
    }
}

impl fmt::Display for TableError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.file)?;
        if self.line > 0 {
            write!(f, ":{}", self.line)?;
        }
        if let Some(rule) = &self.rule {
            write!(f, ": rule `{rule}`")?;
        }
        write!(f, ": {}", self.problem)
    }
}

impl Apis {
    /// Compiles the tables that are part of the binary.
    ///
    /// # Errors
    ///
    /// Never returns an error, as a test of these tables shows.
    pub fn embedded() -> Result<Self, TableErrors> {
        Self::compile(&TableSource::embedded())
    }

    /// Returns the API to which a request belongs, by its host and the beginning of its path, whether or
    /// not a rule names it. The path need not be canonical.
    pub fn find<'a>(&'a self, authority: &'a str, path: &str) -> Option<MatchedApi<'a>> {
        let api = |mounts: &Tree<usize>| self.all.get(*mounts.find_above(path)?);
        let by_host = || {
            if self.at.is_empty() && self.under.is_empty() {
                return None;
            }
            let host = host::canonical(authority)?;
            if let Some(api) = self.at.get(&*host).and_then(api) {
                return Some(MatchedApi { api, label: None });
            }
            let (label, suffix) = host.split_once('.')?;
            let api = api(self.under.get(suffix)?)?;
            let label = match &host {
                Cow::Borrowed(_) => Cow::Borrowed(authority.get(..label.len())?),
                Cow::Owned(_) => Cow::Owned(label.to_owned()),
            };
            Some(MatchedApi { api, label: Some(label) })
        };
        let anywhere = || Some(MatchedApi { api: api(&self.anywhere)?, label: None });
        by_host().or_else(anywhere)
    }

    /// Returns the name of each table, and the number of its rules.
    pub fn list(&self) -> impl Iterator<Item = (&str, usize)> {
        self.all.iter().map(|api| (&*api.name, api.rules.len()))
    }

    /// Returns the name of each table, with the backends that it and its rules name.
    pub fn upstreams(&self) -> impl Iterator<Item = (&str, BTreeSet<&BackendName>)> {
        self.all.iter().map(|api| {
            let of_rules = api.rules.iter().filter_map(|rule| rule.upstream.as_ref());
            (&*api.name, of_rules.chain(&api.upstream).collect())
        })
    }
}

impl<'a> MatchedApi<'a> {
    /// Returns the name of the table.
    pub fn name(&self) -> &'a str {
        &self.api.name
    }

    /// Returns how the API takes tokens and answers refusals.
    pub fn api_style(&self) -> ApiStyle {
        self.api.api_style
    }

    /// Returns the names of the cookies that must not reach a backend.
    pub fn cookies(&self) -> &'a [Box<str>] {
        &self.api.cookies
    }

    /// Returns the mount if `path` is the mount followed by `/`: clients that append `/` to a base URL
    /// send this. No other path has two spellings.
    pub(crate) fn root<'p>(&self, path: &'p str) -> Option<&'p str> {
        let mount = path.strip_suffix('/').filter(|mount| !mount.is_empty())?;
        (mount.matches('/').count() == self.api.mount.segments.len()).then_some(mount)
    }

    /// Returns the domain that a request with this canonical path names, whether or not a rule matches
    /// the request.
    pub fn domain(&self, path: &'a str) -> Option<Cow<'a, str>> {
        match &self.api.domain {
            DomainSource::Host => self.label.clone(),
            DomainSource::Path(at) => at.of(path).map(Cow::Borrowed),
            DomainSource::Fixed(domain) => Some(Cow::Borrowed(&**domain)),
        }
    }

    /// Returns what a request with this method and canonical path does, without a query. `None` if no
    /// rule matches.
    pub fn rule(&self, method: &str, path: &'a str) -> Option<MatchedRule<'a>> {
        self.rule_with_query(method, path, "")
    }

    /// Returns whether the rule for a method and a canonical path permits a WebSocket.
    pub fn may_become_websocket(&self, method: &str, path: &str) -> bool {
        self.table_rule(method, path).is_some_and(|rule| rule.upgrade == Some(Upgrade::Websocket))
    }

    fn table_rule(&self, method: &str, path: &str) -> Option<&'a Rule> {
        let api = self.api;
        let method: Method = Method::of(method)?;
        let matches = |number: &usize| {
            api.rules.get(*number).is_some_and(|rule| rule.methods.contains(method))
        };
        api.rules.get(*api.tree.find(path, matches)?)
    }

    /// Returns what a request with this method, canonical path and query does. The query begins with its
    /// `?`, or is empty. `None` if no rule matches.
    pub fn rule_with_query(
        &self,
        method: &str,
        path: &'a str,
        query: &'a str,
    ) -> Option<MatchedRule<'a>> {
        let rule = self.table_rule(method, path)?;
        Some(MatchedRule {
            domain: self.domain(path)?,
            operation: rule.operation,
            entity_type: rule.entity_type,
            entity: match rule.id {
                IdSource::None => Entity::None,
                IdSource::Path(at) => Entity::Named(at.of(path)?),
                IdSource::Body(form) => Entity::Unread(form),
                // If no model can be read, only a scope on every model permits the request.
                IdSource::Query => body::model_in_query(query)
                    .map_or(Entity::Unread(BodyForm::Other), Entity::Named),
            },
            upstream: rule.upstream.as_ref().or(self.api.upstream.as_ref()),
            answer: rule.answer,
        })
    }
}

#[cfg(test)]
mod tests;
