//! Chooses the backend of a permitted request.

use crate::{
    api::MatchedRule,
    backend::{Backend, BackendName, UnopenedCredential},
    credential::Credential,
    domain::Domain,
};

/// Where a permitted request goes.
pub(crate) struct Upstream<'a> {
    /// The name of the backend.
    pub(crate) name: &'a str,
    /// What the backend gets in place of the client's token, if it has a credential.
    pub(crate) credential: Option<&'a Credential>,
}

/// Why no backend may serve a request.
pub(crate) enum NoUpstream<'a> {
    /// The domain lists its models, and the model of the request is not on the list.
    UnlistedModel,
    /// The backend that the rule or its table names does not exist.
    UnknownBackend(&'a BackendName),
    /// The credential of the backend with this name could not be opened.
    UnopenedCredential(&'a str),
}

/// Chooses the backend that the rule or its table names (`own` is what the store holds under that
/// name), otherwise the backend of the domain for this model. Name and credential come from the same
/// one.
#[inline(always)] // A part of what is counted in `Permitted::authorize`.
pub(crate) fn choose_upstream<'a>(
    rule: &MatchedRule<'a>,
    domain: &'a Domain,
    own: Option<&'a Backend>,
    model: Option<&str>,
) -> Result<Upstream<'a>, NoUpstream<'a>> {
    // The domain must be permitted to see the model wherever the request then goes.
    let of_domain = domain.upstream_for(model).ok_or(NoUpstream::UnlistedModel)?;
    let (name, credential) = match rule.upstream {
        None => (of_domain, domain.credential_for(of_domain)),
        // The domain's backend never takes its place: it has another credential.
        Some(name) => {
            let own = own.filter(|backend| backend.name() == name.as_str());
            let own = own.ok_or(NoUpstream::UnknownBackend(name))?;
            (name.as_str(), own.credential())
        }
    };
    match credential {
        Ok(credential) => Ok(Upstream { name, credential }),
        Err(UnopenedCredential) => Err(NoUpstream::UnopenedCredential(name)),
    }
}
