//! What the operator's configuration says about the answers that let a request through.

use super::allow;
use crate::{credential::CredentialHeader, request::CREDENTIAL_HEADERS};

/// The settings that answers depend on.
#[derive(Clone, Debug)]
pub(crate) struct AnswerSettings {
    pub(super) names: HeaderNames,
    pub(super) guard: Guard,
    pub(super) credentials_removed: CredentialsRemoved,
}

impl AnswerSettings {
    /// `prefix` begins the names of the identity headers; `guard_word` is what Envoy's guard wants to
    /// see before it lets a request through.
    pub(crate) fn new(prefix: &str, guard_word: &str) -> Self {
        Self {
            names: HeaderNames::new(prefix),
            guard: Guard::new(guard_word),
            credentials_removed: CredentialsRemoved::new(),
        }
    }
}

/// The removal of the headers in which clients send credentials, encoded once instead of for each
/// allow.
#[derive(Clone, Debug)]
pub(super) struct CredentialsRemoved {
    all: Box<[u8]>,
    /// All but one, by [`CredentialHeader::ALL`].
    but_one: Box<[Box<[u8]>]>,
}

impl CredentialsRemoved {
    fn new() -> Self {
        let but = |header: &CredentialHeader| {
            allow::removed(CREDENTIAL_HEADERS.into_iter().filter(|name| *name != header.as_str()))
        };
        let all = allow::removed(CREDENTIAL_HEADERS);
        Self { all, but_one: CredentialHeader::ALL.iter().map(but).collect() }
    }

    /// Of all headers but the one that is set, if one is.
    pub(super) fn but(&self, set: Option<CredentialHeader>) -> &[u8] {
        set.and_then(|header| self.but_one.get(header as usize)).unwrap_or(&self.all)
    }
}

/// Under which name the dynamic metadata hold the guard's word.
pub(super) const GUARD: &str = "guard";

/// The metadatum without which the RBAC filter before Envoy's router refuses a request, so that
/// whatever never came to patgate reaches no backend.
#[derive(Clone, Debug)]
pub(super) struct Guard {
    word: Box<str>,
    entry: Box<[u8]>,
}

impl Guard {
    fn new(word: &str) -> Self {
        Self { word: word.into(), entry: allow::metadata_entry(GUARD, word) }
    }

    pub(super) fn word(&self) -> &str {
        &self.word
    }

    /// The same as an encoded entry of the metadata, made once instead of for each allow.
    pub(super) fn entry(&self) -> &[u8] {
        &self.entry
    }
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

    /// All of them.
    pub(super) fn all(&self) -> [&String; 7] {
        let Self { domain_id, domain_slug, user_id, pat_id, operation, model, upstream } = self;
        [domain_id, domain_slug, user_id, pat_id, operation, model, upstream]
    }
}
