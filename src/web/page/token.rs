//! One token: what it is, and what its owner changes about it.

use std::sync::Arc;

use axum::{
    extract::{Path, State},
    http::StatusCode,
    response::Response,
};
use maud::{Markup, html};

use super::{
    Fault,
    form::{Field, Mistake, form_to, hidden, named_button_to, summary},
    input::{Asked, SentForm, Visitor, token_id},
    layout::{Frame, answer, page},
    notice::{Done, Notice},
    scopes::{ROWS, Row, in_words, rows},
    time::{distance, moment},
    tokens::{last_used, status},
};
use crate::{
    admin::{
        Description, TokenName, TokenStatus,
        web::{Error, GrantableDomain, OwnToken, ScopeRemoval},
    },
    token::TokenId,
    web::Site,
};

pub(super) async fn show(
    State(site): State<Arc<Site>>,
    Path(id): Path<String>,
    visitor: Visitor,
    Asked(notice): Asked<Notice>,
) -> Result<Response, Fault> {
    details(&site, &visitor, token_id(&id)?, &notice, None).await
}

pub(super) async fn edit(
    State(site): State<Arc<Site>>,
    Path(id): Path<String>,
    SentForm { visitor, fields }: SentForm,
) -> Result<Response, Fault> {
    let id = token_id(&id)?;
    let name = fields.get("name").parse::<TokenName>();
    let description = fields.get("description").parse::<Description>();
    let read = name
        .map_err(|error| Mistake::at("name", &error))
        .and_then(|name| Ok((name, description.map_err(|e| Mistake::at("description", &e))?)));
    let changed = match read {
        Ok((name, description)) => {
            let (name, description) = (Some(&name), Some(&description));
            let caller = &visitor.caller;
            let changed =
                site.service.update_token(caller, id, fields.version(), name, description).await;
            changed.map(drop).map_err(|error| {
                let field = matches!(error, Error::Exists(_)).then_some("name");
                Mistake::of(error, field)
            })
        }
        Err(mistake) => Err(Ok(mistake)),
    };
    finish(&site, &visitor, id, changed).await
}

pub(super) async fn add_scope(
    State(site): State<Arc<Site>>,
    Path(id): Path<String>,
    SentForm { visitor, fields }: SentForm,
) -> Result<Response, Fault> {
    let id = token_id(&id)?;
    let changed = match Row::scopes(&Row::read(&fields)) {
        Ok(scopes) => {
            let added =
                site.service.add_scopes(&visitor.caller, id, fields.version(), &scopes).await;
            added.map(drop).map_err(|error| Mistake::of(error, Some(ROWS)))
        }
        Err(mistake) => Err(Ok(mistake)),
    };
    finish(&site, &visitor, id, changed).await
}

pub(super) async fn remove_scope(
    State(site): State<Arc<Site>>,
    Path(id): Path<String>,
    SentForm { visitor, fields }: SentForm,
) -> Result<Response, Fault> {
    let id = token_id(&id)?;
    let scope = fields.get("scope").parse();
    let scope = scope.map_err(|_| Error::NotFound("there is no such scope".to_owned()))?;
    let removal = ScopeRemoval::Ids(vec![scope]);
    let version = fields.version();
    let removed = site.service.remove_scopes(&visitor.caller, id, version, &removal).await;
    let removed = removed.map(drop).map_err(|error| Mistake::of(error, None));
    finish(&site, &visitor, id, removed).await
}

/// Shows the changed token, or the mistake on its page.
async fn finish(
    site: &Site,
    visitor: &Visitor,
    id: TokenId,
    changed: Result<(), Result<Mistake, Fault>>,
) -> Result<Response, Fault> {
    match changed {
        Ok(()) => Ok(Done::Saved.lead_to(&format!("/tokens/{}", id.0))),
        Err(mistake) => details(site, visitor, id, &Notice::default(), Some(mistake?)).await,
    }
}

async fn details(
    site: &Site,
    visitor: &Visitor,
    id: TokenId,
    notice: &Notice,
    mistake: Option<Mistake>,
) -> Result<Response, Fault> {
    let token = site.service.token(&visitor.caller, id).await?;
    let domains = site.service.grantable(&visitor.caller).await?;
    let status = mistake.as_ref().map_or(StatusCode::OK, |mistake| mistake.status);
    let begins = site.service.token_beginning(id);
    Ok(answer(status, render(visitor, &token, &begins, &domains, notice, mistake.as_ref())))
}

fn render(
    visitor: &Visitor,
    token: &OwnToken,
    begins: &str,
    domains: &[GrantableDomain],
    notice: &Notice,
    mistake: Option<&Mistake>,
) -> Markup {
    let is_own = token.owner == visitor.session.email;
    let works = token.status == TokenStatus::Live;
    let path = format!("/tokens/{}", token.id);
    let version = token.version.as_str();
    let content = html! {
        h1 { (token.name) }
        (notice.render())
        (summary(mistake))
        dl {
            @if !is_own { dt { "Owner" } dd { (token.owner) } }
            dt { "Status" } dd { (status(token.status)) }
            dt { "Begins with" } dd { code { (begins) } }
            @if !token.description.is_empty() { dt { "What it is for" } dd { (token.description) } }
            dt { "Made" } dd { (moment(&token.issued_at)) }
            dt { "Expires" } dd { (moment(&token.expires_at)) " (" (distance(&token.expires_at)) ")" }
            @if let Some(at) = &token.revoked_at { dt { "Revoked" } dd { (moment(at)) } }
            dt { "Last used" } dd { (last_used(token)) }
        }
        div.actions {
            @if is_own && works {
                a.button href={ (path) "/rotate" } { "Rotate" }
                a.button.plain href={ (path) "/reset" } { "New secret" }
            }
            @if is_own { a.button.plain href={ (path) "/why" } { "Why was I refused?" } }
            @if works { a.button.danger href={ (path) "/revoke" } { "Revoke" } }
            a.button.danger href={ (path) "/delete" } { "Delete" }
        }
        h2 { "Scopes" }
        @if token.scopes.is_empty() { p { "None: the token can do nothing." } }
        ul.scopes {
            @for scope in &token.scopes {
                li {
                    span { (in_words(scope)) }
                    @if is_own {
                        @let which = format!("{} on {}", scope.operation, scope.entity_id);
                        (named_button_to(&format!("{path}/scopes/remove"), visitor, "Remove", Some(&which),
                            &[("scope", &scope.id.to_string()), ("version", version)]))
                    }
                }
            }
        }
        @if is_own && works {
            h3 { "Add a scope" }
            (form_to(&format!("{path}/scopes"), visitor, &html! {
                (hidden("version", version))
                (rows(&[Row::default()], domains, mistake))
                button.plain { "Add the scope" }
            }))
        }
        @if is_own {
            h2 { "Name and purpose" }
            (form_to(&path, visitor, &html! {
                (hidden("version", version))
                (Field::new("name", "Name").value(&token.name).mistake(mistake))
                (Field::new("description", "What it is for")
                    .value(&token.description)
                    .optional()
                    .mistake(mistake))
                button.plain { "Save" }
            }))
        }
    };
    page(&token.name, Frame::Of(visitor), &content)
}
