//! Chooses the backend of a permitted request.

use crate::{
    api::MatchedRule,
    backend::{Backend, BackendName, ReservedNames, UnopenedCredential},
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
    /// The backend has the name of a cluster of the gateway that is no backend. The gateway would send
    /// the request there.
    ReservedName(&'a str),
    /// The credential of the backend with this name could not be opened.
    UnopenedCredential(&'a str),
}

/// Chooses the backend that the rule or its table names (`own` is what the store holds under that
/// name), otherwise the backend of the domain for this model. Name and credential come from the same
/// one. It is none whose name is reserved.
#[inline(always)] // A part of what is counted in `Permitted::authorize`.
pub(crate) fn choose_upstream<'a>(
    rule: &MatchedRule<'a>,
    domain: &'a Domain,
    own: Option<&'a Backend>,
    model: Option<&str>,
    reserved: &ReservedNames,
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
    if reserved.holds(name) {
        return Err(NoUpstream::ReservedName(name));
    }
    match credential {
        Ok(credential) => Ok(Upstream { name, credential }),
        Err(UnopenedCredential) => Err(NoUpstream::UnopenedCredential(name)),
    }
}
