//! Secrets that prove a session or an invitation: 256 random bits, of which the database never sees
//! more than a digest.

use std::fmt;

use base64::{Engine as _, prelude::BASE64_URL_SAFE_NO_PAD};
use sha2::{Digest as _, Sha256};
use zeroize::Zeroizing;

/// The bytes of a secret.
const LEN: usize = 32;

macro_rules! secret {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone)]
        pub struct $name(Zeroizing<[u8; LEN]>);

        impl $name {
            /// Makes a new one.
            ///
            /// # Errors
            ///
            /// If the operating system has no random numbers.
            pub fn random() -> Result<Self, getrandom::Error> {
                let mut bytes = Zeroizing::new([0; LEN]);
                getrandom::fill(bytes.as_mut())?;
                Ok(Self(bytes))
            }

            /// Reads the text of one; `None` if it cannot be one.
            pub fn parse(text: &str) -> Option<Self> {
                let mut bytes = Zeroizing::new([0; LEN]);
                let read = BASE64_URL_SAFE_NO_PAD.decode_slice(text, bytes.as_mut()).ok()?;
                (read == LEN).then_some(Self(bytes))
            }

            /// The text to give to the client.
            pub fn expose(&self) -> Zeroizing<String> {
                Zeroizing::new(BASE64_URL_SAFE_NO_PAD.encode(self.0.as_ref()))
            }

            /// What the database is shown. It stores a digest of this.
            pub(in crate::admin) fn proof(&self) -> Vec<u8> {
                Sha256::digest(self.0.as_ref()).to_vec()
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(concat!(stringify!($name), "(..)"))
            }
        }
    };
}

secret! {
    /// The secret of a session, for a cookie that only the server reads.
    SessionSecret
}

secret! {
    /// The secret in a link with which a user sets the password.
    InvitationSecret
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_has_one_spelling_and_is_not_shown() {
        let secret = SessionSecret::random().unwrap();
        let text = secret.expose();
        assert_eq!(text.len(), 43);
        assert_eq!(SessionSecret::parse(&text).unwrap().proof(), secret.proof());
        assert_ne!(SessionSecret::random().unwrap().proof(), secret.proof());
        assert_eq!(format!("{secret:?}"), "SessionSecret(..)");
        // The proof is no secret of a cookie, and does not lead back to one.
        assert_ne!(secret.proof(), secret.0.to_vec());
        for other in ["", &text[1..], &format!("{}=", *text), &format!("{}A", *text), "ä"] {
            assert!(SessionSecret::parse(other).is_none(), "{other}");
        }
        // The last character holds four bits; another text for the same bytes is refused.
        let last = text.chars().last().unwrap();
        for other in ('A'..='Z').chain('a'..='z').filter(|other| *other != last) {
            let twin = format!("{}{other}", &text[..42]);
            let same = SessionSecret::parse(&twin).is_some_and(|t| t.proof() == secret.proof());
            assert!(!same, "{other}");
        }
    }
}
