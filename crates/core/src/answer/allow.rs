//! The answer that lets a request pass as what it is permitted as. Nearly every check gets it, so it
//! only borrows: from the permit, the settings and the request.

use std::fmt;

use uuid::fmt::Hyphenated;

use super::{AnswerSettings, MetadataValue, Metadatum, credential_headers_except, milliseconds};
use crate::{
    credential::{Credential, CredentialHeader},
    decide::Permit,
    provenance::Provenance,
    request::HeaderEdits,
    rollout::Treatment,
};

/// The name of the metadata entry that says how old the grounds of an answer are, in milliseconds.
pub const AGE_MS: &str = "age_ms";

/// Room for the ids of domain, owner and token as texts.
pub struct IdTexts([[u8; Hyphenated::LENGTH]; 3]);

impl Default for IdTexts {
    fn default() -> Self {
        Self([[0; Hyphenated::LENGTH]; 3])
    }
}

/// Lets a request pass as what a permit says.
///
/// Every name of patgate's headers is either set or removed, and so is every header in which clients
/// send credentials: a client's copy never survives.
pub struct Allow<'a> {
    settings: &'a AnswerSettings,
    unenforced_by: Option<Treatment>,
    /// A header without a value is removed.
    identity: [(&'a str, Option<&'a str>); 7],
    /// The backend's own, in the header where the backend wants it.
    credential: Option<&'a Credential>,
    edits: &'a HeaderEdits,
    facts: [(&'static str, Option<&'a str>); 7],
    age_ms: f64,
}

/// It may hold a backend's credential.
impl fmt::Debug for Allow<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Allow(…)")
    }
}

impl<'a> Allow<'a> {
    #[inline]
    pub(super) fn new(
        permit: &'a Permit,
        unenforced_by: Option<Treatment>,
        provenance: &Provenance,
        settings: &'a AnswerSettings,
        edits: &'a HeaderEdits,
        IdTexts([domain, owner, token]): &'a mut IdTexts,
    ) -> Self {
        let domain: &str = permit.domain().id.0.hyphenated().encode_lower(domain);
        let owner: &str = permit.owner().0.hyphenated().encode_lower(owner);
        let token: &str = permit.token().0.hyphenated().encode_lower(token);
        let slug = permit.domain().slug.as_str();
        let operation = permit.operation().as_str();
        let model = permit.model();
        let names = &settings.names;
        Self {
            settings,
            unenforced_by,
            identity: [
                (&names.domain_id, Some(domain)),
                (&names.domain_slug, Some(slug)),
                (&names.user_id, Some(owner)),
                (&names.pat_id, Some(token)),
                (&names.operation, Some(operation)),
                (&names.upstream, Some(permit.upstream())),
                (&names.model, model),
            ],
            credential: permit.credential(),
            edits,
            facts: [
                ("domain_id", Some(domain)),
                ("domain_slug", Some(slug)),
                ("user_id", Some(owner)),
                ("pat_id", Some(token)),
                ("operation", Some(operation)),
                ("model", model),
                ("tier", Some(provenance.tier.as_str())),
            ],
            age_ms: milliseconds(provenance.age),
        }
    }

    /// Returns the headers to set. Each replaces every copy of the client's.
    #[inline]
    pub fn headers_set(&self) -> impl DoubleEndedIterator<Item = (&str, &str)> {
        let identity = self.identity.iter().filter_map(|(name, value)| Some((*name, (*value)?)));
        let credential = self.credential.iter().map(|it| (it.header().as_str(), it.expose()));
        identity.chain(credential).chain(self.edits.headers_set())
    }

    /// Returns the names of all headers to remove.
    pub fn headers_removed(&self) -> impl DoubleEndedIterator<Item = &str> {
        let credentials = credential_headers_except(self.credential_header());
        self.headers_removed_besides_credentials().chain(credentials.map(|name| -> &str { name }))
    }

    /// Returns the names of the headers to remove, without [`credential_headers_except`] for
    /// [`Self::credential_header`], which an edge may have encoded before.
    #[inline]
    pub fn headers_removed_besides_credentials(&self) -> impl DoubleEndedIterator<Item = &str> {
        let identity = self.identity.iter().filter(|(_, value)| value.is_none());
        identity.map(|(name, _)| *name).chain(self.edits.headers_removed())
    }

    /// Returns the header in which the backend's credential is set, if it has one.
    #[inline]
    pub fn credential_header(&self) -> Option<CredentialHeader> {
        self.credential.map(Credential::header)
    }

    /// Returns the treatment because of which patgate does not answer in place of the backend.
    #[inline]
    pub fn unenforced_by(&self) -> Option<Treatment> {
        self.unenforced_by
    }

    /// Returns the metadata that say what was decided, and the word for the guard.
    pub fn verdict_metadata(&self) -> impl DoubleEndedIterator<Item = (&'static str, &str)> {
        self.settings.verdict_metadata(self.unenforced_by)
    }

    /// Returns all metadata.
    pub fn metadata(&self) -> impl Iterator<Item = Metadatum<'_>> {
        let texts = self.verdict_metadata().chain(self.facts());
        let texts = texts.map(|(name, text)| (name, MetadataValue::Text(text.into())));
        texts.chain([(AGE_MS, MetadataValue::Number(self.age_ms))])
    }

    /// Returns the metadata about this request that are texts: all but [`AGE_MS`] and
    /// [`AnswerSettings::verdict_metadata`], which an edge may have encoded before.
    #[inline]
    pub fn facts(&self) -> impl DoubleEndedIterator<Item = (&'static str, &str)> {
        self.facts.iter().filter_map(|(name, value)| Some((*name, (*value)?)))
    }

    /// Returns the age of the grounds in whole milliseconds, the metadata entry [`AGE_MS`].
    #[inline]
    pub fn age_ms(&self) -> f64 {
        self.age_ms
    }
}
