//! A problem as a page.

use axum::{
    Extension,
    response::{Html, IntoResponse, Redirect, Response},
};
use maud::html;

use super::{
    SIGN_IN,
    layout::{Frame, page},
};
use crate::web::problem::Problem;

/// A problem that is answered instead of a page.
pub(in crate::web) struct Fault(Problem);

impl<T: Into<Problem>> From<T> for Fault {
    fn from(problem: T) -> Self {
        Self(problem.into())
    }
}

/// Marks the answer to a request that needs the password again.
#[derive(Clone)]
pub(super) struct NeedsPassword;

impl IntoResponse for Fault {
    fn into_response(self) -> Response {
        let Self(problem) = self;
        match problem.code {
            "not-signed-in" => return Redirect::to(SIGN_IN).into_response(),
            "needs-password" => {
                return (Extension(NeedsPassword), Redirect::to("/confirm")).into_response();
            }
            _ => {}
        }
        let content = html! {
            h1 { (problem.title) }
            p role="alert" { (sentence(&problem.detail)) }
            // Under a wrong name, there is no page to go to.
            @if problem.code != "wrong-host" { p { a href="/" { "Go to your tokens" } } }
        };
        let body = page(problem.title, Frame::Bare, &content).into_string();
        let mut response = (problem.status, Html(body)).into_response();
        response.headers_mut().extend(problem.retry_after());
        response
    }
}

/// An error, which begins with a small letter, as a sentence.
pub(super) fn sentence(error: &str) -> String {
    let mut letters = error.chars();
    let Some(first) = letters.next() else { return String::new() };
    let end = if error.ends_with(['.', '?', '!']) { "" } else { "." };
    format!("{}{}{end}", first.to_uppercase(), letters.as_str())
}
