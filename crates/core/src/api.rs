//! The protected API surfaces: tables, read from YAML and compiled once.
//!
//! Host and beginning of the path say which surface a request belongs to, one at most. Within it,
//! method and path template are one key. Templates match whole segments; one named tail may end
//! them. What no rule names is denied. The cost of finding a rule does not grow with their number.

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

/// All surfaces, compiled.
#[derive(Debug, Default)]
pub struct Apis {
    surfaces: Vec<Surface>,
    /// Mounts at one host.
    at: HashMap<Box<str>, Tree<usize>>,
    /// Mounts at one label and what follows it.
    under: HashMap<Box<str>, Tree<usize>>,
    /// Mounts at whatever host.
    anywhere: Tree<usize>,
}

/// One API.
#[derive(Debug)]
pub struct Surface {
    name: Box<str>,
    host: HostPattern,
    mount: Template,
    api_style: ApiStyle,
    /// How it words its errors.
    errors: ErrorStyles,
    /// Names of cookies that reach no backend.
    cookies: Box<[Box<str>]>,
    domain: DomainSource,
    /// Where requests go, instead of where their domains are served.
    upstream: Option<BackendName>,
    /// Numbers of rules.
    tree: Tree<usize>,
    rules: Vec<Rule>,
}

/// What names the domain of a request.
#[derive(Clone, Debug, PartialEq)]
enum DomainSource {
    /// The first label of the host.
    Host,
    /// A segment of the path.
    Path(Capture),
    /// Nothing: it is always this one.
    Fixed(Box<str>),
}

/// What methods and a path mean.
#[derive(Clone, Debug)]
struct Rule {
    methods: Methods,
    /// Below the host, the mount included.
    template: Template,
    operation: Operation,
    entity_type: EntityType,
    id: IdSource,
    /// What such a request may be upgraded to.
    upgrade: Option<Upgrade>,
    /// Where such requests go, whatever the table says.
    upstream: Option<BackendName>,
    /// How patgate answers them itself, for what token or domain are limited to.
    answer: Option<ListForm>,
}

#[derive(Clone, Debug, Default, PartialEq)]
enum IdSource {
    #[default]
    None,
    Path(Capture),
    Body(BodyForm),
    /// The one parameter `model` of the query.
    Query,
}

/// The surface that a request belongs to.
#[derive(Clone, Debug)]
pub struct MatchedSurface<'a> {
    surface: &'a Surface,
    /// The domain, where the host names it.
    label: Option<Cow<'a, str>>,
}

/// A rule that a request falls under.
#[derive(Debug, PartialEq)]
pub struct Action<'a> {
    /// The domain as the request, or the table, names it.
    pub domain: Cow<'a, str>,
    /// What the request does.
    pub operation: Operation,
    /// What it does it to.
    pub entity_type: EntityType,
    /// Which one.
    pub entity: Entity<'a>,
    /// The backend that serves it, whatever its domain; without one, the domain's.
    pub upstream: Option<&'a BackendName>,
    /// How patgate answers it itself, if token or domain are limited to some models.
    pub answer: Option<ListForm>,
}

/// The one entity that a request is about.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Entity<'a> {
    /// None in particular.
    None,
    /// This one.
    Named(&'a str),
    /// The one that the body names in this form; it has not been read.
    Unread(BodyForm),
}

impl Entity<'_> {
    /// The id, where it is known.
    pub fn name(&self) -> Option<&str> {
        match self {
            Self::Named(name) => Some(name),
            Self::None | Self::Unread(_) => None,
        }
    }
}

/// What is wrong with a table, and where.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TableError {
    /// The file, as the operator named it.
    pub file: String,
    /// From 1; 0 for the file as a whole.
    pub line: u64,
    /// Methods and path.
    pub rule: Option<String>,
    /// What is wrong, for people.
    pub problem: String,
}

/// Everything that is wrong, one line each.
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
        for (index, mistake) in self.0.iter().enumerate() {
            let newline = if index == 0 { "" } else { "\n" };
            write!(f, "{newline}{mistake}")?;
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
    /// The tables that the binary carries.
    ///
    /// # Errors
    ///
    /// None, as a test of the shipped tables shows.
    pub fn embedded() -> Result<Self, TableErrors> {
        Self::compile(&TableSource::embedded())
    }

    /// Which surface a request belongs to, by its host and the beginning of its path, whether or
    /// not a rule names it. The path need not be canonical.
    pub fn surface<'a>(&'a self, authority: &'a str, path: &str) -> Option<MatchedSurface<'a>> {
        let surface = |mounts: &Tree<usize>| self.surfaces.get(*mounts.find_above(path)?);
        let by_host = || {
            if self.at.is_empty() && self.under.is_empty() {
                return None;
            }
            let host = host::canonical(authority)?;
            if let Some(surface) = self.at.get(&*host).and_then(surface) {
                return Some(MatchedSurface { surface, label: None });
            }
            let (label, suffix) = host.split_once('.')?;
            let surface = surface(self.under.get(suffix)?)?;
            let label = match &host {
                Cow::Borrowed(_) => Cow::Borrowed(authority.get(..label.len())?),
                Cow::Owned(_) => Cow::Owned(label.to_owned()),
            };
            Some(MatchedSurface { surface, label: Some(label) })
        };
        let anywhere = || Some(MatchedSurface { surface: surface(&self.anywhere)?, label: None });
        by_host().or_else(anywhere)
    }

    /// Name and number of rules of each surface.
    pub fn list(&self) -> impl Iterator<Item = (&str, usize)> {
        self.surfaces.iter().map(|surface| (&*surface.name, surface.rules.len()))
    }

    /// The name of each surface, with the backends that it and its rules name.
    pub fn upstreams(&self) -> impl Iterator<Item = (&str, BTreeSet<&BackendName>)> {
        self.surfaces.iter().map(|surface| {
            let of_rules = surface.rules.iter().filter_map(|rule| rule.upstream.as_ref());
            (&*surface.name, of_rules.chain(&surface.upstream).collect())
        })
    }
}

impl<'a> MatchedSurface<'a> {
    /// The name of its table.
    pub fn name(&self) -> &'a str {
        &self.surface.name
    }

    /// How this surface speaks to its clients.
    pub fn api_style(&self) -> ApiStyle {
        self.surface.api_style
    }

    /// The names of the cookies that are removed from its requests.
    pub fn cookies(&self) -> &'a [Box<str>] {
        &self.surface.cookies
    }

    /// The mount, where `path` is the mount and a `/`: clients that join a base URL and `/` ask for
    /// that. No other path has two spellings.
    pub(crate) fn root<'p>(&self, path: &'p str) -> Option<&'p str> {
        let mount = path.strip_suffix('/').filter(|mount| !mount.is_empty())?;
        (mount.matches('/').count() == self.surface.mount.segments.len()).then_some(mount)
    }

    /// The domain as a request with this canonical path names it, whether or not a rule does.
    pub fn domain(&self, path: &'a str) -> Option<Cow<'a, str>> {
        match &self.surface.domain {
            DomainSource::Host => self.label.clone(),
            DomainSource::Path(at) => at.of(path).map(Cow::Borrowed),
            DomainSource::Fixed(domain) => Some(Cow::Borrowed(&**domain)),
        }
    }

    /// The rule for a method and a canonical path, of a request without a query.
    pub fn action(&self, method: &str, path: &'a str) -> Option<Action<'a>> {
        self.action_with(method, path, "")
    }

    /// Whether the rule for a method and a canonical path lets the request become a WebSocket.
    pub fn may_become_websocket(&self, method: &str, path: &str) -> bool {
        self.rule(method, path).is_some_and(|rule| rule.upgrade == Some(Upgrade::Websocket))
    }

    fn rule(&self, method: &str, path: &str) -> Option<&'a Rule> {
        let surface = self.surface;
        let method: Method = Method::of(method)?;
        let matches = |number: &usize| {
            surface.rules.get(*number).is_some_and(|rule| rule.methods.contains(method))
        };
        surface.rules.get(*surface.tree.find(path, matches)?)
    }

    /// The rule for a method and a canonical path, of a request with this query, which begins with
    /// its `?` if it is there.
    pub fn action_with(&self, method: &str, path: &'a str, query: &'a str) -> Option<Action<'a>> {
        let rule = self.rule(method, path)?;
        Some(Action {
            domain: self.domain(path)?,
            operation: rule.operation,
            entity_type: rule.entity_type,
            entity: match rule.id {
                IdSource::None => Entity::None,
                IdSource::Path(at) => Entity::Named(at.of(path)?),
                IdSource::Body(form) => Entity::Unread(form),
                // Where no model can be read, none in particular is permitted.
                IdSource::Query => body::model_in_query(query)
                    .map_or(Entity::Unread(BodyForm::Other), Entity::Named),
            },
            upstream: rule.upstream.as_ref().or(self.surface.upstream.as_ref()),
            answer: rule.answer,
        })
    }
}

#[cfg(test)]
mod tests;
