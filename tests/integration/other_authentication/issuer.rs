//! Makes JWTs, good and bad ones, and the key that Envoy verifies them with.

use std::time::{SystemTime, UNIX_EPOCH};

use base64::{Engine as _, prelude::BASE64_URL_SAFE_NO_PAD};
use ring::{
    rand::SystemRandom,
    signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair as _},
};
use serde_json::{Value, json};

/// Of envoy/other-authentication.yaml.
const ISSUER: &str = "https://id.example.com";
const AUDIENCE: &str = "orders";

pub(super) struct Issuer(EcdsaKeyPair);

fn encode(bytes: impl AsRef<[u8]>) -> String {
    BASE64_URL_SAFE_NO_PAD.encode(bytes)
}

impl Issuer {
    pub(super) fn new() -> Self {
        let random = SystemRandom::new();
        let algorithm = &ECDSA_P256_SHA256_FIXED_SIGNING;
        let key = EcdsaKeyPair::generate_pkcs8(algorithm, &random).unwrap();
        Self(EcdsaKeyPair::from_pkcs8(algorithm, key.as_ref(), &random).unwrap())
    }

    /// The set of keys for Envoy's configuration.
    pub(super) fn keys(&self) -> String {
        let point = self.0.public_key().as_ref();
        let (x, y) = (encode(&point[1..33]), encode(&point[33..]));
        json!({ "keys": [
            { "kty": "EC", "crv": "P-256", "alg": "ES256", "use": "sig", "kid": "test", "x": x, "y": y },
        ] })
        .to_string()
    }

    /// A JWT that the API takes.
    pub(super) fn good(&self) -> String {
        self.with(&json!({}))
    }

    /// The same with these claims replaced, or removed if they are null.
    pub(super) fn with(&self, changes: &Value) -> String {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs();
        let mut claims = json!({
            "iss": ISSUER, "aud": AUDIENCE, "sub": "client-7", "iat": now, "exp": now + 3600,
        });
        for (name, value) in changes.as_object().unwrap() {
            match value {
                Value::Null => drop(claims.as_object_mut().unwrap().remove(name)),
                value => claims[name] = value.clone(),
            }
        }
        self.sign(&json!({ "alg": "ES256", "kid": "test", "typ": "JWT" }), &claims)
    }

    /// A good one that says that it needs no signature, and has none.
    pub(super) fn unsigned(&self) -> String {
        let good = self.good();
        let claims = good.split('.').nth(1).unwrap();
        format!("{}.{claims}.", encode(json!({ "alg": "none" }).to_string()))
    }

    fn sign(&self, header: &Value, claims: &Value) -> String {
        let message = format!("{}.{}", encode(header.to_string()), encode(claims.to_string()));
        let signature = self.0.sign(&SystemRandom::new(), message.as_bytes()).unwrap();
        format!("{message}.{}", encode(signature))
    }
}

/// Reads what Envoy tells the API.
pub(super) fn payload(header: &str) -> Value {
    let text = header.trim_end_matches('=');
    serde_json::from_slice(&BASE64_URL_SAFE_NO_PAD.decode(text).unwrap()).unwrap()
}
