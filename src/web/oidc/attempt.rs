//! An attempt to sign in, which the browser keeps in a cookie that it can neither read nor change.

use base64::{Engine as _, prelude::BASE64_URL_SAFE_NO_PAD};
use subtle::ConstantTimeEq as _;
use zeroize::Zeroizing;

use crate::{cookie_seal, keyring::KeyRing};

/// The longest time that a sign-in may take at the provider, in seconds.
pub(super) const LONGEST: u64 = 600;
/// How far the clocks of two replicas of self-service may differ, in seconds.
const LEEWAY: u64 = 60;
/// 256 bits each: state, nonce, and the verifier of PKCE.
const SECRET: usize = 32;
const LEN: usize = 3 * SECRET + size_of::<u64>();

/// What binds the provider's answer to the browser that asked for it.
pub(super) struct Attempt(Zeroizing<[u8; LEN]>);

impl Attempt {
    /// Returns `None` if the operating system has no random numbers.
    pub(super) fn begin(now: u64) -> Option<Self> {
        let mut bytes = Zeroizing::new([0; LEN]);
        getrandom::fill(&mut bytes[..3 * SECRET]).ok()?;
        bytes[3 * SECRET..].copy_from_slice(&now.to_be_bytes());
        Some(Self(bytes))
    }

    pub(super) fn seal(&self, ring: &KeyRing, context: &[u8]) -> Option<String> {
        cookie_seal::seal(ring, context, self.0.as_ref()).ok().map(encode)
    }

    /// Opens a cookie. Returns `None` unless it was sealed here, for this provider, lately.
    pub(super) fn open(ring: &KeyRing, context: &[u8], cookie: &str, now: u64) -> Option<Self> {
        let sealed = BASE64_URL_SAFE_NO_PAD.decode(cookie).ok()?;
        let opened = cookie_seal::open(ring, context, &sealed)?;
        let attempt = Self(Zeroizing::new(opened.as_slice().try_into().ok()?));
        let begun = u64::from_be_bytes(attempt.0[3 * SECRET..].try_into().ok()?);
        (begun <= now + LEEWAY && now < begun + LONGEST).then_some(attempt)
    }

    pub(super) fn state(&self) -> String {
        encode(&self.0[..SECRET])
    }

    pub(super) fn nonce(&self) -> String {
        encode(&self.0[SECRET..2 * SECRET])
    }

    pub(super) fn verifier(&self) -> String {
        encode(&self.0[2 * SECRET..3 * SECRET])
    }

    /// Whether an answer is to this attempt.
    pub(super) fn has_state(&self, state: &str) -> bool {
        self.state().as_bytes().ct_eq(state.as_bytes()).into()
    }
}

pub(super) fn encode(bytes: impl AsRef<[u8]>) -> String {
    BASE64_URL_SAFE_NO_PAD.encode(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_attempt_lasts_ten_minutes() {
        let ring = KeyRing::parse("a:AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=").unwrap();
        let attempt = Attempt::begin(1_000).unwrap();
        let cookie = attempt.seal(&ring, b"here").unwrap();
        let open = |now| Attempt::open(&ring, b"here", &cookie, now);
        for now in [940, 1_000, 1_599] {
            assert!(open(now).unwrap().has_state(&attempt.state()), "{now}");
        }
        for now in [0, 939, 1_600, u64::MAX / 2] {
            assert!(open(now).is_none(), "{now}");
        }
        assert!(Attempt::open(&ring, b"there", &cookie, 1_000).is_none());
        let secrets = [attempt.state(), attempt.nonce(), attempt.verifier()];
        assert!(secrets.iter().all(|secret| secret.len() == 43 && !cookie.contains(secret)));
        assert!(secrets[0] != secrets[1] && secrets[1] != secrets[2]);
        for other in ["", &attempt.nonce(), &attempt.state()[1..]] {
            assert!(!attempt.has_state(other), "{other}");
        }
    }
}
