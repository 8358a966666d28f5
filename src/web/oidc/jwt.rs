//! Verifies what a provider has signed: ID tokens (OpenID Connect Core 1.0, 3.1.3.7), and access
//! tokens that are JWTs (RFC 9068), by the advice of RFC 8725.
//!
//! No library does this with ring alone: those that verify bring the `rsa` crate, OpenSSL or AWS-LC.

use base64::{Engine as _, prelude::BASE64_URL_SAFE_NO_PAD};
use serde::{Deserialize, de::DeserializeOwned};
use serde_json::Value;
use subtle::ConstantTimeEq as _;

use super::keys::{Algorithm, KeySet};

/// Longer than any provider's tokens, which must fit into a header.
pub(super) const LONGEST: usize = 16 * 1024;
/// How far the clocks of provider and patgate may differ, in seconds.
const LEEWAY: f64 = 60.0;
/// The longest subject, by OpenID Connect Core 1.0, section 2.
const LONGEST_SUBJECT: usize = 255;

/// Why a token is refused. It shows nothing of the token.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(in crate::web) enum Refused {
    #[error("it is no signed JWT")]
    Malformed,
    #[error("it is a JWT of another kind")]
    OtherKind,
    #[error("its algorithm is not one of RS256, PS256, ES256, ES384 and EdDSA")]
    Algorithm,
    #[error("it has an extension that must be understood, and is not")]
    Critical,
    /// The keys may have changed.
    #[error("no key of the provider has its `kid`")]
    UnknownKey,
    #[error("its signature is wrong")]
    Signature,
    #[error("another provider has issued it")]
    Issuer,
    #[error("it is meant for another client")]
    Audience,
    #[error("it has expired")]
    Expired,
    #[error("it is not valid yet")]
    NotYet,
    #[error("it belongs to another sign-in")]
    Nonce,
    #[error("it is bound to a key of its holder, and no proof of that is read here")]
    Bound,
    #[error("its subject is empty or too long")]
    Subject,
}

/// What a token is for, which decides whom it must name.
#[derive(Clone, Copy, Debug)]
pub(super) enum Purpose<'a> {
    /// To sign a user in, in the answer to one request.
    SignIn { client: &'a str, nonce: &'a str },
    /// To call the API.
    Api { audience: &'a str },
}

/// What a genuine token says.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Verified {
    pub(super) subject: String,
    pub(super) verified_email: Option<String>,
}

#[derive(Deserialize)]
struct Header {
    alg: String,
    kid: Option<String>,
    typ: Option<String>,
    crit: Option<Value>,
}

/// The claims that count. A claim that occurs twice is an error.
#[derive(Deserialize)]
struct Claims {
    iss: String,
    sub: String,
    aud: Audience,
    azp: Option<String>,
    exp: f64,
    nbf: Option<f64>,
    iat: f64,
    nonce: Option<String>,
    cnf: Option<Value>,
    // Of any type, because no sign-in fails for them.
    email: Option<Value>,
    email_verified: Option<Value>,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Audience {
    One(String),
    Several(Vec<String>),
}

impl Audience {
    fn names(&self) -> &[String] {
        match self {
            Self::One(name) => std::slice::from_ref(name),
            Self::Several(names) => names,
        }
    }
}

/// Verifies a token of `issuer` at `now`, in seconds since 1970. Nothing of its claims is read before
/// its signature was verified.
pub(super) fn verify(
    token: &str,
    keys: &KeySet,
    issuer: &str,
    purpose: Purpose<'_>,
    now: u64,
) -> Result<Verified, Refused> {
    if token.len() > LONGEST {
        return Err(Refused::Malformed);
    }
    let (message, signature) = token.rsplit_once('.').ok_or(Refused::Malformed)?;
    let (header, claims) = message.split_once('.').ok_or(Refused::Malformed)?;
    // An encrypted token has five parts.
    if claims.contains('.') {
        return Err(Refused::Malformed);
    }
    let header: Header = part(header)?;
    if header.crit.is_some() {
        return Err(Refused::Critical);
    }
    let kind = header.typ.as_deref().unwrap_or("JWT").to_ascii_lowercase();
    let kind = kind.strip_prefix("application/").unwrap_or(&kind);
    // Each kind has a name of its own, so that an ID token opens no API whatever its audience is.
    let expected = match purpose {
        Purpose::SignIn { .. } => "jwt",
        Purpose::Api { .. } => "at+jwt",
    };
    if kind != expected {
        return Err(Refused::OtherKind);
    }
    let algorithm = Algorithm::named(&header.alg).ok_or(Refused::Algorithm)?;
    let signature = BASE64_URL_SAFE_NO_PAD.decode(signature).map_err(|_| Refused::Malformed)?;
    let id = header.kid.as_deref();
    if id.is_some_and(|id| !keys.has(id)) {
        return Err(Refused::UnknownKey);
    }
    if !keys.verify(id, algorithm, message.as_bytes(), &signature) {
        return Err(Refused::Signature);
    }
    part::<Claims>(claims)?.judge(issuer, purpose, now)
}

fn part<T: DeserializeOwned>(text: &str) -> Result<T, Refused> {
    let bytes = BASE64_URL_SAFE_NO_PAD.decode(text).map_err(|_| Refused::Malformed)?;
    serde_json::from_slice(&bytes).map_err(|_| Refused::Malformed)
}

impl Claims {
    fn judge(self, issuer: &str, purpose: Purpose<'_>, now: u64) -> Result<Verified, Refused> {
        if self.iss != issuer {
            return Err(Refused::Issuer);
        }
        let names = self.aud.names();
        match purpose {
            Purpose::SignIn { client, nonce } => {
                let party = self.azp.as_deref();
                let ours = names.iter().any(|name| name == client)
                    && party.map_or(names.len() == 1, |party| party == client);
                if !ours {
                    return Err(Refused::Audience);
                }
                let sent = self.nonce.as_deref().unwrap_or_default();
                if !bool::from(sent.as_bytes().ct_eq(nonce.as_bytes())) {
                    return Err(Refused::Nonce);
                }
            }
            Purpose::Api { audience } => {
                if !names.iter().any(|name| name == audience) {
                    return Err(Refused::Audience);
                }
                // Of RFC 8705 and RFC 9449: it is no token that its bearer alone may use.
                if self.cnf.is_some() {
                    return Err(Refused::Bound);
                }
            }
        }
        #[expect(clippy::cast_precision_loss, reason = "exact for some hundred million years")]
        let clock = now as f64;
        if self.exp + LEEWAY <= clock {
            return Err(Refused::Expired);
        }
        if self.iat - LEEWAY > clock || self.nbf.is_some_and(|from| from - LEEWAY > clock) {
            return Err(Refused::NotYet);
        }
        if self.sub.is_empty() || self.sub.len() > LONGEST_SUBJECT {
            return Err(Refused::Subject);
        }
        let is_verified = self.email_verified == Some(Value::Bool(true));
        let verified_email = match self.email {
            Some(Value::String(email)) if is_verified => Some(email),
            _ => None,
        };
        Ok(Verified { subject: self.sub, verified_email })
    }
}

#[cfg(test)]
mod tests;
