//! The first stage of a decision: is the token good at this moment?

use crate::{
    clock::Moment,
    principal::Principal,
    refusal::{Denial, Refusal},
    token::VerifiedToken,
};

/// By how much Postgres's clock may be behind the clock by which a token was issued: that of another
/// server, before a failover. In microseconds.
const ISSUE_LEEWAY: i64 = 60_000_000;

/// Checks that a token is good at `now`, and returns the principal that it stands for. `principal`
/// is what the store holds under the token's id.
///
/// The digest is compared first: only a client that proved possession of a token learns that it has
/// expired, was revoked, or belongs to a disabled owner.
///
/// # Errors
///
/// Returns `InvalidToken`, `TokenRevoked`, `TokenNotYetIssued`, `TokenExpired` or `OwnerDisabled`.
/// All but the first name the token and its owner.
#[inline(never)] // A stage of which `make bench-check` counts the instructions.
pub(crate) fn authenticate<'p>(
    token: &VerifiedToken,
    principal: Option<&'p Principal>,
    now: Moment,
) -> Result<&'p Principal, Denial> {
    let principal = principal
        .filter(|principal| principal.token == token.id() && principal.digest == *token.digest())
        .ok_or(Refusal::InvalidToken)?;
    let refusal = if principal.revoked {
        Refusal::TokenRevoked
    } else if principal.issued_at.0 > now.0.saturating_add(ISSUE_LEEWAY) {
        // `now` is at least what Postgres's clock shows, so no delay explains it.
        Refusal::TokenNotYetIssued
    } else if now >= principal.expires_at {
        Refusal::TokenExpired
    } else if !principal.owner_enabled {
        Refusal::OwnerDisabled
    } else {
        return Ok(principal);
    };
    Err(Denial { subject: Some((principal.token, principal.owner)), ..refusal.into() })
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;
    use crate::{
        keyring::KeyRing,
        principal::UserId,
        token::{Prefixes, TokenDigest, TokenId, Tokens},
    };

    const ID: TokenId = TokenId(Uuid::from_u128(7));

    fn token() -> VerifiedToken {
        let ring = KeyRing::parse("a:AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=").unwrap();
        let tokens = Tokens::new(Prefixes::default(), ring);
        tokens.verify(tokens.mint(ID).unwrap().plain.expose()).unwrap()
    }

    fn check(change: impl FnOnce(&mut Principal), now: i64, expected: Option<Refusal>) {
        let token = token();
        let owner = UserId(Uuid::from_u128(8));
        let life = Moment(0)..Moment(1000);
        let mut principal =
            Principal::new(ID, token.digest().clone(), life, false, owner, true, Vec::new());
        change(&mut principal);
        let outcome = authenticate(&token, Some(&principal), Moment(now));
        assert_eq!(outcome.err().map(|denial| denial.refusal), expected);
    }

    #[test]
    fn a_token_is_good_until_its_last_microsecond() {
        check(|_| {}, 999, None);
        check(|_| {}, 1000, Some(Refusal::TokenExpired));
        check(|_| {}, 1001, Some(Refusal::TokenExpired));
    }

    #[test]
    fn the_secret_comes_first() {
        let other = |p: &mut Principal| p.digest = TokenDigest::from_bytes([0; 32]);
        check(other, 999, Some(Refusal::InvalidToken));
        check(
            |p| {
                other(p);
                p.revoked = true
            },
            2000,
            Some(Refusal::InvalidToken),
        );
        check(|p| p.token = TokenId(Uuid::from_u128(9)), 999, Some(Refusal::InvalidToken));
        assert_eq!(authenticate(&token(), None, Moment(0)), Err(Refusal::InvalidToken.into()));
    }

    #[test]
    fn a_token_of_the_future_is_refused() {
        let issued = |at: i64| move |p: &mut Principal| p.issued_at = Moment(at);
        let refused = Some(Refusal::TokenNotYetIssued);
        check(issued(999), 999, None);
        check(issued(999 + ISSUE_LEEWAY), 999, None);
        check(issued(1000 + ISSUE_LEEWAY), 999, refused);
        check(issued(i64::MAX), 999, refused);
        check(issued(i64::MIN), 999, None);
    }

    #[test]
    fn one_reason_at_a_time() {
        check(|p| p.revoked = true, 2000, Some(Refusal::TokenRevoked));
        check(|p| p.owner_enabled = false, 2000, Some(Refusal::TokenExpired));
        check(|p| p.owner_enabled = false, 999, Some(Refusal::OwnerDisabled));
    }
}
