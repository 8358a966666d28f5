//! Domains: the tenants, with the models that they may use and the backends that serve them.

use std::cmp::Reverse;

pub use crate::domain_ref::{DomainId, DomainRef, Slug, SlugError};
use crate::{
    backend::{Backend, UnopenedCredential},
    credential::{Credential, OpenedCredential, Sealed},
    keyring::KeyBasis,
    rollout::Rollout,
};

/// A tenant, as it was when it was read from Postgres.
#[derive(Clone, Debug, PartialEq, serde::Serialize, serde::Deserialize)]
pub struct Domain {
    /// The id, which never changes.
    pub id: DomainId,
    /// The name in the paths of requests, unique among domains.
    pub slug: Slug,
    /// Whether tokens may use the domain at all.
    pub enabled: bool,
    /// How far decisions are enforced, if the mode of the replica is `per-domain`.
    pub rollout: Rollout,
    /// The Envoy cluster that serves the domain, except for models with a cluster of their own.
    upstream: Box<str>,
    /// The models that the domain may use.
    models: Models,
    /// Every backend that the domain names, once each, in the order of their names.
    backends: Vec<Backend>,
}

/// The models that a domain may use. No list stands for all models; an empty list permits none.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub enum Models {
    /// Every model. The domain's own cluster serves them.
    All,
    /// These models or patterns, each with its cluster.
    Listed(Vec<(Box<str>, Box<str>)>),
}

impl Domain {
    /// Makes a domain. The list of models may have any order.
    pub fn new(
        id: DomainId,
        slug: Slug,
        enabled: bool,
        upstream: Box<str>,
        mut models: Models,
    ) -> Self {
        // Names in their order, then patterns, the most specific first.
        models.list_mut().sort_unstable_by(|(a, _), (b, _)| {
            let rank = |entry: &str| match entry.find('*') {
                None => (false, Reverse(0), Reverse(0)),
                Some(prefix) => (true, Reverse(prefix), Reverse(entry.len())),
            };
            rank(a).cmp(&rank(b)).then_with(|| a.cmp(b))
        });
        let named = models.list().iter().map(|(_, upstream)| upstream).chain([&upstream]);
        let mut names: Vec<&str> = named.map(|name| &**name).collect();
        names.sort_unstable();
        names.dedup();
        let backends = names.into_iter().map(|name| Backend::new(name.into(), None)).collect();
        Self { id, slug, enabled, rollout: Rollout::default(), upstream, models, backends }
    }

    /// Returns the same domain with this rollout.
    #[must_use]
    pub fn with_rollout(self, rollout: Rollout) -> Self {
        Self { rollout, ..self }
    }

    /// Returns the same domain with the credentials of its backends, each beside its backend's name.
    #[must_use]
    pub fn with_credentials(mut self, mut credentials: Vec<(Box<str>, Sealed)>) -> Self {
        for backend in &mut self.backends {
            let at = credentials.iter().position(|(name, _)| **name == *backend.name());
            let credential = at.map(|at| credentials.swap_remove(at).1);
            *backend = Backend::new(backend.name().into(), credential);
        }
        self
    }

    /// Returns the names of all backends of the domain.
    pub fn backends(&self) -> impl Iterator<Item = &str> {
        self.backends.iter().map(Backend::name)
    }

    /// Opens each credential that is not open yet, or records that it cannot be opened.
    pub fn open_credentials(&self, open: impl Fn(&str, &Sealed) -> OpenedCredential) {
        self.backends.iter().for_each(|backend| backend.open_credential(&open));
    }

    /// Returns what the results of opening its backends' credentials rest on, each once: as a rule, all
    /// of them on one key.
    pub fn bases(&self) -> Vec<KeyBasis> {
        let mut bases = Vec::new();
        for basis in self.backends.iter().filter_map(Backend::basis) {
            if !bases.contains(&basis) {
                bases.push(basis);
            }
        }
        bases
    }

    /// Returns the credential of a backend, if it has one.
    ///
    /// # Errors
    ///
    /// Returns an error if the credential could not be opened, or the domain has no such backend.
    pub fn credential_for(&self, backend: &str) -> Result<Option<&Credential>, UnopenedCredential> {
        let at = self.backends.binary_search_by(|known| known.name().cmp(backend));
        at.ok().and_then(|at| self.backends.get(at)).ok_or(UnopenedCredential)?.credential()
    }

    /// Returns whether the domain is limited to some models.
    pub fn lists_models(&self) -> bool {
        matches!(self.models, Models::Listed(_))
    }

    /// Returns the entries of the list of models, names before patterns; none if the domain may use all
    /// models.
    pub fn listed(&self) -> impl Iterator<Item = &str> {
        self.models.list().iter().map(|(entry, _)| &**entry)
    }

    /// Returns whether the domain may use no model at all.
    pub fn sees_no_model(&self) -> bool {
        self.lists_models() && self.models.list().is_empty()
    }

    /// Returns the cluster for a request about `model`, or about none in particular. Returns `None` if
    /// the domain lists its models and `model` is not one of them.
    pub fn upstream_for(&self, model: Option<&str>) -> Option<&str> {
        match (model, &self.models) {
            (Some(model), Models::Listed(listed)) => {
                let (names, patterns) = names_and_patterns(listed);
                let listed = match names.binary_search_by(|(name, _)| (**name).cmp(model)) {
                    Ok(at) => names.get(at),
                    Err(_) => patterns.iter().find(|(pattern, _)| matches(pattern, model)),
                };
                listed.map(|(_, upstream)| &**upstream)
            }
            (None, _) | (_, Models::All) => Some(&self.upstream),
        }
    }

    /// Returns the exact names on the list of models, in the order of their bytes.
    pub(crate) fn names(&self) -> impl ExactSizeIterator<Item = &str> {
        names_and_patterns(self.models.list()).0.iter().map(|(name, _)| &**name)
    }

    /// Returns whether the list of models has this exact name.
    pub(crate) fn has_name(&self, model: &str) -> bool {
        let (names, _) = names_and_patterns(self.models.list());
        names.binary_search_by(|(name, _)| (**name).cmp(model)).is_ok()
    }

    /// Returns the number of patterns on the list of models.
    pub fn patterns(&self) -> usize {
        names_and_patterns(self.models.list()).1.len()
    }

    /// Returns the pattern that would cover a model if its `*` stood for any characters, for an error
    /// message.
    pub fn nearest_pattern(&self, model: &str) -> Option<&str> {
        let patterns = self.models.list().iter().map(|(pattern, _)| &**pattern);
        let nearest = |pattern: &&str| middle(pattern, model).is_some();
        patterns.filter(|pattern| is_writable_pattern(pattern)).find(nearest)
    }

    /// Returns the bytes that the domain occupies, for the limit of the memory tier.
    pub fn size(&self) -> usize {
        let models = self.models.list().iter();
        let models = models.map(|(name, upstream)| 32 + name.len() + upstream.len());
        let backends =
            self.backends.iter().map(|backend| size_of::<Backend>() + backend.heap_size());
        let text = self.slug.as_str().len() + self.upstream.len();
        size_of::<Self>() + text + models.sum::<usize>() + backends.sum::<usize>()
    }
}

impl Models {
    /// Returns the list; an empty one if the domain may use all models.
    fn list(&self) -> &List {
        match self {
            Self::All => &[],
            Self::Listed(models) => models,
        }
    }

    fn list_mut(&mut self) -> &mut [(Box<str>, Box<str>)] {
        match self {
            Self::All => &mut [],
            Self::Listed(models) => models,
        }
    }
}

/// A list of models, with the cluster of each.
type List = [(Box<str>, Box<str>)];

/// Returns the two parts of a sorted list: names and patterns.
fn names_and_patterns(listed: &List) -> (&List, &List) {
    listed.split_at(listed.partition_point(|(name, _)| !is_pattern(name)))
}

/// Returns whether an entry of a list of models is a pattern.
fn is_pattern(entry: &str) -> bool {
    entry.contains('*')
}

/// Returns whether a pattern is permitted: it has one `*`, and otherwise only characters that occur in
/// the names of models and cannot join two of them. A pattern that was written into the database
/// without patgate's commands, and is not permitted, matches nothing.
pub fn is_writable_pattern(entry: &str) -> bool {
    let around = |character| stood_for(character) || matches!(character, '/' | '@' | '+');
    entry
        .split_once('*')
        .is_some_and(|(prefix, suffix)| (prefix.chars().chain(suffix.chars())).all(around))
}

/// Returns whether the `*` of a pattern may stand for this character. A name that no administrator has
/// seen must not contain characters with a meaning for some backend: LiteLLM reads `a,b` as two
/// models, and other backends read `x@y` as a preset or a digest. So only the characters that names
/// need are permitted.
fn stood_for(character: char) -> bool {
    character.is_ascii_alphanumeric() || matches!(character, '.' | '_' | '-' | ':')
}

fn matches(pattern: &str, model: &str) -> bool {
    middle(pattern, model).is_some_and(|it| it.chars().all(stood_for))
        && is_writable_pattern(pattern)
}

/// Returns what the `*` of a pattern would have to stand for to match this model.
fn middle<'m>(pattern: &str, model: &'m str) -> Option<&'m str> {
    let (prefix, suffix) = pattern.split_once('*')?;
    model.strip_prefix(prefix)?.strip_suffix(suffix)
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;
    use crate::credential::CredentialScheme;

    fn domain(models: Models) -> Domain {
        let id = DomainId(Uuid::from_u128(1));
        Domain::new(id, "acme".parse().unwrap(), true, "default".into(), models)
    }

    fn picky(models: &[(&str, &str)]) -> Domain {
        let models = models.iter().map(|(name, upstream)| ((*name).into(), (*upstream).into()));
        domain(Models::Listed(models.collect()))
    }

    #[test]
    fn a_name_comes_before_a_pattern_and_the_longest_beginning_before_others() {
        let domain = picky(&[
            ("*", "any"),
            ("qwen*", "qwen"),
            ("qwen2.5-*", "qwen25"),
            ("qwen2.5-*b", "qwen25b"),
            ("qwen2.5-7b", "named"),
            ("org/*", "org"),
            ("*-embed", "embed"),
            ("a**", "twice"),
            ("**", "twice"),
        ]);
        for (model, upstream) in [
            ("qwen2.5-7b", Some("named")),
            ("qwen2.5-72b", Some("qwen25b")),
            ("qwen2.5-b", Some("qwen25b")),
            ("qwen2.5-x", Some("qwen25")),
            ("qwen2.5-", Some("qwen25")),
            ("qwen2.5", Some("qwen")),
            ("Qwen2.5", Some("any")),
            ("org/m", Some("org")),
            ("org/", Some("org")),
            ("org/m/x", None),
            ("other/m", None),
            ("qwen2.5-x/y", None),
            ("my-embed", Some("embed")),
            ("org/my-embed", Some("org")),
            ("a**", None),
            ("*", None),
            ("", Some("any")),
        ] {
            assert_eq!(domain.upstream_for(Some(model)), upstream, "{model}");
        }
        assert_eq!(domain.upstream_for(None), Some("default"));
    }

    #[test]
    fn a_star_stands_for_what_names_need_and_no_more() {
        let domain = picky(&[
            ("qwen2.5-*", "qwen"),
            ("*-embed", "embed"),
            ("org/*", "org"),
            ("claude@*", "dated"),
            ("exact,name", "exact"),
            ("left,*", "never"),
            ("*;right", "never"),
            ("\u{fc}*", "never"),
        ]);
        for (model, upstream) in [
            ("qwen2.5-Az09._:-", Some("qwen")),
            ("org/m:7b-q4_K_M", Some("org")),
            ("claude@20240620", Some("dated")),
            ("exact,name", Some("exact")),
            ("left,gpt-4o", None),
            ("gpt-4o;right", None),
            ("\u{fc}b", None),
        ] {
            assert_eq!(domain.upstream_for(Some(model)), upstream, "{model}");
        }
        let others = (0..0x3000).filter_map(char::from_u32);
        for other in others.filter(|c| !c.is_ascii_alphanumeric() && !"._:-".contains(*c)) {
            for model in [
                format!("qwen2.5-7b{other}gpt-4o"),
                format!("qwen2.5-{other}"),
                format!("gpt-4o{other}-embed"),
                format!("org/m{other}"),
            ] {
                assert_eq!(domain.upstream_for(Some(&model)), None, "{model:?}");
            }
        }
        assert_eq!(domain.nearest_pattern("qwen2.5-7b,gpt-4o"), Some("qwen2.5-*"));
        assert_eq!(domain.nearest_pattern("qwen2-7b,gpt-4o"), None);
    }

    #[test]
    fn a_list_without_a_match_lets_nothing_through() {
        let domain = picky(&[("a*b*c", "x"), ("**", "x"), ("ab*ba", "y")]);
        // Prefix and suffix must not overlap.
        for model in ["aba", "a*b*c", "axbxc", "**", "x"] {
            assert_eq!(domain.upstream_for(Some(model)), None, "{model}");
        }
        assert_eq!(domain.upstream_for(Some("abba")), Some("y"));
    }

    #[test]
    fn an_empty_list_is_none_and_all_is_said() {
        let none = picky(&[]);
        let all = domain(Models::All);
        for model in ["x", "", "*", "(none) *"] {
            assert_eq!(none.upstream_for(Some(model)), None, "{model}");
            assert_eq!(all.upstream_for(Some(model)), Some("default"), "{model}");
        }
        assert!(none.lists_models() && !all.lists_models());
        assert_eq!(none.upstream_for(None), Some("default"));
    }

    #[test]
    fn without_its_credential_nothing_is_sent_to_a_backend() {
        let sealed = || Sealed { key_id: "k".into(), bytes: [1].into() };
        let credentials = ["any", "qwen", "unused"].map(|name| (name.into(), sealed()));
        let domain = picky(&[("*", "any"), ("a", "any"), ("q", "qwen")])
            .with_credentials(credentials.into());
        assert_eq!(domain.backends().collect::<Vec<_>>(), ["any", "default", "qwen"]);
        assert_eq!(domain.credential_for("any"), Err(UnopenedCredential));
        let opened = Credential::new(CredentialScheme::Bearer, "sk").unwrap();
        let presumed = OpenedCredential::presumed;
        domain.open_credentials(|name, _| presumed((name == "any").then(|| opened.clone())));
        // A credential that could not be opened is not tried again.
        domain.open_credentials(|_, _| presumed(Some(opened.clone())));
        assert_eq!(domain.credential_for("any"), Ok(Some(&opened)));
        assert_eq!(domain.credential_for("qwen"), Err(UnopenedCredential));
        assert_eq!(domain.credential_for("default"), Ok(None));
        assert_eq!(domain.credential_for("unused"), Err(UnopenedCredential));
        // The form that Redis stores has no opened credential.
        let stored = postcard::to_stdvec(&domain).unwrap();
        let restored: Domain = postcard::from_bytes(&stored).unwrap();
        assert_eq!(restored.credential_for("any"), Err(UnopenedCredential));
    }
}
