//! The share of a domain's tokens for which decisions are enforced.

use std::{fmt, str::FromStr};

use sha2::{Digest as _, Sha256};

use crate::{domain_ref::DomainId, percent, token::TokenId};

/// A share of a domain's tokens, as a whole percentage from 0 to 100.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, serde::Serialize, serde::Deserialize,
)]
#[serde(transparent)]
pub struct Share(u8);

/// The error for a text that is not a share.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("expected a whole percentage from `0%` to `100%`")]
pub struct ShareError;

impl Share {
    /// The share that includes every token.
    pub const ALL: Self = Self(100);

    /// Returns the share of so many percent; `None` above 100.
    pub fn new(percent: u8) -> Option<Self> {
        (percent <= Self::ALL.0).then_some(Self(percent))
    }

    /// Returns the percentage, from 0 to 100.
    pub fn percent(self) -> u8 {
        self.0
    }

    /// Returns whether the share includes a token. Each token has a fixed place in each domain, so a
    /// larger share includes all tokens of a smaller one, and all replicas agree. The places differ
    /// between domains, so that the same tokens do not come first everywhere.
    pub fn includes(self, domain: DomainId, token: TokenId) -> bool {
        let hash = Sha256::new_with_prefix(b"patgate ramp\0")
            .chain_update(domain.0)
            .chain_update(token.0)
            .finalize();
        let place = hash.iter().take(8).fold(0u64, |place, byte| place << 8 | u64::from(*byte));
        // The share of all 2^64 places, compared without a division.
        u128::from(place) * 100 < u128::from(self.0) << 64
    }
}

impl FromStr for Share {
    type Err = ShareError;

    fn from_str(text: &str) -> Result<Self, ShareError> {
        percent::number(text).and_then(Self::new).ok_or(ShareError)
    }
}

impl fmt::Display for Share {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}%", self.0)
    }
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;

    const TOKENS: u128 = 10_000;

    fn token(number: u128) -> TokenId {
        TokenId(Uuid::from_u128(number))
    }

    #[test]
    fn a_larger_share_has_all_that_a_smaller_one_has() {
        let domain = DomainId(Uuid::from_u128(1));
        for number in 0..TOKENS / 10 {
            let shares = (0..=100).map(|percent| Share(percent).includes(domain, token(number)));
            let shares: Vec<bool> = shares.collect();
            assert!(shares.is_sorted() && !shares[0] && shares[100], "{number}");
        }
    }

    /// Within five standard deviations of a fair draw.
    #[test]
    fn a_share_is_what_it_says_and_differs_from_domain_to_domain() {
        let count = |what: &dyn Fn(TokenId) -> bool| {
            (0..TOKENS).filter(|number| what(token(*number))).count() as f64
        };
        let fair = |counted: f64, p: f64| {
            let expected = TOKENS as f64 * p;
            (counted - expected).abs() <= 5.0 * (expected * (1.0 - p)).sqrt()
        };
        let domains = [1, 2].map(|number| DomainId(Uuid::from_u128(number)));
        for percent in [1, 30, 50, 99] {
            let share = Share(percent);
            let p = f64::from(percent) / 100.0;
            for domain in domains {
                let counted = count(&|token| share.includes(domain, token));
                assert!(fair(counted, p), "{percent}: {counted}");
            }
            let both = count(&|token| domains.iter().all(|domain| share.includes(*domain, token)));
            assert!(fair(both, p * p), "{percent}: {both} in both");
        }
    }

    #[test]
    fn reads_percentages_and_nothing_else() {
        for (text, percent) in [("0%", 0), ("30%", 30), ("100%", 100)] {
            assert_eq!(text.parse(), Ok(Share(percent)), "{text}");
        }
        assert_eq!(Share(30).to_string(), "30%");
        for text in ["", "%", "30", "101%", "-1%", "+1%", "1.5%", "30%%", " 30%", "thirty"] {
            assert_eq!(text.parse::<Share>(), Err(ShareError), "{text}");
        }
    }
}
