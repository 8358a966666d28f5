//! The administrator's side of the database.

use crate::{domain::DomainRef, token::TokenId};

/// What a change has outdated in the caches.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Touched {
    /// Tokens whose principals were read before it.
    pub tokens: Vec<TokenId>,
    /// Domains, by every reference that leads or led to them.
    pub domains: Vec<DomainRef>,
}
