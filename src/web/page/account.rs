//! The visitor's own account: the password, the sessions, and the rights of an administrator.

use std::sync::Arc;

use axum::{
    extract::{Request, State},
    http::{HeaderValue, Method, StatusCode, header::LOCATION, uri::PathAndQuery},
    middleware,
    response::{IntoResponse, Redirect, Response},
};
use maud::{Markup, html};
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use secrecy::SecretString;
use serde::Deserialize;

use super::{
    Fault,
    fault::NeedsPassword,
    form::{Field, Mistake, button_to, form_to, hidden, named_button_to, summary},
    input::{Asked, Fields, SentForm, Visitor},
    layout::{Frame, answer, page},
    notice::Done,
    sign_in::{new_password, new_password_fields, signed_out},
    time::{distance, moment},
};
use crate::{
    admin::web::{Error, OwnSession, Password},
    web::{Site, visit::Visit},
};

pub(super) async fn show(
    State(site): State<Arc<Site>>,
    visitor: Visitor,
) -> Result<Response, Fault> {
    account(&site, &visitor, None).await
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
                Err(error) => Err(wrong_password(error)?),
            }
        }
    };
    match changed {
        // All sessions have ended.
        Ok(()) => Ok(signed_out(&site, Some(Done::Password))),
        Err(mistake) => account(&site, &visitor, Some(mistake)).await,
    }
}

pub(super) async fn end_session(
    State(site): State<Arc<Site>>,
    SentForm { visitor, fields }: SentForm,
) -> Result<Response, Fault> {
    let session = fields.get("session").parse();
    let session = session.map_err(|_| Error::NotFound("there is no such session".to_owned()))?;
    site.service.end_session(&visitor.caller, session).await?;
    Ok(Redirect::to("/account").into_response())
}

pub(super) async fn end_all(
    State(site): State<Arc<Site>>,
    SentForm { visitor, .. }: SentForm,
) -> Result<Response, Fault> {
    site.service.sign_out_everywhere(&visitor.caller).await?;
    Ok(signed_out(&site, None))
}

/// Where to go after the password was confirmed.
#[derive(Default, Deserialize)]
#[serde(default)]
pub(super) struct Next {
    next: String,
}

/// Lets a visitor come back to the page for which the password was needed.
pub(super) async fn lead_back(request: Request, next: middleware::Next) -> Response {
    let page = (request.method() == Method::GET).then(|| request.uri().clone());
    let mut response = next.run(request).await;
    let needs_password = response.extensions().get::<NeedsPassword>().is_some();
    if let Some(page) = page.filter(|_| needs_password) {
        let page = page.path_and_query().map_or("", PathAndQuery::as_str);
        let page = utf8_percent_encode(page, NON_ALPHANUMERIC);
        if let Ok(location) = HeaderValue::try_from(format!("/confirm?next={page}")) {
            response.headers_mut().insert(LOCATION, location);
        }
    }
    response
}

/// A page of this site: a path in plain characters, with a query. Others lead to the first page for
/// administrators, so that no link can use the confirmation to lead elsewhere.
fn page_of_this_site(text: &str) -> &str {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"/-_.?=&%+@".contains(&byte);
    let is_page = text.starts_with('/') && !text.starts_with("//") && text.bytes().all(plain);
    if is_page { text } else { "/domains" }
}

pub(super) async fn confirm(visitor: Visitor, Asked(next): Asked<Next>) -> Response {
    answer(StatusCode::OK, confirmation(&visitor, &next.next, None))
}

pub(super) async fn elevate(
    State(site): State<Arc<Site>>,
    visit: Visit,
    SentForm { visitor, fields }: SentForm,
) -> Result<Response, Fault> {
    let _place = site.limits.password(visit.address)?;
    let next = fields.get("next");
    let elevated = match password(&fields, "present") {
        Ok(password) => site.service.elevate(&visitor.caller, &password).await,
        Err(error) => Err(error),
    };
    Ok(match elevated {
        Ok(()) => Redirect::to(page_of_this_site(next)).into_response(),
        Err(error) => {
            let mistake = wrong_password(error)?;
            answer(mistake.status, confirmation(&visitor, next, Some(&mistake)))
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

/// The visitor is known, so only the password can be wrong.
fn wrong_password(error: Error) -> Result<Mistake, Fault> {
    match error {
        Error::SignInFailed => {
            let mut wrong = Mistake::at("present", &"this password is wrong");
            wrong.status = StatusCode::UNAUTHORIZED;
            Ok(wrong)
        }
        error => Mistake::of(error, Some("present")),
    }
}

/// What cannot be a password is answered as a wrong one.
fn password(fields: &Fields, name: &str) -> Result<Password, Error> {
    fields.all(name).next().unwrap_or_default().parse().map_err(|_| Error::SignInFailed)
}

async fn account(
    site: &Site,
    visitor: &Visitor,
    mistake: Option<Mistake>,
) -> Result<Response, Fault> {
    let sessions = site.service.sessions(&visitor.caller).await?;
    let status = mistake.as_ref().map_or(StatusCode::OK, |mistake| mistake.status);
    Ok(answer(status, render(visitor, &sessions, mistake.as_ref())))
}

fn render(visitor: &Visitor, sessions: &[OwnSession], mistake: Option<&Mistake>) -> Markup {
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
        @if session.elevated { (button_to("/confirm/end", visitor, "Stop using administrator rights", &[])) }
        h2 { "Sessions" }
        p { "Where you are signed in. End sessions that you do not recognize, and change your password then." }
        ul.scopes { @for session in sessions { (one(visitor, session)) } }
        (button_to("/account/sign-out-everywhere", visitor, "Sign out everywhere", &[]))
        @if session.has_password {
            h2 { "Change the password" }
            p { "All your sessions end. Your tokens keep working." }
            (form_to("/account/password", visitor, &html! {
                (Field::new("present", "Current password")
                    .kind("password", "current-password")
                    .mistake(mistake))
                (new_password_fields(mistake))
                button { "Change the password" }
            }))
        }
    };
    page("Account", Frame::Of(visitor), &content)
}

fn one(visitor: &Visitor, session: &OwnSession) -> Markup {
    let from = session.address.as_deref().unwrap_or("an unknown address");
    html! { li {
        span {
            @if session.current { strong { "This one" } ", from " } @else { "From " }
            (from) ", begun " (moment(&session.begun_at)) ", used " (distance(&session.last_used_at))
            @if let Some(issuer) = &session.issuer { ", by " (issuer) }
        }
        @if !session.current {
            (named_button_to("/account/sessions/end", visitor, "End", Some(&format!("the session from {from}")),
                &[("session", &session.id.to_string())]))
        }
    } }
}

fn confirmation(visitor: &Visitor, next: &str, mistake: Option<&Mistake>) -> Markup {
    let content = html! {
        h1 { "Confirm your password" }
        (summary(mistake))
        p {
            "What administrators do needs the password again, now and then. If you came here while \
             you were changing something, it was not changed: go back and send it again after this."
        }
        (form_to("/confirm", visitor, &html! {
            (hidden("next", next))
            (Field::new("present", "Password")
                .kind("password", "current-password")
                .mistake(mistake))
            button { "Confirm" }
        }))
    };
    page("Confirm your password", Frame::Of(visitor), &content)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_confirmation_leads_to_no_other_site() {
        for text in ["/users", "/tokens?all=yes&page=2", "/history?domain=acme"] {
            assert_eq!(page_of_this_site(text), text);
        }
        for text in [
            "",
            "users",
            "//evil.example",
            "/\\evil.example",
            "https://evil.example",
            "/\t/evil.example",
            "\\\\evil.example",
            "/a\r\nset-cookie:x",
            "javascript:x",
        ] {
            assert_eq!(page_of_this_site(text), "/domains", "{text:?}");
        }
    }
}
