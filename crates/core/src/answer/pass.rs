//! The answer that lets a request on without an identity.

use std::fmt;

use super::{AnswerSettings, GUARD, MetadataValue, Metadatum, settings::not_enforced};
use crate::{decide::AwaitsBody, enforce::UnenforcedVerdict, request::HeaderEdits};

/// The metadata entry by which the second of two filters knows that it has to ask.
const NEEDS_BODY: &str = "needs_body";

/// Lets a request on as what it came, except that the client's copies of patgate's headers are
/// removed.
pub struct Pass<'a> {
    set: Vec<(&'a str, &'a str)>,
    removed: Vec<&'a str>,
    metadata: Vec<Metadatum<'a>>,
}

/// It holds the client's cookies.
impl fmt::Debug for Pass<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Pass(…)")
    }
}

impl<'a> Pass<'a> {
    /// patgate's tokens are removed, too. A credential of another kind stays, for what served the
    /// request before. Removing headers also makes Envoy choose the route again.
    pub(super) fn unenforced(
        unenforced: &UnenforcedVerdict,
        mut metadata: Vec<Metadatum<'a>>,
        settings: &'a AnswerSettings,
        edits: &'a HeaderEdits,
    ) -> Self {
        // The guard before the router lets through what patgate lets through, whatever the verdict.
        let [enforced, mode] = not_enforced(Some(unenforced.by()));
        let entries = [enforced, mode, (GUARD, Some(settings.guard_word()))];
        let texts = entries.into_iter().filter_map(|(name, text)| Some((name, text?)));
        metadata.extend(texts.map(|(name, text)| (name, MetadataValue::Text(text.into()))));
        let removed = settings.names.all().into_iter().chain(edits.headers_removed());
        Self { set: edits.headers_set().collect(), removed: removed.collect(), metadata }
    }

    /// The client's own `authorization` stays for the second step.
    pub(super) fn awaiting(_: &AwaitsBody, settings: &'a AnswerSettings) -> Self {
        Self {
            set: Vec::new(),
            removed: settings.names.all().into(),
            metadata: vec![(NEEDS_BODY, MetadataValue::Flag(true))],
        }
    }

    /// Returns the headers to set. Each replaces every copy of the client's.
    pub fn headers_set(&self) -> &[(&'a str, &'a str)] {
        &self.set
    }

    /// Returns the names of the headers to remove.
    pub fn headers_removed(&self) -> &[&'a str] {
        &self.removed
    }

    /// Returns the metadata.
    pub fn metadata(&self) -> &[Metadatum<'a>] {
        &self.metadata
    }
}
