//! The proof that a request is permitted.

use std::sync::Arc;

use crate::{
    credential::Credential, domain::Domain, operation::Operation, principal::UserId, token::TokenId,
};

/// The proof that a request is permitted, with what the backend gets to know of it. Only
/// `Permitted::authorize`, the end of `decide::authorize`, makes one, and nothing outside
/// of `decide` can change it.
#[derive(Clone, Debug, PartialEq)]
pub struct Permit {
    pub(super) token: TokenId,
    pub(super) owner: UserId,
    pub(super) domain: Arc<Domain>,
    pub(super) operation: Operation,
    pub(super) model: Option<Box<str>>,
    pub(super) upstream: Box<str>,
    pub(super) credential: Option<Credential>,
}

impl Permit {
    /// Returns the token that the client sent.
    pub fn token(&self) -> TokenId {
        self.token
    }

    /// Returns the owner of the token.
    pub fn owner(&self) -> UserId {
        self.owner
    }

    /// Returns the domain in which the request is permitted.
    pub fn domain(&self) -> &Arc<Domain> {
        &self.domain
    }

    /// Returns the operation of the request.
    pub fn operation(&self) -> Operation {
        self.operation
    }

    /// Returns the model that the request is about, if it is known.
    pub fn model(&self) -> Option<&str> {
        self.model.as_deref()
    }

    /// Returns the name of the Envoy cluster that serves the request.
    pub fn upstream(&self) -> &str {
        &self.upstream
    }

    /// Returns the credential that the backend gets in place of the client's token, if it has one.
    pub fn credential(&self) -> Option<&Credential> {
        self.credential.as_ref()
    }

    /// Makes a permit without a decision.
    #[cfg(any(test, feature = "testing"))]
    pub(crate) fn for_tests(domain: Arc<Domain>, upstream: &str) -> Self {
        Self {
            token: TokenId(uuid::Uuid::from_u128(1)),
            owner: UserId(uuid::Uuid::from_u128(2)),
            domain,
            operation: Operation::LlmRead,
            model: None,
            upstream: upstream.into(),
            credential: None,
        }
    }

    /// Returns the same permit with another model and credential.
    #[cfg(any(test, feature = "testing"))]
    #[must_use]
    pub fn with_for_tests(self, model: Option<&str>, credential: Option<Credential>) -> Self {
        Self { model: model.map(Box::from), credential, ..self }
    }
}
