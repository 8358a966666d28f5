//! Personal Access Tokens: `pat_<22: token id><43: secret><7: tag>`, with `_` after the id.
//!
//! All three parts are base62. With `D = HMAC-SHA-256(token key, everything before the tag)`, the
//! tag is the first 40 bits of D, and SHA-256(D) is what a store holds. So a mistyped or forged
//! token is refused without a lookup, and a stolen store yields no working token.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
};

use hmac::Mac;
use memchr::memchr_iter;
use secrecy::{ExposeSecret, SecretString};
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;
use uuid::Uuid;
use zeroize::Zeroizing;

use crate::{
    base62,
    keyring::{DerivedKeys, HmacSha256, KeyId, KeySerial, LiveRing},
};

const ID_LEN: usize = 22;
const SECRET_LEN: usize = 43;
const TAG_LEN: usize = 7;
const TAG_BITS: usize = 40;
/// Length of everything after the prefix, including its underscore.
const REST_LEN: usize = 1 + ID_LEN + 1 + SECRET_LEN + TAG_LEN;
const MAX_PREFIX_LEN: usize = 16;
const MAX_LEN: usize = MAX_PREFIX_LEN + REST_LEN;

/// 2^256 - 1, the highest secret; a higher text would be a second spelling.
const MAX_SECRET: &[u8; SECRET_LEN] = b"yhjskwdA6OZ1AL1YmHWZWm8LLG7HjnuCA2j5rOw8Xp1";

/// Identifies a token. Public: logs and headers show it.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, serde::Serialize, serde::Deserialize,
)]
#[serde(transparent)]
pub struct TokenId(pub Uuid);

impl fmt::Display for TokenId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// SHA-256(D): the stored form of a token. Compared in constant time.
#[derive(Clone, serde::Serialize, serde::Deserialize)]
#[serde(transparent)]
pub struct TokenDigest([u8; 32]);

impl TokenDigest {
    /// Makes a digest from the bytes that a store holds.
    pub fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    /// Returns the bytes that a store holds.
    pub fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }

    fn of(signature: &Signature) -> Self {
        Self(Sha256::digest(signature.as_ref()).into())
    }
}

impl PartialEq for TokenDigest {
    fn eq(&self, other: &Self) -> bool {
        self.0.ct_eq(&other.0).into()
    }
}

impl fmt::Debug for TokenDigest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("TokenDigest(..)")
    }
}

/// The prefixes that tokens may have; new tokens get the first one.
#[derive(Clone, Debug)]
pub struct Prefixes(Vec<String>);

/// A text that cannot be the prefix of a token.
#[derive(Debug, thiserror::Error)]
#[error(
    "a token prefix is 1 to {MAX_PREFIX_LEN} characters of a-z, 0-9 and _, begins with a letter and does not end with _"
)]
pub struct PrefixError;

impl Prefixes {
    /// Parses prefixes: at least one, each `[a-z][a-z0-9_]{0,15}` and not ending with `_`.
    ///
    /// # Errors
    ///
    /// Returns an error if there is none, or one of them does not have that form.
    pub fn new<'a>(prefixes: impl IntoIterator<Item = &'a str>) -> Result<Self, PrefixError> {
        let prefixes: Vec<_> = prefixes.into_iter().map(str::to_owned).collect();
        let well_formed = |prefix: &String| {
            prefix.len() <= MAX_PREFIX_LEN
                && prefix.starts_with(|c: char| c.is_ascii_lowercase())
                && !prefix.ends_with('_')
                && prefix.bytes().all(|b| matches!(b, b'a'..=b'z' | b'0'..=b'9' | b'_'))
        };
        if prefixes.is_empty() || !prefixes.iter().all(well_formed) {
            return Err(PrefixError);
        }
        Ok(Self(prefixes))
    }
}

impl Default for Prefixes {
    fn default() -> Self {
        Self(vec!["pat".to_owned()])
    }
}

/// A token in plain text: shown once, when it is created, and never stored.
pub struct PlainToken(SecretString);

impl PlainToken {
    /// Returns the text to give to the owner.
    pub fn expose(&self) -> &str {
        self.0.expose_secret()
    }
}

impl fmt::Debug for PlainToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("PlainToken(..)")
    }
}

/// A new token, and its stored form.
#[derive(Debug)]
pub struct MintedToken {
    /// The plaintext, only for the owner.
    pub plain: PlainToken,
    /// The id of the new token.
    pub id: TokenId,
    /// The digest that a store holds.
    pub digest: TokenDigest,
    /// The id of the key of the ring that signed it.
    pub key_id: KeyId,
}

/// A token whose tag verified: the client holds a text that a key of this ring signed. Only the
/// stores know whether the token is live. Only [`Tokens::verify`] makes one for a request.
#[derive(Clone, Debug)]
pub struct VerifiedToken {
    id: TokenId,
    digest: TokenDigest,
    /// The key that signed it; `None` if its text is not known.
    key: Option<KeySerial>,
}

impl VerifiedToken {
    /// Returns the id in the token.
    pub fn id(&self) -> TokenId {
        self.id
    }

    /// Returns the digest to compare with the stored one.
    pub fn digest(&self) -> &TokenDigest {
        &self.digest
    }

    /// Makes the result of verifying the genuine token of `principal`, whose text is not known.
    #[must_use]
    pub(crate) fn presumed(id: TokenId, digest: TokenDigest) -> Self {
        Self { id, digest, key: None }
    }
}

/// Creates and verifies tokens, with the keys of the ring that is in force.
#[derive(Clone, Debug)]
pub struct Tokens {
    prefixes: Prefixes,
    ring: LiveRing,
}

impl Tokens {
    /// Creates tokens with the first prefix and the first key; verifies with all.
    pub fn new(prefixes: Prefixes, ring: impl Into<LiveRing>) -> Self {
        Self { prefixes, ring: ring.into() }
    }

    /// Returns the ring whose keys sign and verify.
    pub fn ring(&self) -> &LiveRing {
        &self.ring
    }

    /// Returns what the text of the token `id` begins with, if its prefix is that of new tokens. It is
    /// not secret: it holds the id and nothing else.
    pub fn beginning(&self, id: TokenId) -> String {
        let mut text = [0; ID_LEN];
        base62::encode(id.0.into_bytes(), &mut text);
        format!("{}_{}_", self.prefixes.0[0], String::from_utf8_lossy(&text))
    }

    /// Makes a token for `id` with a fresh secret.
    ///
    /// # Errors
    ///
    /// Returns an error if the operating system has no random numbers.
    pub fn mint(&self, id: TokenId) -> Result<MintedToken, getrandom::Error> {
        let mut secret = Zeroizing::new([0; 32]);
        getrandom::fill(secret.as_mut())?;
        Ok(self.assemble(id, &secret))
    }

    fn assemble(&self, id: TokenId, secret: &[u8; 32]) -> MintedToken {
        let ring = self.ring.load();
        let key = ring.current();
        let prefix = &self.prefixes.0[0];
        let mut text = Zeroizing::new([0u8; MAX_LEN]);
        let signed_len = prefix.len() + REST_LEN - TAG_LEN;
        text[..prefix.len()].copy_from_slice(prefix.as_bytes());
        let rest = &mut text[prefix.len()..];
        rest[0] = b'_';
        base62::encode(id.0.into_bytes(), &mut rest[1..=ID_LEN]);
        rest[1 + ID_LEN] = b'_';
        base62::encode(*secret, &mut rest[2 + ID_LEN..][..SECRET_LEN]);
        let signature = sign(key, &text[..signed_len]);
        let tag = tag(&signature);
        text[signed_len..][..TAG_LEN].copy_from_slice(&tag);
        let text = String::from_utf8_lossy(&text[..signed_len + TAG_LEN]).into_owned();
        MintedToken {
            plain: PlainToken(text.into()),
            id,
            digest: TokenDigest::of(&signature),
            key_id: key.id.clone(),
        }
    }

    /// Reads a token and verifies its tag, without any lookup.
    ///
    /// The result does not say why a text was refused: a caller learns only whether the tag
    /// verified.
    pub fn verify(&self, text: &str) -> Option<VerifiedToken> {
        if text.len() > MAX_LEN {
            return None;
        }
        let bytes = text.as_bytes();
        let prefix_len = bytes.len().checked_sub(REST_LEN)?;
        let (prefix, rest) = bytes.split_at(prefix_len);
        if !self.prefixes.0.iter().any(|known| known.as_bytes() == prefix) {
            return None;
        }
        let id = &rest[1..=ID_LEN];
        let secret = &rest[2 + ID_LEN..][..SECRET_LEN];
        if rest[0] != b'_'
            || rest[1 + ID_LEN] != b'_'
            || !base62::is_base62(secret)
            || secret > MAX_SECRET.as_slice()
        {
            return None;
        }
        let id = TokenId(Uuid::from_u128(base62::decode_u128(id)?));
        let (signed, claimed) = bytes.split_at(bytes.len() - TAG_LEN);
        self.ring.load().keys().iter().find_map(|key| {
            let signature = sign(key, signed);
            let matches: bool = tag(&signature).ct_eq(claimed).into();
            matches.then(|| VerifiedToken {
                id,
                digest: TokenDigest::of(&signature),
                key: Some(key.serial()),
            })
        })
    }

    /// Returns whether the key that signed the token is still in the ring. It may have left while the
    /// stores were asked about the token.
    pub fn still_verify(&self, token: &VerifiedToken) -> bool {
        token.key.is_none_or(|key| self.ring.holds(key))
    }

    /// Returns whether `text` contains a token of this ring: a text in the form of a token, or one
    /// that is followed by letters or digits and verifies. A text with many candidates counts as
    /// containing a token, so that no client can make patgate verify more.
    pub fn found_in(&self, text: &str) -> bool {
        let bytes = text.as_bytes();
        let mut verified = 0;
        // Searches for the `_` after the prefix, because a search for a longer text would first
        // have to be prepared.
        memchr_iter(b'_', bytes).any(|at| {
            let (before, rest) = bytes.split_at(at);
            let of = |prefix: &&String| before.ends_with(prefix.as_bytes());
            let Some(prefix) = self.prefixes.0.iter().find(of) else { return false };
            let Some((rest, behind)) = rest.split_at_checked(REST_LEN) else { return false };
            let ends = behind.first().is_none_or(|byte| !byte.is_ascii_alphanumeric());
            if !has_form(rest) || ends {
                return has_form(rest);
            }
            verified += 1;
            verified > MOST_VERIFIED
                || self.verify(&text[at - prefix.len()..at + REST_LEN]).is_some()
        })
    }

    /// Finds the tokens in a text, such as a line of a log, each once, and the beginnings of tokens.
    /// A whole token counts whatever stands before and behind it.
    pub fn search(&self, text: &[u8]) -> FoundTokens {
        let (mut whole, mut unsigned, mut cut_short) =
            (BTreeMap::new(), BTreeSet::new(), BTreeSet::new());
        for at in memchr_iter(b'_', text) {
            let (before, rest) = text.split_at(at);
            let id = rest.get(1..=ID_LEN).filter(|_| rest.get(1 + ID_LEN) == Some(&b'_'));
            let Some(id) = id.and_then(base62::decode_u128) else { continue };
            let id = TokenId(Uuid::from_u128(id));
            let mut ours =
                self.prefixes.0.iter().filter(|prefix| before.ends_with(prefix.as_bytes()));
            let mut begins = false;
            let found = ours.find_map(|prefix| {
                begins = true;
                let candidate = text.get(at - prefix.len()..at + REST_LEN)?;
                self.verify(std::str::from_utf8(candidate).ok()?)
            });
            match found {
                Some(token) => _ = whole.insert((id, *token.digest().as_bytes()), token),
                None if begins && has_length(&rest[2 + ID_LEN..]) => _ = unsigned.insert(id),
                None if begins => _ = cut_short.insert(id),
                None => {}
            }
        }
        for (id, _) in whole.keys() {
            unsigned.remove(id);
            cut_short.remove(id);
        }
        FoundTokens {
            whole: whole.into_values().collect(),
            unsigned: unsigned.into_iter().collect(),
            cut_short: cut_short.into_iter().collect(),
        }
    }

    /// Returns whether `text` begins with one of the prefixes.
    pub fn has_our_prefix(&self, text: &str) -> bool {
        let rest = |prefix: &String| text.strip_prefix(prefix.as_str());
        self.prefixes.0.iter().filter_map(rest).any(|rest| rest.starts_with('_'))
    }

    /// Returns whether `text` is what a token begins with, as [`Tokens::beginning`] returns it, perhaps
    /// with an ellipsis after it. It holds no part of a secret, so it may be known for what it is.
    pub fn is_a_beginning(&self, text: &str) -> bool {
        let text = ["…", "..."].iter().find_map(|dots| text.strip_suffix(dots)).unwrap_or(text);
        let rest = |prefix: &String| text.strip_prefix(prefix.as_str());
        self.prefixes.0.iter().filter_map(rest).any(|rest| match rest.as_bytes() {
            [b'_', id @ .., b'_'] => id.len() == ID_LEN && base62::is_base62(id),
            _ => false,
        })
    }

    /// Returns whether `text` has the form of a token, except for its prefix.
    pub fn is_of_another_prefix(&self, text: &str) -> bool {
        let Some((prefix, rest)) =
            text.len().checked_sub(REST_LEN).and_then(|at| text.split_at_checked(at))
        else {
            return false;
        };
        Prefixes::new([prefix]).is_ok() && has_form(rest.as_bytes()) && !self.has_our_prefix(text)
    }
}

/// What [`Tokens::search`] found in a text, ordered by the ids.
#[derive(Debug)]
pub struct FoundTokens {
    /// The tokens that a key of the ring signed.
    pub whole: Vec<VerifiedToken>,
    /// The ids of texts that are as long as a token, and that no key of the ring signed.
    pub unsigned: Vec<TokenId>,
    /// The ids of texts that begin as a token does and lack its end.
    pub cut_short: Vec<TokenId>,
}

/// Returns whether a text is as long as what follows the id in a token.
fn has_length(secret: &[u8]) -> bool {
    secret.get(..SECRET_LEN + TAG_LEN).is_some_and(base62::is_base62)
}

/// Most texts that [`Tokens::found_in`] verifies.
const MOST_VERIFIED: usize = 8;

/// Returns whether this could be the rest of a token, after its prefix.
fn has_form(rest: &[u8]) -> bool {
    let parts = rest.len() == REST_LEN && [rest[0], rest[1 + ID_LEN]] == *b"__";
    parts && base62::is_base62(&rest[1..=ID_LEN]) && base62::is_base62(&rest[2 + ID_LEN..])
}

/// D, the HMAC of the signed part of a token.
type Signature = Zeroizing<[u8; 32]>;

fn sign(key: &DerivedKeys, signed: &[u8]) -> Signature {
    let mac: HmacSha256 = key.tokens.clone();
    Zeroizing::new(mac.chain_update(signed).finalize().into_bytes().into())
}

fn tag(signature: &Signature) -> [u8; TAG_LEN] {
    let mut first = [0; TAG_BITS / 8];
    first.copy_from_slice(&signature[..TAG_BITS / 8]);
    let mut text = [0; TAG_LEN];
    base62::encode(first, &mut text);
    text
}

#[cfg(test)]
mod tests;
