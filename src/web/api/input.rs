//! What a request says, as types that cannot be wrong. A mistake is answered as a problem that names
//! it.

use std::{fmt, str::FromStr, sync::Arc, time::Duration};

use axum::{
    body::Bytes,
    extract::{FromRequest, FromRequestParts, Path, Query, Request},
    http::{
        HeaderMap, HeaderValue, StatusCode,
        header::{CONTENT_TYPE, IF_MATCH},
        request::Parts,
    },
    middleware::Next,
    response::{IntoResponse, Response},
};
use serde::{Deserialize, Deserializer, de::DeserializeOwned};
use utoipa::IntoParams;

use crate::{
    admin::{Expiry, web::Caller},
    domain::DomainRef,
    web::{Site, problem::Problem, visit::ApiCaller},
};

/// A caller who has signed in, and the site that they ask.
pub(super) struct Signed {
    pub(super) site: Arc<Site>,
    pub(super) caller: Caller,
}

impl FromRequestParts<Arc<Site>> for Signed {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, site: &Arc<Site>) -> Result<Self, Problem> {
        let ApiCaller(caller) = ApiCaller::from_request_parts(parts, site).await?;
        Ok(Self { site: Arc::clone(site), caller })
    }
}

/// A body that is a JSON object, with no members but those that it may have.
pub(super) struct Body<T>(pub(super) T);

impl<T: DeserializeOwned> FromRequest<Arc<Site>> for Body<T> {
    type Rejection = Problem;

    async fn from_request(request: Request, site: &Arc<Site>) -> Result<Self, Problem> {
        if !is_json(request.headers()) {
            let status = StatusCode::UNSUPPORTED_MEDIA_TYPE;
            let detail = "the body must be JSON, with `content-type: application/json`";
            return Err(Problem::new(status, "unsupported-media-type", "Not JSON", detail));
        }
        let incomplete = |_| Problem::invalid("the body did not arrive whole");
        let body = Bytes::from_request(request, site).await.map_err(incomplete)?;
        // A struct could also be read from an array, which would be a second spelling.
        if !body.trim_ascii_start().starts_with(b"{") {
            return Err(Problem::invalid("the body must be a JSON object"));
        }
        let read = serde_json::from_slice(&body);
        read.map(Self).map_err(|error| Problem::invalid(format!("the body is not valid: {error}")))
    }
}

fn is_json(headers: &HeaderMap) -> bool {
    let mut lines = headers.get_all(CONTENT_TYPE).into_iter();
    let (Some(line), None) = (lines.next(), lines.next()) else { return false };
    let essence = line.to_str().ok().and_then(|line| line.split(';').next());
    essence.is_some_and(|essence| essence.trim().eq_ignore_ascii_case("application/json"))
}

/// The parameters of a query, and no others.
pub(super) struct Parameters<T>(pub(super) T);

impl<T: DeserializeOwned> FromRequestParts<Arc<Site>> for Parameters<T> {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, site: &Arc<Site>) -> Result<Self, Problem> {
        let read = Query::<T>::from_request_parts(parts, site).await;
        read.map(|Query(it)| Self(it)).map_err(|error| Problem::invalid(error.body_text()))
    }
}

/// Refuses a query, for routes that take none: what it says would be ignored.
pub(super) async fn without_query(request: Request, next: Next) -> Response {
    match request.uri().query() {
        None | Some("") => next.run(request).await,
        Some(_) => {
            let detail = "this request takes no query; what it says belongs in the body";
            Problem::invalid(detail).into_response()
        }
    }
}

/// The things that the path names. What cannot be the name of one is the name of none.
pub(super) struct Named<T>(pub(super) T);

impl<T: DeserializeOwned + Send> FromRequestParts<Arc<Site>> for Named<T> {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, site: &Arc<Site>) -> Result<Self, Problem> {
        let named = Path::<T>::from_request_parts(parts, site).await.ok();
        let nothing = "the path names something that does not exist";
        named.map(|Path(it)| Self(it)).ok_or_else(|| Problem::not_found(nothing))
    }
}

/// Reads a part of a path as its type does, for serde.
pub(super) fn parsed<'de, D, T>(from: D) -> Result<T, D::Error>
where
    D: Deserializer<'de>,
    T: FromStr<Err: fmt::Display>,
{
    String::deserialize(from)?.parse().map_err(serde::de::Error::custom)
}

/// Reads the slug or the id of a domain in a path, for serde.
pub(super) fn domain<'de, D: Deserializer<'de>>(from: D) -> Result<DomainRef, D::Error> {
    let text = String::deserialize(from)?;
    DomainRef::parse(&text).ok_or_else(|| serde::de::Error::custom(DomainRef::EXPECTED))
}

/// Reads a member that may be absent, and is not `null`, which could mean anything, for serde.
pub(super) fn present<'de, D, T>(from: D) -> Result<Option<T>, D::Error>
where
    D: Deserializer<'de>,
    T: Deserialize<'de>,
{
    T::deserialize(from).map(Some)
}

/// Reads a list that may be absent, and is not empty, for serde.
pub(super) fn some<'de, D, T>(from: D) -> Result<Vec<T>, D::Error>
where
    D: Deserializer<'de>,
    T: Deserialize<'de>,
{
    let list = Vec::deserialize(from)?;
    if list.is_empty() {
        return Err(serde::de::Error::custom("a list that is given must not be empty"));
    }
    Ok(list)
}

/// Reads a member of a body as its type does.
pub(super) fn read<T: FromStr<Err: fmt::Display>>(member: &str, text: &str) -> Result<T, Problem> {
    text.parse().map_err(|error| Problem::invalid(format!("`{member}`: {error}")))
}

/// Which part of a list to show.
#[derive(Clone, Copy, Debug)]
pub(super) struct Part {
    pub(super) offset: u32,
    pub(super) limit: u32,
}

impl Part {
    /// The most entries that one answer has.
    pub(super) const MOST: u32 = 1000;
    /// How many it has if the client does not say.
    pub(super) const USUAL: u32 = 10;

    pub(super) fn read(offset: u32, limit: Option<u32>) -> Result<Self, Problem> {
        let limit = limit.unwrap_or(Self::USUAL);
        if !(1..=Self::MOST).contains(&limit) {
            return Err(Problem::invalid(format!("`limit` must be from 1 to {}", Self::MOST)));
        }
        Ok(Self { offset, limit })
    }

    /// The total of a whole list, and this part of it.
    pub(super) fn of<T>(self, all: Vec<T>) -> (usize, Vec<T>) {
        let total = all.len();
        let part = all.into_iter().skip(self.offset as usize).take(self.limit as usize);
        (total, part.collect())
    }
}

/// The part of a list that has no other parameters.
#[derive(Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
pub(super) struct PartQuery {
    #[serde(default)]
    #[param(maximum = 4294967295_u32)]
    offset: u32,
    #[param(minimum = 1, maximum = 1000)]
    limit: Option<u32>,
}

impl PartQuery {
    pub(super) fn read(self) -> Result<Part, Problem> {
        Part::read(self.offset, self.limit)
    }
}

/// The version that the thing must have.
#[derive(Debug, PartialEq, IntoParams)]
#[into_params(parameter_in = Header)]
pub(super) struct IfMatch {
    /// A version as `etag` gave it, or `*`: the change applies to this version only.
    #[param(rename = "if-match", min_length = 1, pattern = "^(\\*|\"[!#-~]+\")$")]
    pub(super) version: Option<String>,
}

impl IfMatch {
    /// Reads `if-match`.
    pub(super) fn read(headers: &HeaderMap) -> Result<Self, Problem> {
        let not_one = || {
            let detail = "`if-match` must hold one strong entity tag, as `etag` gave it, or `*`";
            Problem::invalid(detail)
        };
        let mut lines = headers.get_all(IF_MATCH).into_iter();
        let version = match (lines.next().map(HeaderValue::as_bytes), lines.next()) {
            (None, _) | (Some(b"*"), None) => None,
            (Some([b'"', version @ .., b'"']), None) => match str::from_utf8(version) {
                Ok(version) if !version.contains('"') => Some(version.to_owned()),
                _ => return Err(not_one()),
            },
            _ => return Err(not_one()),
        };
        Ok(Self { version })
    }
}

/// The key under which a repeated request creates nothing again.
#[derive(Debug, IntoParams)]
#[into_params(parameter_in = Header)]
pub(super) struct IdempotencyKey {
    /// A text that is used for one request: repeated, it creates nothing again.
    #[param(rename = "idempotency-key", min_length = 1, pattern = "^[!-~]([ -~]{0,198}[!-~])?$")]
    pub(super) key: Option<String>,
}

impl IdempotencyKey {
    /// Reads `idempotency-key`.
    pub(super) fn read(headers: &HeaderMap) -> Result<Self, Problem> {
        let mut lines = headers.get_all("idempotency-key").into_iter();
        let Some(line) = lines.next() else { return Ok(Self { key: None }) };
        let text = line.to_str().ok().filter(|text| (1..=200).contains(&text.len()));
        match (text, lines.next()) {
            (Some(text), None) => Ok(Self { key: Some(text.to_owned()) }),
            _ => {
                let detail = "`idempotency-key` must be one text of 1 to 200 ASCII characters";
                Err(Problem::invalid(detail))
            }
        }
    }
}

/// When a token shall expire.
pub(super) fn expiry(
    duration: Option<&str>,
    expires_at: Option<&str>,
) -> Result<Option<Expiry>, Problem> {
    match (duration, expires_at) {
        (None, None) => Ok(None),
        (Some(_), Some(_)) => {
            Err(Problem::invalid("`duration` and `expires_at` exclude each other"))
        }
        (Some(text), None) => {
            let read = humantime::parse_duration(text).ok().filter(|time| *time > Duration::ZERO);
            let expected = "`duration` must be a time such as `24h`, `720h` or `30d`";
            read.map(|time| Some(Expiry::In(time))).ok_or_else(|| Problem::invalid(expected))
        }
        (None, Some(text)) => {
            let expected = "`expires_at` must be a moment such as `2030-01-31T00:00:00Z`";
            let read = text.parse().map_err(|_| Problem::invalid(expected))?;
            Ok(Some(Expiry::At(read)))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_expires_after_a_time_or_at_a_moment() {
        let day = Duration::from_secs(24 * 60 * 60);
        for text in ["24h", "1d", "86400s"] {
            assert!(matches!(expiry(Some(text), None), Ok(Some(Expiry::In(time))) if time == day));
        }
        assert!(matches!(expiry(None, Some("2030-01-31T00:00:00Z")), Ok(Some(Expiry::At(_)))));
        assert!(matches!(expiry(None, None), Ok(None)));
        for (duration, moment) in
            [(Some("0h"), None), (Some("-1h"), None), (Some("soon"), None), (Some(""), None)]
                .into_iter()
                .chain([(None, Some("tomorrow")), (Some("1h"), Some("2030-01-31T00:00:00Z"))])
        {
            assert!(expiry(duration, moment).is_err(), "{duration:?} {moment:?}");
        }
    }

    #[test]
    fn a_version_is_one_strong_tag() {
        let of = |lines: &[&'static str]| {
            let mut headers = HeaderMap::new();
            for line in lines {
                headers.append(IF_MATCH, line.parse().unwrap());
            }
            IfMatch::read(&headers).map(|it| it.version).map_err(|problem| problem.status.as_u16())
        };
        assert_eq!(of(&[]), Ok(None));
        assert_eq!(of(&["*"]), Ok(None));
        assert_eq!(of(&["\"abc\""]), Ok(Some("abc".to_owned())));
        for wrong in [&["abc"][..], &["W/\"abc\""], &["\"a\", \"b\""], &["\"a\"", "\"b\""], &["\""]]
        {
            assert_eq!(of(wrong), Err(400), "{wrong:?}");
        }
    }
}
