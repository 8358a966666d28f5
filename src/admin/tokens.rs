//! Tokens and their scopes.

use std::collections::HashSet;

use uuid::Uuid;

use super::{
    Admin, CreatedToken, Error, LeakedTokens, NewScope, NewToken, Outcome, RevokedToken, Rotation,
    Scope, Token, TokenDetails, TokenFilter, TokenGroup, Warning,
};
use crate::{
    admin::store::Committed,
    token::{FoundTokens, TokenId, VerifiedToken},
};

impl Admin {
    /// Creates a token. The outcome holds its plaintext, which cannot be read again.
    ///
    /// # Errors
    ///
    /// If the owner or a domain does not exist, if the owner has a token of this name, or if the
    /// expiry is not in the future.
    pub async fn create_token(&self, new: &NewToken) -> Result<Outcome<CreatedToken>, Error> {
        let minted = self.keys()?.mint()?;
        let created = self.store.create_token(minted, new).await?;
        Ok(self.complete_creation(created).await)
    }

    /// Lists tokens, by owner and name, without the canaries of replicas.
    ///
    /// # Errors
    ///
    /// If the filter names a user or domain that does not exist, or a key that has signed no token.
    pub async fn tokens(&self, filter: &TokenFilter) -> Result<Vec<Token>, Error> {
        Ok(self.store.tokens(filter).await?)
    }

    /// Counts the tokens of a group that are neither expired nor revoked.
    ///
    /// # Errors
    ///
    /// If the user or domain does not exist, or the key has signed no token.
    pub async fn count_live_tokens(&self, group: &TokenGroup) -> Result<usize, Error> {
        Ok(self.tokens(&group.live()).await?.len())
    }

    /// Returns a token with its scopes.
    ///
    /// # Errors
    ///
    /// If the token does not exist.
    pub async fn token(&self, id: TokenId) -> Result<TokenDetails, Error> {
        Ok(self.store.token(id).await?)
    }

    /// Adds scopes to a token, and returns all that it has then.
    ///
    /// # Errors
    ///
    /// If the token or a domain does not exist.
    pub async fn add_scopes(
        &self,
        id: TokenId,
        scopes: &[NewScope],
    ) -> Result<Outcome<Vec<Scope>>, Error> {
        Ok(self.complete(self.store.add_scopes(id, scopes).await?).await)
    }

    /// Removes scopes from a token, and returns those that are left.
    ///
    /// # Errors
    ///
    /// If the token or a domain does not exist, or if the token does not have one of the scopes.
    pub async fn remove_scopes(
        &self,
        id: TokenId,
        scopes: &[NewScope],
    ) -> Result<Outcome<Vec<Scope>>, Error> {
        Ok(self.complete(self.store.remove_scopes(id, scopes).await?).await)
    }

    /// Revokes a token for good. A token that is revoked already keeps its time.
    ///
    /// # Errors
    ///
    /// If the token does not exist.
    pub async fn revoke_token(&self, id: TokenId) -> Result<Outcome<RevokedToken>, Error> {
        Ok(self.complete(self.store.revoke_token(id).await?).await)
    }

    /// Revokes all tokens whose plaintext is in a text, such as a line of a log. Nothing but the text
    /// is needed, so a person who finds a leaked token can stop it.
    ///
    /// # Errors
    ///
    /// If the text holds no token, whole or cut short, that a key of the ring has signed.
    pub async fn revoke_tokens_in(&self, text: &[u8]) -> Result<Outcome<LeakedTokens>, Error> {
        let found = self.keys()?.tokens.search(text);
        if found.whole.is_empty() && found.cut_short.is_empty() {
            return Err(Error::NotSigned);
        }
        let revoked = self.store.revoke_verified_tokens(&found.whole).await?;
        let outcome = self.complete(revoked).await;
        Ok(outcome.map(|revoked| {
            let ids: HashSet<Uuid> = revoked.iter().map(|token| token.id).collect();
            let signed = found.whole.iter().map(VerifiedToken::id);
            let absent = signed.filter(|id| !ids.contains(&id.0)).collect();
            let FoundTokens { unsigned, cut_short, .. } = found;
            LeakedTokens { revoked, absent, unsigned, cut_short }
        }))
    }

    /// Warns if the tokens of a group are those of the key that signs new ones. Says nothing without a
    /// key ring.
    pub fn warning_about(&self, group: &TokenGroup) -> Option<Warning> {
        let key = group.key()?;
        let ring = &self.keys.as_ref()?.ring;
        (ring.current().id == *key).then(|| Warning::SignsNewTokens { key: key.clone() })
    }

    /// Revokes all live tokens of a user, of a domain or of a key for good. The key need not be in the
    /// ring.
    ///
    /// # Errors
    ///
    /// If the user or domain does not exist, or the key has signed no token.
    pub async fn revoke_tokens(
        &self,
        group: &TokenGroup,
    ) -> Result<Outcome<Vec<RevokedToken>>, Error> {
        let mut outcome = self.complete(self.store.revoke_tokens(group).await?).await;
        outcome.warnings.extend(self.warning_about(group));
        Ok(outcome)
    }

    /// Replaces a live token by a new one with the same owner, name, description and scopes. The
    /// outcome holds the plaintext of the new one, which cannot be read again.
    ///
    /// # Errors
    ///
    /// If the token does not exist, or is expired or revoked.
    pub async fn rotate_token(
        &self,
        id: TokenId,
        rotation: &Rotation,
    ) -> Result<Outcome<CreatedToken>, Error> {
        let minted = self.keys()?.mint()?;
        let rotated = self.store.rotate_token(id, minted, rotation).await?;
        Ok(self.complete_creation(rotated).await)
    }

    /// Deletes a token with its scopes. Its entries in the audit log stay.
    ///
    /// # Errors
    ///
    /// If the token does not exist.
    pub async fn delete_token(&self, id: TokenId) -> Result<Outcome<()>, Error> {
        Ok(self.complete(self.store.delete_token(id).await?).await)
    }

    async fn complete_creation(&self, created: Committed<CreatedToken>) -> Outcome<CreatedToken> {
        let mut outcome = self.complete(created).await;
        outcome.warnings.extend(warnings(&outcome.value.token));
        outcome
    }
}

/// Warns of scopes that grant nothing, and of a token that has none.
fn warnings(created: &TokenDetails) -> Vec<Warning> {
    if created.scopes.is_empty() {
        return vec![Warning::NoScopes];
    }
    let without_effect = created.scopes.iter().filter(|scope| !scope.permitted);
    without_effect
        .map(|scope| Warning::ScopeNotPermitted {
            scope: scope.clone(),
            owner: created.token.owner.clone(),
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;
    use crate::admin::store::TokenStatus;

    fn created(permitted: &[bool]) -> TokenDetails {
        let text = || "t".to_owned();
        let token = Token {
            id: Uuid::nil(),
            name: text(),
            description: text(),
            owner: "ann@example.com".to_owned(),
            status: TokenStatus::Live,
            key_id: text(),
            issued_at: text(),
            expires_at: text(),
            revoked_at: None,
            last_used_at: None,
        };
        let scope = |(index, permitted): (usize, &bool)| Scope {
            domain: format!("d{index}"),
            entity_type: text(),
            entity_id: text(),
            operation: text(),
            permitted: *permitted,
        };
        TokenDetails { token, scopes: permitted.iter().enumerate().map(scope).collect() }
    }

    #[test]
    fn a_token_that_cannot_do_what_it_should_comes_with_a_warning() {
        assert!(matches!(*warnings(&created(&[])), [Warning::NoScopes]));
        assert!(warnings(&created(&[true, true])).is_empty());
        let some = warnings(&created(&[true, false]));
        let [Warning::ScopeNotPermitted { scope, owner }] = &*some else { panic!("{some:?}") };
        assert_eq!((&*scope.domain, &**owner), ("d1", "ann@example.com"));
    }
}
