//! The list of tokens: the visitor's own, or, for administrators, everybody's.

use std::sync::Arc;

use axum::{extract::State, http::StatusCode, response::Response};
use maud::{Markup, html};
use serde::Deserialize;

use super::{
    Fault,
    form::{Field, Select, hidden},
    input::{Asked, Visitor},
    layout::{Frame, answer, page},
    notice::Notice,
    scopes::in_words,
    time::distance,
};
use crate::{
    admin::{
        TokenStatus,
        web::{OwnToken, TokenPage, TokenQuery, TokenState},
    },
    token::TokenId,
    web::Site,
};

/// The tokens on one page, and the scopes that are shown of each.
const AT_ONCE: u32 = 25;
const SCOPES_SHOWN: usize = 3;

/// What the address of the list says. What is malformed does not restrict.
#[derive(Default, Deserialize)]
#[serde(default)]
pub(super) struct Search {
    name: String,
    status: String,
    all: String,
    page: String,
}

impl Search {
    fn of_all_users(&self) -> bool {
        self.all == "yes"
    }

    fn number(&self) -> u32 {
        self.page.parse().unwrap_or(1).clamp(1, 100_000)
    }
}

pub(super) async fn list(
    State(site): State<Arc<Site>>,
    visitor: Visitor,
    Asked(search): Asked<Search>,
    Asked(notice): Asked<Notice>,
) -> Result<Response, Fault> {
    let name = search.name.trim();
    let query = TokenQuery {
        of_all_users: search.of_all_users(),
        name: (!name.is_empty()).then(|| name.to_owned()),
        state: search.status.parse().ok(),
        offset: (search.number() - 1) * AT_ONCE,
        limit: AT_ONCE,
    };
    let found = site.service.tokens(&visitor.caller, &query).await?;
    let begins = |token: &OwnToken| site.service.token_beginning(TokenId(token.id));
    Ok(answer(StatusCode::OK, render(&visitor, &search, &notice, &found, &begins)))
}

fn render(
    visitor: &Visitor,
    search: &Search,
    notice: &Notice,
    found: &TokenPage,
    begins: &impl Fn(&OwnToken) -> String,
) -> Markup {
    let all = search.of_all_users();
    let title = if all { "All tokens" } else { "Your tokens" };
    let pages = found.total.div_ceil(u64::from(AT_ONCE)).max(1);
    let number = search.number();
    let states =
        TokenState::ALL.iter().map(|state| (state.as_str().to_owned(), spaced(state.as_str())));
    let state = Select {
        name: "status",
        label: "Status",
        options: [(String::new(), "all".to_owned())].into_iter().chain(states).collect(),
        chosen: &search.status,
        mistake: None,
    };
    let content = html! {
        (notice.render())
        div.title { h1 { (title) } a.button href="/tokens/new" { "New token" } }
        search {
            form.search method="get" action="/tokens" {
                @if all { (hidden("all", "yes")) }
                (Field::new("name", "Name contains").value(&search.name).optional())
                (state)
                button.plain { "Search" }
            }
        }
        @if found.tokens.is_empty() {
            p {
                @if all || !search.name.is_empty() || !search.status.is_empty() || number > 1 {
                    "There is no such token."
                } @else { "You have no tokens yet. " a href="/tokens/new" { "Create one" } "." }
            }
        } @else {
            table role="table" {
                caption { (found.total) " in all, page " (number) " of " (pages) }
                thead role="rowgroup" { tr role="row" {
                    th role="columnheader" scope="col" { "Name" }
                    @if all { th role="columnheader" scope="col" { "Owner" } }
                    @for head in ["Status", "May", "Expires", "Last used", "Begins with"] {
                        th role="columnheader" scope="col" { (head) }
                    }
                } }
                tbody role="rowgroup" { @for token in &found.tokens { (row(token, all, &begins(token))) } }
            }
        }
        nav.pages aria-label="Pages" {
            @if number > 1 { (step(search, "prev", number - 1, "Previous page")) }
            @if u64::from(number) < pages { (step(search, "next", number + 1, "Next page")) }
        }
    };
    page(title, Frame::Of(visitor), &content)
}

fn row(token: &OwnToken, with_owner: bool, begins: &str) -> Markup {
    html! { tr role="row" {
        th role="rowheader" scope="row" { a href={ "/tokens/" (token.id) } { (token.name) } }
        @if with_owner { td role="cell" data-label="Owner" { (token.owner) } }
        td role="cell" data-label="Status" { (status(token.status)) }
        td role="cell" data-label="May" { (scopes(token)) }
        td role="cell" data-label="Expires" { (expires(token)) }
        td role="cell" data-label="Last used" { (last_used(token)) }
        td role="cell" data-label="Begins with" { code { (begins) } }
    } }
}

fn scopes(token: &OwnToken) -> Markup {
    // A list has not all scopes of a token.
    let more = token.scopes_total.saturating_sub(SCOPES_SHOWN as u64);
    html! {
        @if token.scopes.is_empty() { "nothing" }
        @for (at, scope) in token.scopes.iter().take(SCOPES_SHOWN).enumerate() {
            @if at > 0 { "; " }
            (in_words(scope))
        }
        @if more > 0 { "; and " (more) " more" }
        @if !token.scopes.is_empty() && token.scopes.iter().all(|scope| !scope.permitted) {
            " – in all, nothing"
        }
    }
}

/// When a token ends, or has ended.
fn expires(token: &OwnToken) -> Markup {
    match &token.revoked_at {
        Some(at) => html! { "revoked " (distance(at)) },
        None => distance(&token.expires_at),
    }
}

pub(super) fn status(status: TokenStatus) -> Markup {
    html! { span class={ "status " (status.as_str()) } { (spaced(status.as_str())) } }
}

pub(super) fn last_used(token: &OwnToken) -> Markup {
    match &token.last_used_at {
        Some(at) => distance(at),
        None => html! { "never" },
    }
}

fn spaced(word: &str) -> String {
    word.replace('_', " ")
}

/// A link to another page of the same list. As a form, it needs no code that escapes what it holds.
fn step(search: &Search, rel: &str, number: u32, label: &str) -> Markup {
    html! {
        form method="get" action="/tokens" data-rel=(rel) {
            @if search.of_all_users() { (hidden("all", "yes")) }
            @for (name, value) in [("name", &search.name), ("status", &search.status)] {
                @if !value.is_empty() { (hidden(name, value)) }
            }
            (hidden("page", &number.to_string()))
            button.plain { (label) }
        }
    }
}
