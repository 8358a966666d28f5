//! The users, for administrators.

use std::{sync::Arc, time::Duration};

use axum::{extract::State, http::StatusCode, response::Response};
use maud::{Markup, html};
use serde::Deserialize;

use super::{
    Fault,
    example::copy,
    form::{Field, Mistake, form_to, hidden, named_button_to, summary, tick},
    input::{Asked, Fields, SentForm, Visitor},
    layout::{Frame, answer, page},
    notice::{Done, Notice},
    sure::{Question, unless_sure},
    time::{count, moment},
};
use crate::{
    admin::{
        NewUser, UserRef,
        web::{Error, UserEdit, UserEntry, UserPage},
    },
    web::{Site, problem::Problem},
};

const AT_ONCE: u32 = 25;
/// As long as by the command.
const INVITED_FOR: Duration = Duration::from_secs(24 * 60 * 60);

/// What the address of the list says. What is malformed does not restrict.
#[derive(Default, Deserialize)]
#[serde(default)]
pub(super) struct Search {
    part: String,
    page: String,
}

impl Search {
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
    show(&site, &visitor, &search, &notice, &Fields::default(), None).await
}

async fn show(
    site: &Site,
    visitor: &Visitor,
    search: &Search,
    notice: &Notice,
    draft: &Fields,
    mistake: Option<Mistake>,
) -> Result<Response, Fault> {
    let part = Some(search.part.trim()).filter(|part| !part.is_empty());
    let offset = (search.number() - 1) * AT_ONCE;
    let found = site.service.users(&visitor.caller, part, offset, AT_ONCE).await?;
    let status = mistake.as_ref().map_or(StatusCode::OK, |mistake| mistake.status);
    Ok(answer(status, render(visitor, search, &found, notice, draft, mistake.as_ref())))
}

pub(super) async fn change(
    State(site): State<Arc<Site>>,
    SentForm { visitor, fields }: SentForm,
) -> Result<Response, Fault> {
    match make(&site, &visitor, &fields).await {
        Ok(response) => Ok(response),
        Err(mistake) => {
            let (search, notice) = (Search::default(), Notice::default());
            show(&site, &visitor, &search, &notice, &fields, Some(mistake?)).await
        }
    }
}

/// What a change does that its user may not expect; `None` if it can be taken back.
fn consequence(change: &str, user: &str) -> Option<(&'static str, String)> {
    Some(match change {
        "disable" => (
            "Disable the user",
            format!(
                "{user} is signed out and cannot sign in, and the tokens of {user} are refused."
            ),
        ),
        "delete" => (
            "Delete the user",
            format!("{user} is deleted with all tokens and roles. This cannot be undone."),
        ),
        "promote" => (
            "Make the user an administrator",
            format!("{user} may then do everything in every domain, also with tokens."),
        ),
        "invite" => (
            "Invite the user",
            format!(
                "Whoever has the code sets the password of {user}; sessions of {user} end then."
            ),
        ),
        _ => return None,
    })
}

async fn make(
    site: &Site,
    visitor: &Visitor,
    fields: &Fields,
) -> Result<Response, Result<Mistake, Fault>> {
    if let Some((label, consequence)) = consequence(fields.get("do"), fields.get("user")) {
        let label = label.to_owned();
        let question = Question { action: "/users", label, consequence, back: "/users" };
        if let Some(page) = unless_sure(visitor, fields, &question) {
            return Ok(page);
        }
    }
    let (service, caller) = (&site.service, &visitor.caller);
    let user =
        || fields.get("user").parse::<UserRef>().map_err(|error| Ok(Mistake::at("email", &error)));
    let edit =
        |edit| async move { service.update_user(caller, &user()?, edit).await.map_err(refused) };
    let no = UserEdit::default();
    match fields.get("do") {
        "create" => {
            let new = new_user(fields).map_err(Ok)?;
            let _made = service.create_user(caller, &new).await.map_err(refused)?;
            invite(site, visitor, &UserRef::Email(new.email)).await.map_err(refused)
        }
        "invite" => invite(site, visitor, &user()?).await.map_err(refused),
        "enable" => saved(edit(UserEdit { enabled: Some(true), ..no }).await?),
        "disable" => saved(edit(UserEdit { enabled: Some(false), ..no }).await?),
        "promote" => saved(edit(UserEdit { platform_admin: Some(true), ..no }).await?),
        "demote" => saved(edit(UserEdit { platform_admin: Some(false), ..no }).await?),
        "delete" => {
            let _deleted = service.delete_user(caller, &user()?).await.map_err(refused)?;
            Ok(Done::Deleted.lead_to("/users"))
        }
        _ => Err(Err(Problem::invalid("the form says nothing to do").into())),
    }
}

fn saved<T, E>(_outcome: T) -> Result<Response, E> {
    Ok(Done::Saved.lead_to("/users"))
}

fn refused(error: Error) -> Result<Mistake, Fault> {
    let field = matches!(error, Error::Exists(_)).then_some("email");
    Mistake::of(error, field)
}

fn new_user(fields: &Fields) -> Result<NewUser, Mistake> {
    Ok(NewUser {
        email: fields.get("email").parse().map_err(|error| Mistake::at("email", &error))?,
        name: fields.get("name").parse().map_err(|error| Mistake::at("name", &error))?,
        platform_admin: fields.has("platform_admin"),
    })
}

/// Shows the code of a new invitation, which is good once.
async fn invite(site: &Site, visitor: &Visitor, user: &UserRef) -> Result<Response, Error> {
    let invited = site.service.invite(&visitor.caller, user, INVITED_FOR).await?.value;
    let code = invited.secret.expose();
    let content = html! {
        h1 { "Invitation" }
        p role="status" { "Send this to " (invited.email) " yourself: no mail is sent. The code is good once, until " (moment(&invited.expires_at)) ", and is not shown again." }
        dl {
            dt { "Address" } dd { code #address { (site.settings.url.origin()) "/invitation" } }
            dt { "Code" } dd { code #code { (code.as_str()) } }
        }
        (copy("address", "Copy the address"))
        (copy("code", "Copy the code"))
        p { a href="/users" { "Users" } }
    };
    Ok(answer(StatusCode::OK, page("Invitation", Frame::Of(visitor), &content)))
}

fn render(
    visitor: &Visitor,
    search: &Search,
    found: &UserPage,
    notice: &Notice,
    draft: &Fields,
    mistake: Option<&Mistake>,
) -> Markup {
    let pages = found.total.div_ceil(u64::from(AT_ONCE)).max(1);
    let number = search.number();
    let content = html! {
        h1 { "Users" }
        (notice.render())
        (summary(mistake))
        search {
            form.search method="get" action="/users" {
                (Field::new("part", "Address or name contains").value(&search.part).optional())
                button.plain { "Search" }
            }
        }
        table role="table" {
            caption { (count(found.total, "user")) ", page " (number) " of " (pages) }
            thead role="rowgroup" { tr role="row" {
                @for head in ["Email address", "Name", "State", "Live tokens", "Change"] {
                    th role="columnheader" scope="col" { (head) }
                }
            } }
            tbody role="rowgroup" { @for user in &found.users { (row(visitor, user)) } }
        }
        nav.pages aria-label="Pages" {
            @if number > 1 { (step(search, number - 1, "Previous page")) }
            @if u64::from(number) < pages { (step(search, number + 1, "Next page")) }
        }
        h2 { "New user" }
        (form_to("/users", visitor, &html! {
            (hidden("do", "create"))
            (Field::new("email", "Email address").kind("email", "off").value(draft.get("email")).mistake(mistake))
            (Field::new("name", "Name").value(draft.get("name")).mistake(mistake))
            (tick("platform_admin", "Platform administrator: may do everything in every domain", draft.has("platform_admin")))
            button { "Create the user and an invitation" }
        }))
    };
    page("Users", Frame::Of(visitor), &content)
}

fn row(visitor: &Visitor, user: &UserEntry) -> Markup {
    let email = user.email.as_str();
    let button = |label, what| {
        named_button_to("/users", visitor, label, Some(email), &[("do", what), ("user", email)])
    };
    html! { tr role="row" {
        th role="rowheader" scope="row" { (email) }
        td role="cell" data-label="Name" { (user.name) }
        td role="cell" data-label="State" {
            @if user.enabled { "enabled" } @else { "disabled" }
            @if user.platform_admin { ", platform administrator" }
            @if !user.has_password { ", no password" }
        }
        td role="cell" data-label="Live tokens" { (user.live_tokens) }
        td role="cell" data-label="Change" {
            div.actions {
                (button("Invite", "invite"))
                @if user.enabled { (button("Disable", "disable")) } @else { (button("Enable", "enable")) }
            }
            details {
                summary { "More" span.only-heard { " for " (email) } }
                div.actions {
                    @if user.platform_admin { (button("Take the rights of an administrator", "demote")) }
                    @else { (button("Make an administrator", "promote")) }
                    (button("Delete with all tokens", "delete"))
                }
            }
        }
    } }
}

fn step(search: &Search, number: u32, label: &str) -> Markup {
    html! {
        form method="get" action="/users" {
            @if !search.part.is_empty() { (hidden("part", &search.part)) }
            (hidden("page", &number.to_string()))
            button.plain { (label) }
        }
    }
}
