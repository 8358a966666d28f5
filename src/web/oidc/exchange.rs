//! What the provider is asked directly after it has signed a user in: its tokens for the code, and the
//! user's address.

use axum::http::StatusCode;
use base64::{Engine as _, prelude::BASE64_STANDARD};
use secrecy::ExposeSecret as _;
use serde::Deserialize;
use serde_json::Value;
use zeroize::Zeroizing;

use super::{
    Failure, Provider,
    discovery::Metadata,
    http::{escaped, query},
};

/// The provider's answer to a code. It is not shown anywhere.
#[derive(Deserialize)]
pub(super) struct Tokens {
    pub(super) id_token: String,
    access_token: Option<String>,
}

#[derive(Deserialize)]
struct Refusal {
    error: String,
}

#[derive(Deserialize)]
struct UserInfo {
    sub: String,
    email: Option<Value>,
    email_verified: Option<Value>,
}

impl Provider {
    /// Redeems a code.
    pub(super) async fn redeem(
        &self,
        metadata: &Metadata,
        code: &str,
        verifier: &str,
    ) -> Result<Tokens, Failure> {
        let client = self.settings.client_id.as_str();
        let mut form = vec![
            ("grant_type", "authorization_code"),
            ("code", code),
            ("redirect_uri", self.redirect_uri.as_str()),
            ("code_verifier", verifier),
        ];
        let secret = self.settings.client_secret.as_ref().map(|secret| secret.expose_secret());
        let mut authorization = None;
        match secret {
            // Each part is escaped first (RFC 6749, section 2.3.1).
            Some(secret) if metadata.takes_basic => {
                let pair = Zeroizing::new(format!("{}:{}", escaped(client), escaped(secret)));
                let text = format!("Basic {}", BASE64_STANDARD.encode(pair.as_bytes()));
                authorization = Some(Zeroizing::new(text));
            }
            Some(secret) => form.extend([("client_id", client), ("client_secret", secret)]),
            None => form.push(("client_id", client)),
        }
        let url = &metadata.token_endpoint;
        let authorization = authorization.as_ref().map(|text| text.as_str());
        let answer = self.http.post(url, authorization, query(&form)).await?;
        if answer.status == StatusCode::OK {
            // The parser's message could show a part of a token.
            return serde_json::from_slice(&answer.body)
                .map_err(|_| Failure::Unavailable(format!("{url}: answered without an ID token")));
        }
        let refusal: Option<Refusal> = serde_json::from_slice(&answer.body).ok();
        let error = refusal.map_or_else(String::new, |refusal| refusal.error);
        match (answer.status, error.as_str()) {
            (StatusCode::BAD_REQUEST, "invalid_grant") => Err(Failure::Code),
            (status, error) => {
                let error: String = error.chars().take(64).flat_map(char::escape_debug).collect();
                Err(Failure::Unavailable(format!("{url}: answered {status} {error}")))
            }
        }
    }

    /// Returns the verified address of a subject, which many providers do not write into ID tokens
    /// (OpenID Connect Core 1.0, section 5.4). No sign-in fails for it.
    pub(super) async fn asked_email(
        &self,
        metadata: &Metadata,
        tokens: &Tokens,
        subject: &str,
    ) -> Option<String> {
        if !self.settings.scopes.split(' ').any(|scope| scope == "email") {
            return None;
        }
        let url = metadata.userinfo_endpoint.as_ref()?;
        let answer = self.http.get(url, Some(tokens.access_token.as_ref()?)).await;
        let answer = match answer {
            Ok(answer) if answer.status == StatusCode::OK => answer,
            Ok(answer) => {
                tracing::warn!(url, status = %answer.status, "the provider gives no address");
                return None;
            }
            Err(failure) => {
                tracing::warn!(%failure, "the provider gives no address");
                return None;
            }
        };
        let info: UserInfo = serde_json::from_slice(&answer.body).ok()?;
        let is_verified = info.email_verified == Some(Value::Bool(true));
        match info.email {
            // It may be about another subject than the ID token (section 5.3.2).
            Some(Value::String(email)) if is_verified && info.sub == subject => Some(email),
            _ => None,
        }
    }
}
