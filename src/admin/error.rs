//! Why a call of the service fails.

use crate::{
    admin::store::{Error as StoreError, KeyUse},
    credential::SealError,
    keyring::KeyId,
};

/// A query that got no answer, or a change that was not made.
#[derive(Debug, thiserror::Error)]
#[expect(missing_docs, reason = "the messages say it")]
pub enum Error {
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error("this needs the key ring, and the service was started without one")]
    NoKeyRing,
    #[error(
        "the text holds no token that a key of this key ring signed: there is none, or its prefix is \
         not in token.prefixes, or it is broken over lines or encoded, or the replicas have another \
         key ring. If you know the token's id, `patgate token revoke TOKEN_ID` needs no key"
    )]
    NotSigned,
    #[error("no token was revoked")]
    NoneFound,
    #[error("the operating system has no random numbers: {0}")]
    NoRandomNumbers(#[from] getrandom::Error),
    #[error(transparent)]
    Seal(#[from] SealError),
    #[error(
        "the credential of backend `{backend}` cannot be opened with this key ring; it needs \
         key `{key_id}`: add that key, or set the credential again"
    )]
    CredentialNotOpened { backend: String, key_id: String },
    #[error(
        "replicas serve from this database ({}), or did when it was copied. They would obey no \
         further change: they would answer from cached data for max_staleness, and then with 503, \
         until they are restarted. Stop them and wait for twice their max_staleness",
        replicas.join(", ")
    )]
    ReplicasServe { replicas: Vec<String> },
    #[error(
        "key `{key}` has signed {count} live tokens, which would stop working; rotate or revoke \
         them first, or wait until they have expired"
    )]
    KeySignedTokens { key: KeyId, count: i64 },
    #[error(
        "key `{key}` seals the credentials of {count} backends, which could no longer be opened; \
         `patgate backend credential reseal` seals them with the current key"
    )]
    KeySealsCredentials { key: KeyId, count: i64 },
}

impl Error {
    /// Why a key must not be dropped; `None` if nothing depends on it.
    pub(super) fn of_use(key: &KeyId, uses: &KeyUse) -> Option<Self> {
        let key = key.clone();
        match *uses {
            KeyUse { live_tokens: count @ 1.., .. } => Some(Self::KeySignedTokens { key, count }),
            KeyUse { credentials: count @ 1.., .. } => {
                Some(Self::KeySealsCredentials { key, count })
            }
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_kept_for_tokens_first_and_for_credentials() {
        let why = |live_tokens, credentials| {
            let uses = KeyUse { key_id: "k1".to_owned(), live_tokens, credentials };
            Error::of_use(&"k1".parse().unwrap(), &uses).map(|error| error.to_string())
        };
        assert_eq!(why(0, 0), None);
        assert!(why(2, 1).unwrap().starts_with("key `k1` has signed 2 live tokens"));
        assert!(why(0, 1).unwrap().starts_with("key `k1` seals the credentials of 1 backends"));
    }
}
