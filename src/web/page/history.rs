//! The audit log: what concerns the visitor and their tokens, for auditors of a domain what concerns
//! it, and for administrators all of it.

use std::sync::Arc;

use axum::{extract::State, http::StatusCode, response::Response};
use maud::{Markup, html};
use serde::Deserialize;
use serde_json::Value;
use uuid::Uuid;

use super::{
    Fault,
    domain::reference,
    form::{Field, hidden},
    input::{Asked, Visitor},
    layout::{Frame, answer, page},
    time::{count, moment},
};
use crate::{
    admin::web::{History, HistoryEntry},
    web::Site,
};

const AT_ONCE: u32 = 50;

/// What the address says. What is malformed does not restrict.
#[derive(Default, Deserialize)]
#[serde(default)]
pub(super) struct Search {
    actor: String,
    action: String,
    object: String,
    domain: String,
    before: String,
}

pub(super) async fn own(
    State(site): State<Arc<Site>>,
    visitor: Visitor,
    Asked(search): Asked<Search>,
) -> Result<Response, Fault> {
    list(&site, &visitor, &search, false).await
}

pub(super) async fn all(
    State(site): State<Arc<Site>>,
    visitor: Visitor,
    Asked(search): Asked<Search>,
) -> Result<Response, Fault> {
    list(&site, &visitor, &search, true).await
}

async fn list(
    site: &Site,
    visitor: &Visitor,
    search: &Search,
    everything: bool,
) -> Result<Response, Fault> {
    let given = |text: &str| Some(text.trim().to_owned()).filter(|text| !text.is_empty());
    let domain = match search.domain.trim() {
        "" => None,
        text => Some(reference(text)?),
    };
    let wanted = History {
        everything,
        domain,
        actor: given(&search.actor),
        action: given(&search.action),
        object: given(&search.object),
        before: search.before.parse().ok(),
        limit: AT_ONCE,
    };
    let lines = site.service.history(&visitor.caller, &wanted).await?;
    Ok(answer(StatusCode::OK, render(visitor, search, &lines, everything)))
}

fn render(visitor: &Visitor, search: &Search, lines: &[HistoryEntry], everything: bool) -> Markup {
    let (title, path) = if everything { ("Audit log", "/audit") } else { ("History", "/history") };
    let fields = [
        ("actor", &search.actor),
        ("action", &search.action),
        ("object", &search.object),
        ("domain", &search.domain),
    ];
    let of_a_domain = !search.domain.is_empty();
    let content = html! {
        h1 { (title) }
        @if of_a_domain {
            p { "What was done to the domain " (search.domain) ", its roles and the tokens for it." }
        } @else if !everything {
            p { "What was done to your account and your tokens, and by whom." }
        }
        search {
            form.search method="get" action=(path) {
                @if of_a_domain { (hidden("domain", &search.domain)) }
                @if everything {
                    (Field::new("actor", "Actor, such as web:ada@example.com").value(&search.actor).optional())
                    (Field::new("object", "Object, by id").value(&search.object).optional())
                }
                (Field::new("action", "Action: token, or token.revoke").value(&search.action).optional())
                button.plain { "Search" }
            }
        }
        @if lines.is_empty() {
            p { "There is nothing to show." }
        } @else {
            table role="table" {
                caption { (count(lines.len(), "line")) ", the newest first" }
                thead role="rowgroup" { tr role="row" {
                    @for head in ["When", "What", "Actor", "Object", "From", "Details"] {
                        th role="columnheader" scope="col" { (head) }
                    }
                } }
                tbody role="rowgroup" { @for line in lines { (row(line)) } }
            }
        }
        @if let Some(last) = lines.last().filter(|_| lines.len() >= AT_ONCE as usize) {
            nav.pages aria-label="Pages" {
                form method="get" action=(path) {
                    @for (name, value) in fields {
                        @if !value.is_empty() { (hidden(name, value)) }
                    }
                    (hidden("before", &last.id.to_string()))
                    button.plain { "Older" }
                }
            }
        }
    };
    page(title, Frame::Of(visitor), &content)
}

fn row(line: &HistoryEntry) -> Markup {
    html! { tr role="row" {
        th role="rowheader" scope="row" { (moment(&line.at)) }
        td.word role="cell" data-label="What" { (line.action) }
        td role="cell" data-label="Actor" { (line.actor) }
        td role="cell" data-label="Object" { (object(line)) }
        td role="cell" data-label="From" {
            @match &line.address { Some(address) => (address), None => "–" }
        }
        td role="cell" data-label="Details" { (details(&line.details)) }
    } }
}

/// A token by its name, with a link; others as the log has them.
fn object(line: &HistoryEntry) -> Markup {
    let name = line.details["name"].as_str().unwrap_or(&line.object);
    let is_token = line.action.starts_with("token.") && line.object.parse::<Uuid>().is_ok();
    html! {
        @if is_token { a href={ "/tokens/" (line.object) } { (name) } } @else { (line.object) }
    }
}

fn details(details: &Value) -> Markup {
    let Value::Object(details) = details else { return html! { (details) } };
    html! {
        @for (at, (name, value)) in details.iter().enumerate() {
            @if at > 0 { ", " }
            (name) ": "
            @match value { Value::String(text) => (text), other => (other) }
        }
    }
}
