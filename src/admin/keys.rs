//! The key ring, and what in the database depends on its keys.

use super::{Admin, Error, KeyUse};
use crate::{
    admin::store::new_id,
    keyring::{KeyId, KeyRing},
    token::{MintedToken, TokenId, Tokens},
};

/// The key ring, and the tokens that it signs.
#[derive(Clone, Debug)]
pub(super) struct Keys {
    pub(super) ring: KeyRing,
    pub(super) tokens: Tokens,
}

impl Keys {
    pub(super) fn mint(&self) -> Result<MintedToken, Error> {
        Ok(self.tokens.mint(TokenId(new_id()))?)
    }
}

impl Admin {
    /// Counts, for each key, the live tokens and credentials that depend on it. Keys without any are
    /// left out.
    ///
    /// # Errors
    ///
    /// If the database does not answer.
    pub async fn key_uses(&self) -> Result<Vec<KeyUse>, Error> {
        Ok(self.store.key_uses().await?)
    }

    /// Checks that nothing depends on a key, so that it can be dropped from the ring.
    ///
    /// # Errors
    ///
    /// If a live token or a credential of a backend depends on it.
    pub async fn ensure_unused(&self, key: &KeyId) -> Result<(), Error> {
        let uses = self.key_uses().await?;
        let uses = uses.iter().find(|uses| uses.key_id == key.as_str());
        uses.and_then(|uses| Error::of_use(key, uses)).map_or(Ok(()), Err)
    }
}
