//! Asks before something is done that cannot be undone.

use axum::{http::StatusCode, response::Response};
use maud::html;

use super::{
    form::{form_to, hidden},
    input::{Fields, Visitor},
    layout::{Frame, answer, page},
};

/// The field by which the visitor says that they are sure.
const SURE: &str = "sure";

/// What is about to be done.
pub(super) struct Question<'a> {
    /// Where the form goes, again.
    pub(super) action: &'a str,
    /// What it does, as a title and as a button.
    pub(super) label: String,
    pub(super) consequence: String,
    /// Where those go who are not sure.
    pub(super) back: &'a str,
}

/// Returns a page with the question, unless the form answers it.
pub(super) fn unless_sure(
    visitor: &Visitor,
    fields: &Fields,
    question: &Question<'_>,
) -> Option<Response> {
    if fields.has(SURE) {
        return None;
    }
    let Question { action, label, consequence, back } = question;
    let content = html! {
        h1 { (label) }
        p { (consequence) }
        (form_to(action, visitor, &html! {
            @for (name, value) in fields.without_proof() { (hidden(name, value)) }
            (hidden(SURE, "yes"))
            div.actions {
                button.danger { (label) }
                a href=(back) { "Keep it as it is" }
            }
        }))
    };
    Some(answer(StatusCode::OK, page(label, Frame::Of(visitor), &content)))
}
