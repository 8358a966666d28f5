//! What the provider says about itself (OpenID Connect Discovery 1.0), and its keys.

use std::{sync::Arc, time::Duration};

use axum::http::{StatusCode, Uri, uri::Scheme};
use serde::Deserialize;
use tokio::sync::Mutex;

use super::{Failure, http::ProviderHttp, keys::KeySet};
use crate::{
    clock::{self, Tick},
    config::is_protected,
};

/// How long it is used. Keys that the provider has given up are used no longer than that.
const FRESH: Duration = Duration::from_secs(300);
/// The shortest time between two questions that tokens with unknown keys cause, and after a question
/// that had no answer.
const PAUSE: Duration = Duration::from_secs(5);

/// Where to ask the provider for what.
#[derive(Debug)]
pub(super) struct Metadata {
    pub(super) authorization_endpoint: String,
    pub(super) token_endpoint: String,
    pub(super) userinfo_endpoint: Option<String>,
    pub(super) end_session_endpoint: Option<String>,
    /// How a client proves itself; the first that patgate can do.
    pub(super) takes_basic: bool,
    /// Whether each of its answers to a browser has `iss`.
    pub(super) names_itself: bool,
    jwks_uri: String,
}

#[derive(Debug)]
pub(super) struct Known {
    pub(super) metadata: Metadata,
    pub(super) keys: KeySet,
    at: Tick,
}

/// What is known of the provider. It is asked when a user signs in, by one of those who wait for it.
#[derive(Debug, Default)]
pub(super) struct Discovery(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    known: Option<Arc<Known>>,
    failed: Option<(Tick, String)>,
    renewed: Option<Tick>,
}

#[derive(Deserialize)]
struct Document {
    issuer: String,
    authorization_endpoint: String,
    token_endpoint: String,
    jwks_uri: String,
    userinfo_endpoint: Option<String>,
    end_session_endpoint: Option<String>,
    token_endpoint_auth_methods_supported: Option<Vec<String>>,
    #[serde(default)]
    authorization_response_iss_parameter_supported: bool,
}

impl Discovery {
    pub(super) async fn known(
        &self,
        issuer: &str,
        http: &ProviderHttp,
    ) -> Result<Arc<Known>, Failure> {
        let mut state = self.0.lock().await;
        let now = clock::now();
        match &state.known {
            Some(known) if now.since(known.at) < FRESH => Ok(Arc::clone(known)),
            _ => state.ask(now, issuer, http).await,
        }
    }

    /// The same, but not what has turned out not to be enough, unless the provider was asked for it
    /// just now.
    pub(super) async fn newer_than(
        &self,
        outdated: &Arc<Known>,
        issuer: &str,
        http: &ProviderHttp,
    ) -> Result<Arc<Known>, Failure> {
        let mut state = self.0.lock().await;
        let now = clock::now();
        match &state.known {
            Some(known) if !Arc::ptr_eq(known, outdated) => return Ok(Arc::clone(known)),
            Some(known) if state.renewed.is_some_and(|at| now.since(at) < PAUSE) => {
                return Ok(Arc::clone(known));
            }
            _ => {}
        }
        state.renewed = Some(now);
        state.ask(now, issuer, http).await
    }
}

impl State {
    async fn ask(
        &mut self,
        now: Tick,
        issuer: &str,
        http: &ProviderHttp,
    ) -> Result<Arc<Known>, Failure> {
        if let Some((at, problem)) = &self.failed
            && now.since(*at) < PAUSE
        {
            return Err(Failure::Unavailable(problem.clone()));
        }
        match read(now, issuer, http).await {
            Ok(known) => {
                let known = Arc::new(known);
                self.known = Some(Arc::clone(&known));
                self.failed = None;
                Ok(known)
            }
            Err(problem) => {
                tracing::warn!(%problem, "the provider of OpenID Connect cannot be used");
                // From the end of the attempt, which may have taken long.
                self.failed = Some((clock::now(), problem.clone()));
                Err(Failure::Unavailable(problem))
            }
        }
    }
}

async fn read(at: Tick, issuer: &str, http: &ProviderHttp) -> Result<Known, String> {
    let url = format!("{}/.well-known/openid-configuration", issuer.trim_end_matches('/'));
    let document: Document = serde_json::from_slice(&body(http, &url).await?)
        .map_err(|error| format!("{url}: not a description of a provider: {error}"))?;
    if document.issuer != issuer {
        let named = document.issuer.escape_debug();
        return Err(format!("{url}: the provider calls itself `{named}`, not `{issuer}`"));
    }
    let metadata = Metadata::of(document, issuer).map_err(|problem| format!("{url}: {problem}"))?;
    let keys = KeySet::parse(&body(http, &metadata.jwks_uri).await?);
    let keys = keys.ok_or_else(|| format!("{}: not a set of keys", metadata.jwks_uri))?;
    Ok(Known { metadata, keys, at })
}

async fn body(http: &ProviderHttp, url: &str) -> Result<bytes::Bytes, String> {
    let answer = http.get(url, None).await.map_err(|failure| match failure {
        Failure::Unavailable(problem) => problem,
        other => other.to_string(),
    })?;
    match answer.status {
        StatusCode::OK => Ok(answer.body),
        status => Err(format!("{url}: answered {status}")),
    }
}

impl Metadata {
    fn of(document: Document, issuer: &str) -> Result<Self, String> {
        // A provider on this machine may use plain HTTP, and no other may lead there.
        let by_tls = issuer.starts_with("https:");
        let url = |name: &str, text: String| {
            let parsed: Option<Uri> = text.parse().ok();
            let fits =
                |url: &Uri| is_protected(url) && (!by_tls || url.scheme() == Some(&Scheme::HTTPS));
            match parsed.as_ref().is_some_and(fits) {
                true => Ok(text),
                false => Err(format!("`{name}` is no https:// URL: `{}`", text.escape_debug())),
            }
        };
        let methods = document.token_endpoint_auth_methods_supported;
        Ok(Self {
            authorization_endpoint: url("authorization_endpoint", document.authorization_endpoint)?,
            token_endpoint: url("token_endpoint", document.token_endpoint)?,
            userinfo_endpoint: document
                .userinfo_endpoint
                .map(|text| url("userinfo_endpoint", text))
                .transpose()?,
            end_session_endpoint: document
                .end_session_endpoint
                .map(|text| url("end_session_endpoint", text))
                .transpose()?,
            // The default of the specification.
            takes_basic: methods
                .is_none_or(|methods| methods.iter().any(|it| it == "client_secret_basic")),
            names_itself: document.authorization_response_iss_parameter_supported,
            jwks_uri: url("jwks_uri", document.jwks_uri)?,
        })
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn of(issuer: &str, changes: Value) -> Result<Metadata, String> {
        let mut document = json!({
            "issuer": issuer,
            "authorization_endpoint": format!("{issuer}/auth?a=b"),
            "token_endpoint": format!("{issuer}/token"),
            "jwks_uri": format!("{issuer}/keys"),
        });
        let more = changes.as_object().unwrap().clone();
        document.as_object_mut().unwrap().extend(more);
        Metadata::of(serde_json::from_value(document).unwrap(), issuer)
    }

    #[test]
    fn nothing_is_sent_where_others_hear_it() {
        let public = "https://id.example.org";
        let known = of(public, json!({})).unwrap();
        assert!(known.takes_basic && !known.names_itself && known.userinfo_endpoint.is_none());
        of("http://127.0.0.1:3000", json!({})).unwrap();
        for name in [
            "authorization_endpoint",
            "token_endpoint",
            "jwks_uri",
            "userinfo_endpoint",
            "end_session_endpoint",
        ] {
            for bad in [
                "http://id.example.org/x",
                "http://127.0.0.1/x",
                "https://a@id.example.org/x",
                "javascript:alert(1)",
                "/x",
                "",
            ] {
                let problem = of(public, json!({ name: bad })).unwrap_err();
                assert!(problem.contains(name), "{name} {bad}: {problem}");
            }
        }
    }

    #[test]
    fn a_client_proves_itself_as_the_provider_likes() {
        let basic = |methods: Value| {
            let changes = json!({ "token_endpoint_auth_methods_supported": methods });
            of("https://id.example.org", changes).unwrap().takes_basic
        };
        assert!(basic(json!(["client_secret_post", "client_secret_basic"])));
        assert!(!basic(json!(["client_secret_post"])));
    }
}
