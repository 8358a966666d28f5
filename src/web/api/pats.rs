//! The caller's Personal Access Tokens.

use std::sync::Arc;

use axum::{Json, extract::State};

use crate::{
    admin::web::{TokenPage, TokenQuery},
    web::{Site, problem::Problem, visit::ApiCaller},
};

pub(super) async fn list(
    State(site): State<Arc<Site>>,
    ApiCaller(caller): ApiCaller,
) -> Result<Json<TokenPage>, Problem> {
    let query = TokenQuery { of_all_users: false, name: None, state: None, offset: 0, limit: 100 };
    Ok(Json(site.service.tokens(&caller, &query).await?))
}
