//! The caller's Personal Access Tokens, under the names that SuperMQ's clients know.

use std::sync::Arc;

use axum::{
    Json,
    extract::FromRequestParts,
    http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header::ETAG, request::Parts},
    response::{IntoResponse, Response},
};
use serde::{Deserialize, Serialize};
use utoipa::{
    IntoParams, ToSchema,
    openapi::path::{Parameter, ParameterIn},
};
use uuid::Uuid;

use super::{
    created, done, forms,
    input::{
        Body, IdempotencyKey, IfMatch, Named, Parameters, Part, Signed, expiry, parsed, read, some,
    },
    scopes::ScopeInput,
};
use crate::{
    admin::{
        Outcome, TokenStatus,
        web::{
            Caller, Creation, NewOwnToken, OwnScope, OwnToken, ScopeRemoval, TokenQuery, TokenState,
        },
    },
    token::{PlainToken, TokenId},
    web::{Site, problem::Problem},
};

/// The token that the path names.
#[derive(Deserialize, IntoParams)]
#[into_params(parameter_in = Path)]
pub(super) struct OfPat {
    #[serde(deserialize_with = "parsed")]
    id: Uuid,
}

/// A request to change a token, and the version that it must have.
pub(super) struct OnPat {
    site: Arc<Site>,
    caller: Caller,
    id: TokenId,
    version: Option<String>,
}

impl FromRequestParts<Arc<Site>> for OnPat {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, site: &Arc<Site>) -> Result<Self, Problem> {
        let Signed { site, caller } = Signed::from_request_parts(parts, site).await?;
        let Named(OfPat { id }) = Named::from_request_parts(parts, &site).await?;
        let version = IfMatch::read(&parts.headers)?.version;
        Ok(Self { site, caller, id: TokenId(id), version })
    }
}

/// The token, and the header that holds its version.
impl IntoParams for OnPat {
    fn into_params(_: impl Fn() -> Option<ParameterIn>) -> Vec<Parameter> {
        let version = IfMatch::into_params(|| Some(ParameterIn::Header));
        [OfPat::into_params(|| Some(ParameterIn::Path)), version].concat()
    }
}

/// A token, as a client sees it.
#[derive(Serialize, ToSchema)]
pub(super) struct Pat {
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

    /// The token as a change has left it.
    fn changed(outcome: Outcome<OwnToken>) -> Self {
        Self::of(done(outcome))
    }
}

impl IntoResponse for Pat {
    fn into_response(self) -> Response {
        let tag = HeaderValue::try_from(format!("\"{}\"", self.token.version));
        let mut response = Json(self).into_response();
        if let Ok(tag) = tag {
            response.headers_mut().insert(ETAG, tag);
        }
        response
    }
}

#[derive(Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
pub(super) struct ListQuery {
    #[serde(default)]
    #[param(maximum = 4294967295_u32)]
    offset: u32,
    #[param(minimum = 1, maximum = 1000)]
    limit: Option<u32>,
    name: Option<String>,
    #[param(value_type = Option<forms::PatStatus>, inline)]
    status: Option<String>,
    /// The tokens of all users, for platform administrators.
    #[serde(default)]
    of_all_users: bool,
}

impl ListQuery {
    fn read(self) -> Result<TokenQuery, Problem> {
        let Part { offset, limit } = Part::read(self.offset, self.limit)?;
        let state = match self.status.as_deref() {
            None | Some("all") => None,
            // As SuperMQ has it.
            Some("active" | "enabled") => Some(TokenState::Live),
            Some(word) => {
                let read = word.parse();
                Some(read.map_err(|error| Problem::invalid(format!("`status`: {error}")))?)
            }
        };
        let Self { of_all_users, name, .. } = self;
        Ok(TokenQuery { of_all_users, name, state, offset, limit })
    }
}

/// A part of a list of tokens.
#[derive(Serialize, ToSchema)]
pub(super) struct PatPage {
    total: u64,
    offset: u32,
    limit: u32,
    pats: Vec<Pat>,
}

/// Lists the caller's tokens, by name.
#[utoipa::path(
    get, path = "/pats", tag = "pats", params(ListQuery),
    responses((status = OK, body = PatPage), (status = FORBIDDEN))
)]
pub(super) async fn list(
    Signed { site, caller }: Signed,
    Parameters(query): Parameters<ListQuery>,
) -> Result<Json<PatPage>, Problem> {
    let query = query.read()?;
    let page = site.service.tokens(&caller, &query).await?;
    let pats = page.tokens.into_iter().map(Pat::of).collect();
    let TokenQuery { offset, limit, .. } = query;
    Ok(Json(PatPage { total: page.total, offset, limit, pats }))
}

#[derive(Deserialize, ToSchema)]
#[schema(example = json!({
    "name": "laptop", "duration": "720h", "scopes": [{
        "domain": "acme", "entity_type": "models", "entity_id": "*", "operation": "llm_read"
    }]
}))]
#[serde(deny_unknown_fields)]
pub(super) struct NewPat {
    #[schema(value_type = forms::TokenName)]
    name: String,
    #[serde(default)]
    #[schema(value_type = forms::Description)]
    description: String,
    #[schema(value_type = Option<forms::Lifetime>)]
    duration: Option<String>,
    #[schema(value_type = Option<forms::Moment>)]
    expires_at: Option<String>,
    #[serde(default)]
    #[schema(max_items = 500)]
    scopes: Vec<ScopeInput>,
}

/// Creates a token. Its `secret` is shown only here.
#[utoipa::path(
    post, path = "/pats", tag = "pats", params(IdempotencyKey), request_body = NewPat,
    responses(
        (status = CREATED, body = Pat),
        (status = OK, body = Pat, description = "The same request had created it; without its secret"),
        (status = GONE), (status = UNPROCESSABLE_ENTITY),
    )
)]
pub(super) async fn create(
    Signed { site, caller }: Signed,
    headers: HeaderMap,
    Body(new): Body<NewPat>,
) -> Result<Response, Problem> {
    let new = NewOwnToken {
        name: read("name", &new.name)?,
        description: read("description", &new.description)?,
        expiry: expiry(new.duration.as_deref(), new.expires_at.as_deref())?,
        scopes: new.scopes.into_iter().map(ScopeInput::read).collect::<Result<_, _>>()?,
        idempotency_key: IdempotencyKey::read(&headers)?.key,
    };
    match done(site.service.create_token(&caller, &new).await?) {
        Creation::Created { plain, token } => {
            let id = token.id.to_string();
            Ok(created(&["pats", &id], Pat::with(token, &plain)))
        }
        Creation::Repeated { token: Some(token), .. } => {
            let mut response = Pat::of(token).into_response();
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

/// Shows a token.
#[utoipa::path(
    get, path = "/pats/{id}", tag = "pats", params(OfPat), responses((status = OK, body = Pat))
)]
pub(super) async fn show(
    Signed { site, caller }: Signed,
    Named(OfPat { id }): Named<OfPat>,
) -> Result<Pat, Problem> {
    Ok(Pat::of(site.service.token(&caller, TokenId(id)).await?))
}

#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct NewName {
    #[schema(value_type = forms::TokenName)]
    name: String,
}

/// Renames a token.
#[utoipa::path(
    patch, path = "/pats/{id}/name", tag = "pats", params(OnPat), request_body = NewName,
    responses((status = OK, body = Pat))
)]
pub(super) async fn rename(
    OnPat { site, caller, id, version }: OnPat,
    Body(new): Body<NewName>,
) -> Result<Pat, Problem> {
    let name = read("name", &new.name)?;
    let changed =
        site.service.update_token(&caller, id, version.as_deref(), Some(&name), None).await?;
    Ok(Pat::changed(changed))
}

#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct NewDescription {
    #[schema(value_type = forms::Description)]
    description: String,
}

/// Describes a token.
#[utoipa::path(
    patch, path = "/pats/{id}/description", tag = "pats", params(OnPat),
    request_body = NewDescription, responses((status = OK, body = Pat))
)]
pub(super) async fn describe(
    OnPat { site, caller, id, version }: OnPat,
    Body(new): Body<NewDescription>,
) -> Result<Pat, Problem> {
    let text = read("description", &new.description)?;
    let changed =
        site.service.update_token(&caller, id, version.as_deref(), None, Some(&text)).await?;
    Ok(Pat::changed(changed))
}

#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct NewSecret {
    #[schema(value_type = Option<forms::Lifetime>)]
    duration: Option<String>,
    #[schema(value_type = Option<forms::Moment>)]
    expires_at: Option<String>,
}

/// Gives a token a new secret. The old one stops working.
#[utoipa::path(
    patch, path = "/pats/{id}/secret/reset", tag = "pats", params(OnPat), request_body = NewSecret,
    responses((status = OK, body = Pat), (status = UNPROCESSABLE_ENTITY))
)]
pub(super) async fn reset(
    OnPat { site, caller, id, version }: OnPat,
    Body(new): Body<NewSecret>,
) -> Result<Pat, Problem> {
    let expiry = expiry(new.duration.as_deref(), new.expires_at.as_deref())?;
    let changed = site.service.reset_token(&caller, id, version.as_deref(), expiry).await?;
    let (plain, token) = done(changed);
    Ok(Pat::with(token, &plain))
}

/// Revokes a token for good, at every version.
#[utoipa::path(
    patch, path = "/pats/{id}/secret/revoke", tag = "pats", params(OfPat),
    responses((status = OK, body = Pat))
)]
pub(super) async fn revoke(OnPat { site, caller, id, version }: OnPat) -> Result<Pat, Problem> {
    // Whoever revokes a token means it, in whatever state it is.
    if version.is_some() {
        return Err(Problem::invalid(
            "a revocation takes no `if-match`: it holds for every version",
        ));
    }
    Ok(Pat::changed(site.service.revoke_token(&caller, id).await?))
}

/// Deletes a token with its scopes.
#[utoipa::path(
    delete, path = "/pats/{id}", tag = "pats", params(OnPat), responses((status = NO_CONTENT))
)]
pub(super) async fn delete(
    OnPat { site, caller, id, version }: OnPat,
) -> Result<StatusCode, Problem> {
    done(site.service.delete_token(&caller, id, version.as_deref()).await?);
    Ok(StatusCode::NO_CONTENT)
}

#[derive(Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
pub(super) struct ScopesQuery {
    #[serde(default)]
    #[param(maximum = 4294967295_u32)]
    offset: u32,
    /// A token has 500 at most, so without a limit the answer has all.
    #[param(minimum = 1, maximum = 1000)]
    limit: Option<u32>,
}

/// A part of the scopes of a token.
#[derive(Serialize, ToSchema)]
pub(super) struct ScopePage {
    total: usize,
    offset: u32,
    limit: u32,
    scopes: Vec<OwnScope>,
}

/// Lists the scopes of a token.
#[utoipa::path(
    get, path = "/pats/{id}/scope", tag = "pats", params(OfPat, ScopesQuery),
    responses((status = OK, body = ScopePage))
)]
pub(super) async fn scopes(
    Signed { site, caller }: Signed,
    Named(OfPat { id }): Named<OfPat>,
    Parameters(query): Parameters<ScopesQuery>,
) -> Result<Json<ScopePage>, Problem> {
    let part = Part::read(query.offset, query.limit.or(Some(Part::MOST)))?;
    let (total, scopes) = part.of(site.service.token(&caller, TokenId(id)).await?.scopes);
    let Part { offset, limit } = part;
    Ok(Json(ScopePage { total, offset, limit, scopes }))
}

#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct MoreScopes {
    #[serde(deserialize_with = "some")]
    #[schema(min_items = 1, max_items = 500)]
    scopes: Vec<ScopeInput>,
}

/// Adds scopes to a token.
#[utoipa::path(
    patch, path = "/pats/{id}/scope/add", tag = "pats", params(OnPat), request_body = MoreScopes,
    responses((status = OK, body = Pat))
)]
pub(super) async fn add_scopes(
    OnPat { site, caller, id, version }: OnPat,
    Body(more): Body<MoreScopes>,
) -> Result<Pat, Problem> {
    let scopes: Vec<_> = more.scopes.into_iter().map(ScopeInput::read).collect::<Result<_, _>>()?;
    let changed = site.service.add_scopes(&caller, id, version.as_deref(), &scopes).await?;
    Ok(Pat::changed(changed))
}

/// By their ids, as SuperMQ has it, or by what they are.
#[derive(Deserialize, ToSchema)]
#[schema(min_properties = 1, max_properties = 1)]
#[serde(deny_unknown_fields)]
pub(super) struct FewerScopes {
    #[serde(default, deserialize_with = "some")]
    #[schema(min_items = 1)]
    scopes_id: Vec<Uuid>,
    #[serde(default, deserialize_with = "some")]
    #[schema(min_items = 1)]
    scopes: Vec<ScopeInput>,
}

/// Removes scopes from a token, all of them or none.
#[utoipa::path(
    patch, path = "/pats/{id}/scope/remove", tag = "pats", params(OnPat),
    request_body = FewerScopes, responses((status = OK, body = Pat))
)]
pub(super) async fn remove_scopes(
    OnPat { site, caller, id, version }: OnPat,
    Body(fewer): Body<FewerScopes>,
) -> Result<Pat, Problem> {
    let removal = match (fewer.scopes_id.is_empty(), fewer.scopes.is_empty()) {
        (false, true) => ScopeRemoval::Ids(fewer.scopes_id),
        (true, false) => ScopeRemoval::Scopes(
            fewer.scopes.into_iter().map(ScopeInput::read).collect::<Result<_, _>>()?,
        ),
        _ => return Err(Problem::invalid("either `scopes_id` or `scopes` must name some")),
    };
    let changed = site.service.remove_scopes(&caller, id, version.as_deref(), &removal).await?;
    Ok(Pat::changed(changed))
}

/// Removes all scopes from a token.
#[utoipa::path(
    delete, path = "/pats/{id}/scope", tag = "pats", params(OnPat),
    responses((status = NO_CONTENT))
)]
pub(super) async fn clear_scopes(
    OnPat { site, caller, id, version }: OnPat,
) -> Result<StatusCode, Problem> {
    let removal = ScopeRemoval::All;
    done(site.service.remove_scopes(&caller, id, version.as_deref(), &removal).await?);
    Ok(StatusCode::NO_CONTENT)
}
