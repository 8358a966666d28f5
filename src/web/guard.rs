//! What every request must have passed, and what every answer says.

use std::{error::Error as _, sync::Arc, time::Duration};

use axum::{
    body::{Body, to_bytes},
    extract::{MatchedPath, Request, State},
    http::{
        HeaderMap, HeaderName, HeaderValue, Method,
        header::{
            CACHE_CONTROL, CONTENT_SECURITY_POLICY, HOST, ORIGIN, REFERRER_POLICY,
            STRICT_TRANSPORT_SECURITY, X_CONTENT_TYPE_OPTIONS, X_FRAME_OPTIONS,
        },
    },
    middleware::Next,
    response::Response,
};
use http_body_util::LengthLimitError;
use tokio::time::timeout;

use super::{
    Site, cookie,
    problem::{self, Problem},
    visit::{RequestId, client_address, peer},
};
use crate::{config::SiteUrl, telemetry::WebRefusal};

/// The longest time for one answer. The service itself gives up sooner.
const PATIENCE: Duration = Duration::from_secs(20);
/// The longest time that a body may take to arrive.
const ARRIVAL: Duration = Duration::from_secs(5);
/// The longest body. Nothing that people send is near it.
const LONGEST_BODY: usize = 64 * 1024;

const FETCH_SITE: &str = "sec-fetch-site";
const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
const POLICY: &str = "default-src 'none'; style-src 'self'; script-src 'self'; img-src 'self'; \
                      form-action 'self'; base-uri 'none'; frame-ancestors 'none'";

/// Admits a request, gives it its id, and completes the answer.
pub(super) async fn guard(
    State(site): State<Arc<Site>>,
    mut request: Request,
    next: Next,
) -> Response {
    let settings = &site.settings;
    let id = RequestId::of(request.headers(), settings.proxies);
    request.extensions_mut().insert(id.clone());
    let path = request.uri().path().to_owned();
    let _in_progress = site.metrics.begin();
    let route = request.extensions().get::<MatchedPath>().cloned();
    let admitted = match admit(&site, &request) {
        Ok(()) => whole(request).await,
        Err(problem) => Err(problem),
    };
    // A request takes its place when it has arrived: one that arrives slowly must not keep others out.
    let admitted = admitted.and_then(|request| Ok((request, site.limits.place()?)));
    let mut response = match admitted {
        Ok((request, permit)) => {
            let answer = timeout(PATIENCE, next.run(request)).await;
            drop(permit);
            answer.unwrap_or_else(|_| problem::answer(Problem::took_too_long(), &path))
        }
        Err(problem) => problem::answer(problem, &path),
    };
    let headers = response.headers_mut();
    if let Ok(id) = HeaderValue::try_from(id.0) {
        headers.insert(REQUEST_ID, id);
    }
    complete(headers, settings.url.is_secure());
    let route = route.as_ref().map(MatchedPath::as_str);
    site.metrics.answered(route, response.status().as_u16());
    response
}

/// Reads the body, which may neither be long nor take long.
async fn whole(request: Request) -> Result<Request, Problem> {
    let (parts, body) = request.into_parts();
    let Ok(read) = timeout(ARRIVAL, to_bytes(body, LONGEST_BODY)).await else {
        return Err(Problem::arrived_too_slowly());
    };
    let bytes = read.map_err(|error| match error.source() {
        Some(cause) if cause.is::<LengthLimitError>() => Problem::too_large(),
        _ => Problem::invalid("the body did not arrive whole"),
    })?;
    Ok(Request::from_parts(parts, Body::from(bytes)))
}

fn admit(site: &Site, request: &Request) -> Result<(), Problem> {
    let settings = &site.settings;
    let headers = request.headers();
    let address = client_address(peer(request.extensions()), headers, settings.proxies);
    site.limits.request(address)?;
    if !names(&settings.url, headers) {
        site.metrics.refused(WebRefusal::Host);
        return Err(Problem::wrong_host());
    }
    if !comes_from(&settings.url, request.method(), headers) {
        site.metrics.refused(WebRefusal::Origin);
        return Err(Problem::foreign_origin());
    }
    Ok(())
}

/// Whether the request names this site. A page of another name that leads here has no business here.
fn names(site: &SiteUrl, headers: &HeaderMap) -> bool {
    let mut hosts = headers.get_all(HOST).into_iter();
    let host = hosts.next().and_then(|host| host.to_str().ok());
    hosts.next().is_none() && host.is_some_and(|host| host.eq_ignore_ascii_case(site.authority()))
}

/// Whether a request that may change something comes from this site, or from no browser. Browsers
/// name the origin of each such request. So one without an origin, with a cookie, is from a program
/// that holds a cookie like a browser, or a browser that does not say where a request comes from.
fn comes_from(site: &SiteUrl, method: &Method, headers: &HeaderMap) -> bool {
    if method.is_safe() {
        return true;
    }
    let mut origins = headers.get_all(ORIGIN).into_iter();
    match (origins.next(), origins.next()) {
        (Some(origin), None) => origin.as_bytes() == site.origin().as_bytes(),
        (Some(_), Some(_)) => false,
        (None, _) => match headers.get(FETCH_SITE) {
            Some(from) => from.as_bytes() == b"same-origin",
            None => !cookie::is_sent(site, headers),
        },
    }
}

/// Adds what browsers must know of every answer, unless the handler has said otherwise.
fn complete(headers: &mut HeaderMap, is_secure: bool) {
    for (name, value) in [
        (CACHE_CONTROL, "no-store"),
        (CONTENT_SECURITY_POLICY, POLICY),
        (X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (X_FRAME_OPTIONS, "DENY"),
        // With `no-referrer`, browsers would send no origin with forms.
        (REFERRER_POLICY, "same-origin"),
        (HeaderName::from_static("cross-origin-opener-policy"), "same-origin"),
        (HeaderName::from_static("cross-origin-resource-policy"), "same-origin"),
        (HeaderName::from_static("permissions-policy"), "camera=(), geolocation=(), microphone=()"),
    ] {
        headers.entry(name).or_insert(HeaderValue::from_static(value));
    }
    if is_secure {
        let year = HeaderValue::from_static("max-age=31536000");
        headers.insert(STRICT_TRANSPORT_SECURITY, year);
    }
}
