//! Pages for people. Each form is sent to the server, and each answer is a whole page, so a browser
//! without JavaScript can do everything but copy.

mod account;
mod administration;
mod assets;
mod domain;
mod ending;
mod example;
mod fault;
mod fleet;
mod form;
mod history;
mod input;
mod layout;
mod new_token;
mod notice;
mod scopes;
mod secret;
mod sign_in;
mod sure;
mod time;
mod token;
mod tokens;
mod users;
mod why;

use std::sync::Arc;

use axum::{
    Router, middleware,
    response::Redirect,
    routing::{get, post},
};

pub(super) use self::{fault::Fault, sign_in::signed_in_elsewhere};
use super::Site;

/// Where a visitor with a session begins.
const HOME: &str = "/tokens";
const SIGN_IN: &str = "/sign-in";

pub(super) fn routes() -> Router<Arc<Site>> {
    Router::new()
        .route("/", get(async || Redirect::to(HOME)))
        .route("/assets/{name}", get(assets::serve))
        .route(SIGN_IN, get(sign_in::show).post(sign_in::begin))
        .route("/sign-out", post(sign_in::end))
        .route("/invitation", get(sign_in::invited).post(sign_in::accept))
        .route("/account", get(account::show))
        .route("/account/password", post(account::change_password))
        .route("/account/sessions/end", post(account::end_session))
        .route("/account/sign-out-everywhere", post(account::end_all))
        .route("/confirm", get(account::confirm).post(account::elevate))
        .route("/confirm/end", post(account::lower))
        .route(HOME, get(tokens::list))
        .route("/tokens/new", get(new_token::show).post(new_token::create))
        .route("/tokens/{id}", get(token::show).post(token::edit))
        .route("/tokens/{id}/scopes", post(token::add_scope))
        .route("/tokens/{id}/scopes/remove", post(token::remove_scope))
        .route("/tokens/{id}/why", get(why::show))
        .route("/tokens/{id}/{ending}", get(ending::confirm).post(ending::end))
        .route("/history", get(history::own))
        .route("/audit", get(history::all))
        .route("/domains", get(administration::domains).post(administration::create_domain))
        .route("/domains/{domain}", get(domain::show))
        .route("/domains/{domain}/{change}", post(domain::change))
        .route("/backends", get(administration::backends).post(administration::change_backend))
        .route("/replicas", get(fleet::show))
        .route("/users", get(users::list).post(users::change))
        .layer(middleware::from_fn(account::lead_back))
}
