//! The visitor's own account: the password, the sessions, and the rights of an administrator.

use std::sync::Arc;

use axum::{
    extract::State,
    http::StatusCode,
    response::{IntoResponse, Redirect, Response},
};
use maud::{Markup, html};
use secrecy::SecretString;

use super::{
    Fault,
    form::{Field, Mistake, button_to, form_to, summary},
    input::{Fields, SentForm, Visitor},
    layout::{Frame, answer, page},
    sign_in::{new_password, new_password_fields, signed_out},
    time::{distance, moment},
};
use crate::{
    admin::web::{Error, Password},
    web::{Site, visit::Visit},
};

pub(super) async fn show(visitor: Visitor) -> Response {
    answer(StatusCode::OK, account(&visitor, None))
}

pub(super) async fn change_password(
    State(site): State<Arc<Site>>,
    visit: Visit,
    SentForm { visitor, fields }: SentForm,
) -> Result<Response, Fault> {
    let _place = site.limits.password(visit.address)?;
    let secret = |name| SecretString::from(fields.all(name).next().unwrap_or_default());
    let changed = match new_password(&secret("password"), &secret("again")) {
        Err(mistake) => Err(mistake),
        Ok(new) => {
            let changed = match password(&fields, "present") {
                Ok(present) => site.service.change_password(&visitor.caller, &present, &new).await,
                Err(error) => Err(error),
            };
            match changed {
                Ok(()) => Ok(()),
                Err(error) => Err(Mistake::of(error, Some("present"))?),
            }
        }
    };
    Ok(match changed {
        // All sessions have ended.
        Ok(()) => signed_out(&site),
        Err(mistake) => answer(mistake.status, account(&visitor, Some(&mistake))),
    })
}

pub(super) async fn end_all(
    State(site): State<Arc<Site>>,
    SentForm { visitor, .. }: SentForm,
) -> Result<Response, Fault> {
    site.service.sign_out_everywhere(&visitor.caller).await?;
    Ok(signed_out(&site))
}

pub(super) async fn confirm(visitor: Visitor) -> Response {
    answer(StatusCode::OK, confirmation(&visitor, None))
}

pub(super) async fn elevate(
    State(site): State<Arc<Site>>,
    visit: Visit,
    SentForm { visitor, fields }: SentForm,
) -> Result<Response, Fault> {
    let _place = site.limits.password(visit.address)?;
    let elevated = match password(&fields, "present") {
        Ok(password) => site.service.elevate(&visitor.caller, &password).await,
        Err(error) => Err(error),
    };
    Ok(match elevated {
        Ok(()) => Redirect::to("/domains").into_response(),
        Err(error) => {
            let mistake = Mistake::of(error, Some("present"))?;
            answer(mistake.status, confirmation(&visitor, Some(&mistake)))
        }
    })
}

pub(super) async fn lower(
    State(site): State<Arc<Site>>,
    SentForm { visitor, .. }: SentForm,
) -> Result<Response, Fault> {
    site.service.lower(&visitor.caller).await?;
    Ok(Redirect::to("/account").into_response())
}

/// What cannot be a password is answered as a wrong one.
fn password(fields: &Fields, name: &str) -> Result<Password, Error> {
    fields.all(name).next().unwrap_or_default().parse().map_err(|_| Error::SignInFailed)
}

fn account(visitor: &Visitor, mistake: Option<&Mistake>) -> Markup {
    let session = &visitor.session;
    let content = html! {
        h1 { "Your account" }
        (summary(mistake))
        dl {
            dt { "Email address" } dd { (session.email) }
            dt { "Name" } dd { (session.name) }
            dt { "Signed in" }
            dd {
                (moment(&session.begun_at))
                @if session.method == "local" { " with the password" } @else { " by a provider" }
            }
            dt { "Session ends" }
            dd {
                (distance(&session.ends_at)) ", or after "
                (session.idle_seconds / 60) " minutes without a request"
            }
            @if session.platform_admin {
                dt { "Platform administrator" }
                dd {
                    @match &session.elevated_until {
                        Some(until) if session.elevated => { "rights end " (distance(until)) },
                        _ => a href="/confirm" { "Confirm your password to use the rights" },
                    }
                }
            }
        }
        div.actions {
            (button_to("/account/sign-out-everywhere", visitor, "Sign out everywhere", &[]))
            @if session.elevated {
                (button_to("/confirm/end", visitor, "Give the rights back", &[]))
            }
        }
        @if session.has_password {
            h2 { "Change the password" }
            p { "All your sessions end. Your tokens keep working." }
            (form_to("/account/password", visitor, &html! {
                (Field::new("present", "Present password")
                    .kind("password", "current-password")
                    .mistake(mistake))
                (new_password_fields(mistake))
                button { "Change the password" }
            }))
        }
    };
    page("Account", Frame::Of(visitor), &content)
}

fn confirmation(visitor: &Visitor, mistake: Option<&Mistake>) -> Markup {
    let content = html! {
        h1 { "Confirm your password" }
        (summary(mistake))
        p {
            "What administrators do needs the password again, now and then. If you came here while \
             you were changing something, it was not changed: go back and send it again after this."
        }
        (form_to("/confirm", visitor, &html! {
            (Field::new("present", "Password")
                .kind("password", "current-password")
                .mistake(mistake))
            button { "Confirm" }
        }))
    };
    page("Confirm your password", Frame::Of(visitor), &content)
}
