//! What an allowed request is allowed as.

use std::sync::Arc;

use crate::{
    credential::Credential, domain::Domain, operation::Operation, principal::UserId, token::TokenId,
};

/// What an allowed request passes as. Made by `decide::authorize` alone.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct Permit {
    /// The token that was shown.
    pub token: TokenId,
    /// Whose it is.
    pub owner: UserId,
    /// Where the request goes.
    pub domain: Arc<Domain>,
    /// What it does.
    pub operation: Operation,
    /// The model it is about, when that is known.
    pub model: Option<Box<str>>,
    /// The cluster that serves it.
    pub upstream: Box<str>,
    /// What that wants to see in place of the token, if anything.
    pub credential: Option<Credential>,
}
