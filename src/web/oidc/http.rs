//! Asks the provider. An answer takes no longer and has no more bytes than these bounds permit, and
//! none leads anywhere else.

use std::{fmt, io, sync::Arc, time::Duration};

use axum::http::{HeaderValue, Request, StatusCode, header};
use bytes::Bytes;
use http_body_util::{BodyExt as _, Full, Limited};
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::{
    client::legacy::{Client, connect::HttpConnector},
    rt::TokioExecutor,
};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use rustls::{ClientConfig, RootCertStore, crypto::ring};
use tokio::time::timeout;

use super::Failure;

/// The longest time for one answer. A sign-in asks four times at most, and must end in time for the
/// browser.
const PATIENCE: Duration = Duration::from_secs(4);
/// The longest answer. Key sets are the longest, and have a few KiB.
const LONGEST: usize = 256 * 1024;

const UNRESERVED: AsciiSet = NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');

/// A client for the provider alone.
pub(super) struct ProviderHttp(Client<HttpsConnector<HttpConnector>, Full<Bytes>>);

impl fmt::Debug for ProviderHttp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ProviderHttp")
    }
}

/// What the provider answered.
pub(super) struct Answer {
    pub(super) status: StatusCode,
    pub(super) body: Bytes,
}

impl ProviderHttp {
    pub(super) fn new(authorities: Option<RootCertStore>) -> io::Result<Self> {
        let provider = Arc::new(ring::default_provider());
        let connector = match authorities {
            Some(roots) => HttpsConnectorBuilder::new().with_tls_config(
                ClientConfig::builder_with_provider(provider)
                    .with_safe_default_protocol_versions()
                    .map_err(io::Error::other)?
                    .with_root_certificates(roots)
                    .with_no_client_auth(),
            ),
            None => HttpsConnectorBuilder::new().with_provider_and_native_roots(provider)?,
        };
        // Plain HTTP only where `is_protected` says so.
        let connector = connector.https_or_http().enable_http1().build();
        // Users sign in rarely, and a provider closes connections that are idle.
        let mut client = Client::builder(TokioExecutor::new());
        Ok(Self(client.pool_max_idle_per_host(0).build(connector)))
    }

    pub(super) async fn get(&self, url: &str, bearer: Option<&str>) -> Result<Answer, Failure> {
        let mut request = Request::get(url);
        if let Some(bearer) = bearer {
            request = request.header(header::AUTHORIZATION, secret(&format!("Bearer {bearer}")));
        }
        self.send(url, request.body(Full::default())).await
    }

    /// Sends a form.
    pub(super) async fn post(
        &self,
        url: &str,
        authorization: Option<&str>,
        form: String,
    ) -> Result<Answer, Failure> {
        let mut request =
            Request::post(url).header(header::CONTENT_TYPE, "application/x-www-form-urlencoded");
        if let Some(authorization) = authorization {
            request = request.header(header::AUTHORIZATION, secret(authorization));
        }
        self.send(url, request.body(Full::from(form))).await
    }

    async fn send(
        &self,
        url: &str,
        request: Result<Request<Full<Bytes>>, axum::http::Error>,
    ) -> Result<Answer, Failure> {
        let unavailable = |problem: String| Failure::Unavailable(format!("{url}: {problem}"));
        let mut request = request.map_err(|error| unavailable(error.to_string()))?;
        let json = HeaderValue::from_static("application/json");
        request.headers_mut().insert(header::ACCEPT, json);
        let exchange = async {
            let answer = self.0.request(request).await.map_err(|error| all_of(&error))?;
            let status = answer.status();
            let body = Limited::new(answer.into_body(), LONGEST).collect().await;
            let body = body.map_err(|error| all_of(&*error))?.to_bytes();
            Ok(Answer { status, body })
        };
        let answer = timeout(PATIENCE, exchange).await;
        answer
            .unwrap_or_else(|_| Err(format!("no answer within {PATIENCE:?}")))
            .map_err(unavailable)
    }
}

/// An error with its causes: that of the client itself says only that it could not connect.
fn all_of(error: &(dyn std::error::Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text = format!("{text}: {error}");
        cause = error.source();
    }
    text
}

fn secret(text: &str) -> HeaderValue {
    let mut value = HeaderValue::try_from(text).unwrap_or(HeaderValue::from_static(""));
    value.set_sensitive(true);
    value
}

/// Writes pairs as a query, or as a form.
pub(super) fn query(pairs: &[(&str, &str)]) -> String {
    let pair = |(name, value): &(&str, &str)| format!("{}={}", escaped(name), escaped(value));
    pairs.iter().map(pair).collect::<Vec<_>>().join("&")
}

pub(super) fn escaped(text: &str) -> String {
    utf8_percent_encode(text, &UNRESERVED).to_string()
}
