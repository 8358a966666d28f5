//! Signing in and out, and the first password.

use std::sync::Arc;

use axum::{
    extract::State,
    http::{
        HeaderValue, StatusCode,
        header::{REFRESH, SET_COOKIE},
    },
    response::{IntoResponse, Redirect, Response},
};
use maud::{Markup, html};
use secrecy::{ExposeSecret as _, SecretString};
use serde::Deserialize;

use super::{
    Fault, HOME, SIGN_IN,
    form::{Field, Mistake, summary},
    input::{Asked, Sent, SentForm},
    layout::{Frame, answer, page},
    notice::{Done, Notice},
};
use crate::{
    admin::web::{Error, InvitationSecret, Password},
    web::{Site, cookie, oidc, visit::Visit},
};

#[derive(Deserialize)]
pub(super) struct SignIn {
    email: String,
    password: SecretString,
}

#[derive(Deserialize)]
pub(super) struct Acceptance {
    code: SecretString,
    password: SecretString,
    again: SecretString,
}

pub(super) async fn show(State(site): State<Arc<Site>>, Asked(notice): Asked<Notice>) -> Response {
    answer(StatusCode::OK, sign_in(&site, &notice, "", None))
}

pub(super) async fn begin(
    State(site): State<Arc<Site>>,
    visit: Visit,
    Sent(SignIn { email, password }): Sent<SignIn>,
) -> Result<Response, Fault> {
    let _place = site.limits.password(visit.address)?;
    // What cannot be an address or a password is answered as a wrong one.
    let password: Result<Password, _> = password.expose_secret().parse();
    let begun = match (email.trim().parse(), password) {
        (Ok(email), Ok(password)) => site.service.sign_in(&visit.origin, &email, &password).await,
        _ => Err(Error::SignInFailed),
    };
    match begun {
        Ok(begun) => {
            let cookie = cookie::give(&site.settings.url, &begun.secret);
            Ok(([(SET_COOKIE, cookie)], Redirect::to(HOME)).into_response())
        }
        Err(error) => {
            let mistake = Mistake::of(error, Some("email"))?;
            Ok(answer(mistake.status, sign_in(&site, &Notice::default(), &email, Some(&mistake))))
        }
    }
}

pub(super) async fn end(
    State(site): State<Arc<Site>>,
    SentForm { visitor, .. }: SentForm,
) -> Result<Response, Fault> {
    site.service.sign_out(&visitor.caller).await?;
    Ok(signed_out(&site, None))
}

/// Takes the cookie back, and leads to the sign-in.
pub(super) fn signed_out(site: &Site, done: Option<Done>) -> Response {
    let lead = match done {
        Some(done) => done.lead_to(SIGN_IN),
        None => Redirect::to(SIGN_IN).into_response(),
    };
    ([(SET_COOKIE, cookie::take(&site.settings.url))], lead).into_response()
}

pub(super) async fn invited() -> Response {
    answer(StatusCode::OK, invitation(None))
}

pub(super) async fn accept(
    State(site): State<Arc<Site>>,
    visit: Visit,
    Sent(sent): Sent<Acceptance>,
) -> Result<Response, Fault> {
    let _place = site.limits.password(visit.address)?;
    let accepted = match new_password(&sent.password, &sent.again) {
        Ok(password) => {
            let unknown = "this code is not that of an invitation, or it was used or has expired; ask \
                           an administrator for a new one";
            let unknown = || Error::NotFound(unknown.to_owned());
            let code = InvitationSecret::parse(sent.code.expose_secret().trim());
            let accepted = match code {
                Some(code) => site.service.accept_invitation(&visit.origin, &code, &password).await,
                None => Err(unknown()),
            };
            match accepted {
                Ok(_) => Ok(()),
                Err(Error::NotFound(_)) => Err(Mistake::of(unknown(), Some("code"))?),
                Err(error) => Err(Mistake::of(error, None)?),
            }
        }
        Err(mistake) => Err(mistake),
    };
    Ok(match accepted {
        Ok(()) => Done::Password.lead_to(SIGN_IN),
        Err(mistake) => answer(mistake.status, invitation(Some(&mistake))),
    })
}

/// A new password, entered twice, in the fields `password` and `again`.
pub(super) fn new_password(
    password: &SecretString,
    again: &SecretString,
) -> Result<Password, Mistake> {
    if password.expose_secret() != again.expose_secret() {
        return Err(Mistake::at("again", &"the two passwords differ"));
    }
    password.expose_secret().parse().map_err(|error| Mistake::at("password", &error))
}

/// The two fields of a new password.
pub(super) fn new_password_fields(mistake: Option<&Mistake>) -> Markup {
    html! {
        (Field::new("password", "New password")
            .kind("password", "new-password")
            .hint("12 to 256 characters")
            .mistake(mistake))
        (Field::new("again", "New password again")
            .kind("password", "new-password")
            .mistake(mistake))
    }
}

/// Leads on after a sign-in by the provider. It is no redirect: browsers would follow that as a part
/// of the navigation that the provider began, without the new cookie, which is only for requests from
/// this site.
pub(in crate::web) fn signed_in_elsewhere() -> Response {
    let content = html! {
        h1 { "You are signed in" }
        p { a href=(HOME) { "Go to your tokens" } }
    };
    let page = page("Signed in", Frame::Bare, &content);
    let refresh = HeaderValue::from_static("0;url=/tokens");
    let mut response = answer(StatusCode::OK, page);
    response.headers_mut().insert(REFRESH, refresh);
    response
}

fn sign_in(site: &Site, notice: &Notice, email: &str, mistake: Option<&Mistake>) -> Markup {
    let content = html! {
        h1 { "Sign in" }
        (notice.render())
        (summary(mistake))
        form.narrow method="post" action=(SIGN_IN) {
            (Field::new("email", "Email address").kind("email", "username").value(email).mistake(mistake))
            (Field::new("password", "Password").kind("password", "current-password"))
            button { "Sign in" }
        }
        @if let Some(provider) = &site.provider {
            p { a href=(oidc::PATH) { "Sign in with " (provider.name()) } }
        }
        p { a href="/invitation" { "Set a password with an invitation" } }
        p.hint { "Forgot your password? Ask an administrator for a new invitation." }
        @if let Some(provider) = &site.provider {
            p { a href=(oidc::SIGN_OUT_PATH) { "Sign out of " (provider.name()) } }
        }
    };
    page("Sign in", Frame::Bare, &content)
}

fn invitation(mistake: Option<&Mistake>) -> Markup {
    let content = html! {
        h1 { "Choose a password" }
        (summary(mistake))
        form.narrow method="post" action="/invitation" {
            (Field::new("code", "Code of the invitation").mistake(mistake))
            (new_password_fields(mistake))
            button { "Set the password" }
        }
        p { a href=(SIGN_IN) { "Sign in" } }
    };
    page("Invitation", Frame::Bare, &content)
}
