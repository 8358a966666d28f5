//! What an attacker may try. The keys are made here, by ring.

use ring::{
    hmac,
    rand::SystemRandom,
    signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, Ed25519KeyPair, KeyPair as _},
};
use serde_json::json;

use super::*;

const ISSUER: &str = "https://id.example.com";
const NOW: u64 = 1_800_000_000;
const SIGN_IN: Purpose<'static> = Purpose::SignIn { client: "patgate", nonce: "n-1" };
const API: Purpose<'static> = Purpose::Api { audience: "https://tokens.example.com" };

/// A provider with a key of P-256, `ec`, and one of Ed25519, `ed`.
struct Provider {
    ec: EcdsaKeyPair,
    ed: Ed25519KeyPair,
}

fn encode(bytes: impl AsRef<[u8]>) -> String {
    BASE64_URL_SAFE_NO_PAD.encode(bytes)
}

impl Provider {
    fn new() -> Self {
        let random = SystemRandom::new();
        let algorithm = &ECDSA_P256_SHA256_FIXED_SIGNING;
        let ec = EcdsaKeyPair::generate_pkcs8(algorithm, &random).unwrap();
        let ec = EcdsaKeyPair::from_pkcs8(algorithm, ec.as_ref(), &random).unwrap();
        let ed = Ed25519KeyPair::generate_pkcs8(&random).unwrap();
        Self { ec, ed: Ed25519KeyPair::from_pkcs8(ed.as_ref()).unwrap() }
    }

    fn ec_key(&self) -> Value {
        let point = self.ec.public_key().as_ref();
        let (x, y) = (encode(&point[1..33]), encode(&point[33..]));
        json!({ "kty": "EC", "crv": "P-256", "kid": "ec", "use": "sig", "x": x, "y": y })
    }

    fn ed_key(&self) -> Value {
        let x = encode(self.ed.public_key());
        json!({ "kty": "OKP", "crv": "Ed25519", "kid": "ed", "alg": "EdDSA", "x": x })
    }

    fn keys(&self) -> KeySet {
        set(&[self.ec_key(), self.ed_key()])
    }

    fn sign(&self, header: &Value, claims: &Value) -> String {
        let message = format!("{}.{}", encode(header.to_string()), encode(claims.to_string()));
        let signature = if header["kid"] == "ed" {
            self.ed.sign(message.as_bytes()).as_ref().to_vec()
        } else {
            let random = SystemRandom::new();
            self.ec.sign(&random, message.as_bytes()).unwrap().as_ref().to_vec()
        };
        format!("{message}.{}", encode(signature))
    }

    fn judge(
        &self,
        header: &Value,
        claims: &Value,
        purpose: Purpose<'_>,
    ) -> Result<Verified, Refused> {
        verify(&self.sign(header, claims), &self.keys(), ISSUER, purpose, NOW)
    }
}

fn set(keys: &[Value]) -> KeySet {
    KeySet::parse(json!({ "keys": keys }).to_string().as_bytes()).unwrap()
}

fn header() -> Value {
    json!({ "alg": "ES256", "kid": "ec" })
}

fn claims() -> Value {
    json!({
        "iss": ISSUER, "sub": "s-ann", "aud": "patgate", "nonce": "n-1",
        "exp": NOW + 300, "iat": NOW, "email": "ann@example.com", "email_verified": true,
    })
}

/// The value with some members replaced; `null` removes one.
fn but(mut value: Value, changes: Value) -> Value {
    let members = value.as_object_mut().unwrap();
    for (name, new) in changes.as_object().unwrap() {
        if new.is_null() {
            members.remove(name);
        } else {
            members.insert(name.clone(), new.clone());
        }
    }
    value
}

#[test]
fn a_genuine_token_names_its_subject() {
    let provider = Provider::new();
    let ann = provider.judge(&header(), &claims(), SIGN_IN).unwrap();
    let email = Some("ann@example.com".to_owned());
    assert_eq!(ann, Verified { subject: "s-ann".into(), verified_email: email });
    for other in [
        json!({ "alg": "EdDSA", "kid": "ed", "typ": "JWT" }),
        json!({ "alg": "Ed25519", "kid": "ed" }),
        json!({ "alg": "ES256" }),
    ] {
        assert_eq!(provider.judge(&other, &claims(), SIGN_IN).as_ref(), Ok(&ann), "{other}");
    }
    // Only a provider that says so has verified the address.
    for verified in [json!(null), json!(false), json!("true"), json!(1)] {
        let claims = but(claims(), json!({ "email_verified": verified }));
        let ann = provider.judge(&header(), &claims, SIGN_IN).unwrap();
        assert_eq!(ann.verified_email, None);
    }
}

#[test]
fn claims_that_do_not_fit_are_refused() {
    let provider = Provider::new();
    for (changes, refused) in [
        (json!({ "iss": "https://id.example.com/" }), Refused::Issuer),
        (json!({ "iss": "https://evil.example.com" }), Refused::Issuer),
        (json!({ "aud": "other" }), Refused::Audience),
        (json!({ "aud": [] }), Refused::Audience),
        // Of several audiences, the token must say for which one it was issued.
        (json!({ "aud": ["patgate", "other"] }), Refused::Audience),
        (json!({ "aud": ["patgate", "other"], "azp": "other" }), Refused::Audience),
        (json!({ "azp": "other" }), Refused::Audience),
        (json!({ "aud": ["other"], "azp": "patgate" }), Refused::Audience),
        (json!({ "exp": NOW - 60 }), Refused::Expired),
        (json!({ "exp": -1e300 }), Refused::Expired),
        (json!({ "nbf": NOW + 61 }), Refused::NotYet),
        (json!({ "iat": NOW + 61 }), Refused::NotYet),
        (json!({ "nonce": "n-2" }), Refused::Nonce),
        (json!({ "nonce": null }), Refused::Nonce),
        (json!({ "nonce": "" }), Refused::Nonce),
        (json!({ "sub": "" }), Refused::Subject),
        (json!({ "sub": "s".repeat(256) }), Refused::Subject),
        (json!({ "exp": null }), Refused::Malformed),
        (json!({ "iat": null }), Refused::Malformed),
        (json!({ "sub": null }), Refused::Malformed),
        (json!({ "aud": null }), Refused::Malformed),
        (json!({ "exp": "2099" }), Refused::Malformed),
        (json!({ "sub": 7 }), Refused::Malformed),
    ] {
        let outcome = provider.judge(&header(), &but(claims(), changes.clone()), SIGN_IN);
        assert_eq!(outcome, Err(refused), "{changes}");
    }
    for fits in [
        json!({ "aud": ["patgate"] }),
        json!({ "aud": ["patgate", "other"], "azp": "patgate" }),
        json!({ "exp": NOW - 59, "iat": NOW + 60, "nbf": NOW + 60 }),
        json!({ "exp": NOW as f64 + 0.5 }),
    ] {
        assert!(provider.judge(&header(), &but(claims(), fits.clone()), SIGN_IN).is_ok(), "{fits}");
    }
}

#[test]
fn headers_that_do_not_fit_are_refused() {
    let provider = Provider::new();
    for (changes, refused) in [
        (json!({ "alg": "none" }), Refused::Algorithm),
        (json!({ "alg": "None" }), Refused::Algorithm),
        (json!({ "alg": "HS256" }), Refused::Algorithm),
        (json!({ "alg": "ES512" }), Refused::Algorithm),
        (json!({ "alg": "" }), Refused::Algorithm),
        (json!({ "alg": null }), Refused::Malformed),
        // The algorithm of another type of key, and of another curve.
        (json!({ "alg": "RS256" }), Refused::Signature),
        (json!({ "alg": "EdDSA" }), Refused::Signature),
        (json!({ "alg": "ES384" }), Refused::Signature),
        (json!({ "kid": "other" }), Refused::UnknownKey),
        (json!({ "kid": "" }), Refused::UnknownKey),
        (json!({ "crit": ["exp"] }), Refused::Critical),
        (json!({ "crit": [] }), Refused::Critical),
        (json!({ "typ": "at+jwt" }), Refused::OtherKind),
        (json!({ "typ": "logout+jwt" }), Refused::OtherKind),
    ] {
        let outcome = provider.judge(&but(header(), changes.clone()), &claims(), SIGN_IN);
        assert_eq!(outcome, Err(refused), "{changes}");
    }
}

/// Without a signature, and with one that needs only what everyone knows.
#[test]
fn nobody_else_signs() {
    let provider = Provider::new();
    let keys = provider.keys();
    let judge = |token: &str| verify(token, &keys, ISSUER, SIGN_IN, NOW);
    let message =
        |header: Value| format!("{}.{}", encode(header.to_string()), encode(claims().to_string()));
    for algorithm in ["none", "HS256"] {
        let message = message(json!({ "alg": algorithm, "kid": "ec" }));
        assert_eq!(judge(&format!("{message}.")), Err(Refused::Algorithm));
        // The public key as the secret of an HMAC.
        let point = provider.ec.public_key().as_ref();
        for secret in [point, provider.ec_key().to_string().as_bytes()] {
            let tag = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, secret), message.as_bytes());
            assert_eq!(judge(&format!("{message}.{}", encode(tag))), Err(Refused::Algorithm));
        }
    }
    let stranger = Provider::new();
    assert_eq!(judge(&stranger.sign(&header(), &claims())), Err(Refused::Signature));
    assert_eq!(judge(&format!("{}.", message(header()))), Err(Refused::Signature));
    // A key that the token brings along is not used.
    let own = but(header(), json!({ "jwk": stranger.ec_key(), "jku": "https://evil.example" }));
    assert_eq!(judge(&stranger.sign(&own, &claims())), Err(Refused::Signature));
    // The signature covers both parts.
    let genuine = provider.sign(&header(), &claims());
    let (signed, signature) = genuine.rsplit_once('.').unwrap();
    let other = message(but(header(), json!({ "typ": "JWT" })));
    assert_eq!(judge(&format!("{other}.{signature}")), Err(Refused::Signature));
    let admin = encode(but(claims(), json!({ "sub": "s-root" })).to_string());
    let (head, _) = signed.split_once('.').unwrap();
    assert_eq!(judge(&format!("{head}.{admin}.{signature}")), Err(Refused::Signature));
}

#[test]
fn a_key_for_another_use_verifies_nothing() {
    let provider = Provider::new();
    let token = provider.sign(&header(), &claims());
    let outcome = |changes: Value| {
        verify(&token, &set(&[but(provider.ec_key(), changes)]), ISSUER, SIGN_IN, NOW)
    };
    assert!(outcome(json!({})).is_ok());
    assert!(outcome(json!({ "use": null, "key_ops": ["verify"] })).is_ok());
    for changes in [
        json!({ "use": "enc" }),
        json!({ "use": "" }),
        json!({ "key_ops": ["deriveKey"] }),
        json!({ "alg": "ECDH-ES" }),
        json!({ "kty": "oct", "k": "c2VjcmV0" }),
        json!({ "crv": "secp256k1" }),
        json!({ "x": "AA" }),
        json!({ "y": null }),
    ] {
        assert_eq!(outcome(changes.clone()), Err(Refused::UnknownKey), "{changes}");
    }
    // It has an algorithm of its own.
    assert_eq!(outcome(json!({ "alg": "ES384" })), Err(Refused::Signature));
    assert!(KeySet::parse(b"[]").is_none() && KeySet::parse(b"{}").is_none());
}

#[test]
fn an_access_token_is_for_the_api() {
    let provider = Provider::new();
    let access = but(claims(), json!({ "aud": "https://tokens.example.com", "nonce": null }));
    for kind in ["at+jwt", "application/AT+JWT"] {
        let header = but(header(), json!({ "typ": kind }));
        assert!(provider.judge(&header, &access, API).is_ok(), "{header}");
        assert_eq!(provider.judge(&header, &access, SIGN_IN), Err(Refused::OtherKind));
        // Nor for another API, nor for a holder who would have to prove a key.
        assert_eq!(provider.judge(&header, &claims(), API), Err(Refused::Audience));
        let bound = but(access.clone(), json!({ "cnf": { "jkt": "x" } }));
        assert_eq!(provider.judge(&header, &bound, API), Err(Refused::Bound));
    }
    // An ID token opens no API, whatever its audience is.
    for kind in [json!(null), json!("JWT")] {
        let header = but(header(), json!({ "typ": kind }));
        assert_eq!(provider.judge(&header, &access, API), Err(Refused::OtherKind));
    }
}

#[test]
fn malformed_tokens_are_refused() {
    let provider = Provider::new();
    let keys = provider.keys();
    let genuine = provider.sign(&header(), &claims());
    let twice = r#"{"alg":"ES256","alg":"none","kid":"ec"}"#;
    for bad in [
        "",
        ".",
        "..",
        "....",
        "a.b.c",
        "eyJ9.e30.AA",
        &format!("{genuine}."),
        &format!("{genuine}="),
        &format!(" {genuine}"),
        &format!("{genuine}\n"),
        &genuine.replacen('.', ".AAAA.", 1),
        &format!("{}.e30.AA", encode(twice)),
        &format!("{genuine}{}", "A".repeat(LONGEST)),
    ] {
        let outcome = verify(bad, &keys, ISSUER, SIGN_IN, NOW);
        assert_eq!(outcome, Err(Refused::Malformed), "{bad}");
    }
}
