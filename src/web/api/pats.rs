//! The caller's Personal Access Tokens, under the names that SuperMQ's clients know.

use std::sync::Arc;

use axum::{
    Json,
    extract::State,
    http::{
        HeaderMap, HeaderName, HeaderValue, StatusCode,
        header::{ETAG, LOCATION},
    },
    response::{IntoResponse, Response},
};
use serde::{Deserialize, Serialize};
use serde_json::json;
use uuid::Uuid;

use super::input::{
    Body, Parameters, PatId, ScopeInput, expected_version, expiry, idempotency_key,
};
use crate::{
    admin::{
        Outcome, TokenStatus,
        web::{Creation, NewOwnToken, OwnScope, OwnToken, ScopeRemoval, TokenQuery, TokenState},
    },
    token::PlainToken,
    web::{Site, problem::Problem, visit::ApiCaller},
};

const FEWEST: u32 = 1;
const MOST: u32 = 1000;
const USUAL: u32 = 10;

/// A token, as a client sees it.
#[derive(Serialize)]
struct Pat {
    #[serde(flatten)]
    token: OwnToken,
    revoked: bool,
    /// Only in the answer to the request that has made it.
    #[serde(skip_serializing_if = "Option::is_none")]
    secret: Option<String>,
}

impl Pat {
    fn of(token: OwnToken) -> Self {
        Self { revoked: token.status == TokenStatus::Revoked, token, secret: None }
    }

    fn with(token: OwnToken, plain: &PlainToken) -> Self {
        Self { secret: Some(plain.expose().to_owned()), ..Self::of(token) }
    }

    fn answer(self, status: StatusCode) -> Response {
        let tag = HeaderValue::try_from(format!("\"{}\"", self.token.version));
        let mut response = (status, Json(self)).into_response();
        if let Ok(tag) = tag {
            response.headers_mut().insert(ETAG, tag);
        }
        response
    }
}

/// Takes the result of a change. The client's user can do nothing about a warning.
fn done<T>(outcome: Outcome<T>) -> T {
    for warning in &outcome.warnings {
        tracing::warn!(?warning, "a change of self-service is made, with a warning");
    }
    outcome.value
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct ListQuery {
    #[serde(default)]
    offset: u32,
    limit: Option<u32>,
    name: Option<String>,
    status: Option<String>,
}

impl ListQuery {
    fn read(self) -> Result<TokenQuery, Problem> {
        let limit = self.limit.unwrap_or(USUAL);
        if !(FEWEST..=MOST).contains(&limit) {
            return Err(Problem::invalid(format!("`limit` must be from {FEWEST} to {MOST}")));
        }
        let state = match self.status.as_deref() {
            None | Some("all") => None,
            // As SuperMQ has it.
            Some("active" | "enabled") => Some(TokenState::Live),
            Some(word) => {
                let read = word.parse();
                Some(read.map_err(|error| Problem::invalid(format!("`status`: {error}")))?)
            }
        };
        Ok(TokenQuery { of_all_users: false, name: self.name, state, offset: self.offset, limit })
    }
}

pub(super) async fn list(
    State(site): State<Arc<Site>>,
    ApiCaller(caller): ApiCaller,
    Parameters(query): Parameters<ListQuery>,
) -> Result<Response, Problem> {
    let query = query.read()?;
    let page = site.service.tokens(&caller, &query).await?;
    let pats: Vec<Pat> = page.tokens.into_iter().map(Pat::of).collect();
    let (offset, limit) = (query.offset, query.limit);
    let page = json!({ "total": page.total, "offset": offset, "limit": limit, "pats": pats });
    Ok(Json(page).into_response())
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct NewPat {
    name: String,
    #[serde(default)]
    description: String,
    duration: Option<String>,
    expires_at: Option<String>,
    #[serde(default)]
    scopes: Vec<ScopeInput>,
}

pub(super) async fn create(
    State(site): State<Arc<Site>>,
    ApiCaller(caller): ApiCaller,
    headers: HeaderMap,
    Body(new): Body<NewPat>,
) -> Result<Response, Problem> {
    let new = NewOwnToken {
        name: read("name", &new.name)?,
        description: read("description", &new.description)?,
        expiry: expiry(new.duration.as_deref(), new.expires_at.as_deref())?,
        scopes: new.scopes.into_iter().map(ScopeInput::read).collect::<Result<_, _>>()?,
        idempotency_key: idempotency_key(&headers)?,
    };
    match done(site.service.create_token(&caller, &new).await?) {
        Creation::Created { plain, token } => {
            let location = HeaderValue::try_from(format!("/api/pats/{}", token.id));
            let mut response = Pat::with(token, &plain).answer(StatusCode::CREATED);
            if let Ok(location) = location {
                response.headers_mut().insert(LOCATION, location);
            }
            Ok(response)
        }
        Creation::Repeated { token: Some(token), .. } => {
            let mut response = Pat::of(token).answer(StatusCode::OK);
            let repeated = HeaderName::from_static("idempotency-replayed");
            response.headers_mut().insert(repeated, HeaderValue::from_static("true"));
            Ok(response)
        }
        Creation::Repeated { token: None, .. } => {
            let detail = "this request had created a token, which was deleted; use a new \
                          `idempotency-key` to create another one";
            Err(Problem::new(StatusCode::GONE, "deleted", "Deleted meanwhile", detail))
        }
    }
}

pub(super) async fn show(
    State(site): State<Arc<Site>>,
    ApiCaller(caller): ApiCaller,
    PatId(id): PatId,
) -> Result<Response, Problem> {
    Ok(Pat::of(site.service.token(&caller, id).await?).answer(StatusCode::OK))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct NewName {
    name: String,
}

pub(super) async fn rename(
    State(site): State<Arc<Site>>,
    ApiCaller(caller): ApiCaller,
    PatId(id): PatId,
    headers: HeaderMap,
    Body(new): Body<NewName>,
) -> Result<Response, Problem> {
    let version = expected_version(&headers)?;
    let name = read("name", &new.name)?;
    let changed =
        site.service.update_token(&caller, id, version.as_deref(), Some(&name), None).await?;
    Ok(Pat::of(done(changed)).answer(StatusCode::OK))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct NewDescription {
    description: String,
}

pub(super) async fn describe(
    State(site): State<Arc<Site>>,
    ApiCaller(caller): ApiCaller,
    PatId(id): PatId,
    headers: HeaderMap,
    Body(new): Body<NewDescription>,
) -> Result<Response, Problem> {
    let version = expected_version(&headers)?;
    let text = read("description", &new.description)?;
    let changed =
        site.service.update_token(&caller, id, version.as_deref(), None, Some(&text)).await?;
    Ok(Pat::of(done(changed)).answer(StatusCode::OK))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct NewSecret {
    duration: Option<String>,
    expires_at: Option<String>,
}

pub(super) async fn reset(
    State(site): State<Arc<Site>>,
    ApiCaller(caller): ApiCaller,
    PatId(id): PatId,
    headers: HeaderMap,
    Body(new): Body<NewSecret>,
) -> Result<Response, Problem> {
    let version = expected_version(&headers)?;
    let expiry = expiry(new.duration.as_deref(), new.expires_at.as_deref())?;
    let changed = site.service.reset_token(&caller, id, version.as_deref(), expiry).await?;
    let (plain, token) = done(changed);
    Ok(Pat::with(token, &plain).answer(StatusCode::OK))
}

pub(super) async fn revoke(
    State(site): State<Arc<Site>>,
    ApiCaller(caller): ApiCaller,
    PatId(id): PatId,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    // Whoever revokes a token means it, in whatever state it is.
    if expected_version(&headers)?.is_some() {
        return Err(Problem::invalid(
            "a revocation takes no `if-match`: it holds for every version",
        ));
    }
    let revoked = done(site.service.revoke_token(&caller, id).await?);
    Ok(Pat::of(revoked).answer(StatusCode::OK))
}

pub(super) async fn delete(
    State(site): State<Arc<Site>>,
    ApiCaller(caller): ApiCaller,
    PatId(id): PatId,
    headers: HeaderMap,
) -> Result<StatusCode, Problem> {
    let version = expected_version(&headers)?;
    done(site.service.delete_token(&caller, id, version.as_deref()).await?);
    Ok(StatusCode::NO_CONTENT)
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct ScopesQuery {
    #[serde(default)]
    offset: usize,
    limit: Option<usize>,
}

/// A part of the scopes of a token.
#[derive(Serialize)]
pub(super) struct ScopePage {
    total: usize,
    offset: usize,
    limit: usize,
    scopes: Vec<OwnScope>,
}

pub(super) async fn scopes(
    State(site): State<Arc<Site>>,
    ApiCaller(caller): ApiCaller,
    PatId(id): PatId,
    Parameters(query): Parameters<ScopesQuery>,
) -> Result<Json<ScopePage>, Problem> {
    let all = site.service.token(&caller, id).await?.scopes;
    let (total, offset) = (all.len(), query.offset);
    let limit = query.limit.unwrap_or(MOST as usize);
    let scopes = all.into_iter().skip(offset).take(limit).collect();
    Ok(Json(ScopePage { total, offset, limit, scopes }))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct MoreScopes {
    scopes: Vec<ScopeInput>,
}

pub(super) async fn add_scopes(
    State(site): State<Arc<Site>>,
    ApiCaller(caller): ApiCaller,
    PatId(id): PatId,
    headers: HeaderMap,
    Body(more): Body<MoreScopes>,
) -> Result<Response, Problem> {
    let version = expected_version(&headers)?;
    let scopes: Vec<_> = more.scopes.into_iter().map(ScopeInput::read).collect::<Result<_, _>>()?;
    let changed = site.service.add_scopes(&caller, id, version.as_deref(), &scopes).await?;
    Ok(Pat::of(done(changed)).answer(StatusCode::OK))
}

/// By their ids, as SuperMQ has it, or by what they are.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct FewerScopes {
    #[serde(default)]
    scopes_id: Vec<Uuid>,
    #[serde(default)]
    scopes: Vec<ScopeInput>,
}

pub(super) async fn remove_scopes(
    State(site): State<Arc<Site>>,
    ApiCaller(caller): ApiCaller,
    PatId(id): PatId,
    headers: HeaderMap,
    Body(fewer): Body<FewerScopes>,
) -> Result<Response, Problem> {
    let version = expected_version(&headers)?;
    let removal = match (fewer.scopes_id.is_empty(), fewer.scopes.is_empty()) {
        (false, true) => ScopeRemoval::Ids(fewer.scopes_id),
        (true, false) => ScopeRemoval::Scopes(
            fewer.scopes.into_iter().map(ScopeInput::read).collect::<Result<_, _>>()?,
        ),
        _ => return Err(Problem::invalid("either `scopes_id` or `scopes` must name some")),
    };
    let changed = site.service.remove_scopes(&caller, id, version.as_deref(), &removal).await?;
    Ok(Pat::of(done(changed)).answer(StatusCode::OK))
}

pub(super) async fn clear_scopes(
    State(site): State<Arc<Site>>,
    ApiCaller(caller): ApiCaller,
    PatId(id): PatId,
    headers: HeaderMap,
) -> Result<StatusCode, Problem> {
    let version = expected_version(&headers)?;
    let removal = ScopeRemoval::All;
    done(site.service.remove_scopes(&caller, id, version.as_deref(), &removal).await?);
    Ok(StatusCode::NO_CONTENT)
}

fn read<T: std::str::FromStr<Err: std::fmt::Display>>(
    member: &str,
    text: &str,
) -> Result<T, Problem> {
    text.parse().map_err(|error| Problem::invalid(format!("`{member}`: {error}")))
}
