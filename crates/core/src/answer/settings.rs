//! What the operator's configuration says about answers that let a request on.

use std::fmt;

use crate::{credential::CredentialHeader, request::CREDENTIAL_HEADERS, rollout::Treatment};

/// The name of the metadata entry that holds the guard's word. Without it, the guard before the
/// proxy's router refuses a request, so what patgate was never asked about reaches no backend.
pub const GUARD: &str = "guard";

/// The settings on which answers depend. `Debug` does not show the guard's word.
#[derive(Clone)]
pub struct AnswerSettings {
    pub(super) names: HeaderNames,
    guard_word: Box<str>,
}

impl fmt::Debug for AnswerSettings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AnswerSettings").field("names", &self.names).finish_non_exhaustive()
    }
}

impl AnswerSettings {
    /// `prefix` begins the names of the identity headers; `guard_word` is what the proxy's guard
    /// requires before it lets a request through.
    pub fn new(prefix: &str, guard_word: &str) -> Self {
        Self { names: HeaderNames::new(prefix), guard_word: guard_word.into() }
    }

    /// The metadata of every allow alike: the verdict, and the guard's word. `unenforced_by` is the
    /// treatment because of which a verdict is not enforced.
    #[inline]
    pub fn verdict_metadata(
        &self,
        unenforced_by: Option<Treatment>,
    ) -> impl DoubleEndedIterator<Item = (&'static str, &str)> {
        let outcome = if unenforced_by.is_some() { "answered" } else { "allow" };
        let [enforced, mode] = not_enforced(unenforced_by);
        let entries = [
            ("outcome", Some(outcome)),
            ("code", Some("ok")),
            enforced,
            mode,
            (GUARD, Some(self.guard_word())),
        ];
        entries.into_iter().filter_map(|(name, value)| Some((name, value?)))
    }

    pub(super) fn guard_word(&self) -> &str {
        &self.guard_word
    }
}

/// The metadata that say why a verdict is not enforced.
#[inline]
pub(super) fn not_enforced(by: Option<Treatment>) -> [(&'static str, Option<&'static str>); 2] {
    [("enforced", by.map(|_| "false")), ("mode", by.map(Treatment::as_str))]
}

/// Returns the headers in which clients send credentials, except the one that is set.
pub fn credential_headers_except(
    set: Option<CredentialHeader>,
) -> impl DoubleEndedIterator<Item = &'static str> {
    let set = set.map(CredentialHeader::as_str);
    CREDENTIAL_HEADERS.into_iter().filter(move |name| Some(*name) != set)
}

/// The names of the identity headers, under the operator's prefix.
#[derive(Clone, Debug)]
pub(super) struct HeaderNames {
    pub(super) domain_id: String,
    pub(super) domain_slug: String,
    pub(super) user_id: String,
    pub(super) pat_id: String,
    pub(super) operation: String,
    pub(super) model: String,
    pub(super) upstream: String,
}

impl HeaderNames {
    fn new(prefix: &str) -> Self {
        let name = |rest: &str| format!("{prefix}{rest}");
        Self {
            domain_id: name("domain-id"),
            domain_slug: name("domain-slug"),
            user_id: name("user-id"),
            pat_id: name("pat-id"),
            operation: name("auth-operation"),
            model: name("auth-model"),
            upstream: name("upstream-cluster"),
        }
    }

    /// Returns all of them.
    pub(super) fn all(&self) -> [&str; 7] {
        let Self { domain_id, domain_slug, user_id, pat_id, operation, model, upstream } = self;
        [domain_id, domain_slug, user_id, pat_id, operation, model, upstream]
    }
}
