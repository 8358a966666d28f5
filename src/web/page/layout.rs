//! What all pages have in common.

use axum::{
    http::StatusCode,
    response::{Html, IntoResponse, Response},
};
use maud::{DOCTYPE, Markup, html};

use super::{assets, form::button_to, input::Visitor};

/// What is around the content of a page.
#[derive(Clone, Copy)]
pub(super) enum Frame<'a> {
    /// Nothing: the visitor has no session, or it is not known.
    Bare,
    /// The parts of the site that this visitor may use.
    Of(&'a Visitor),
}

const LINKS: [(&str, &str); 5] = [
    ("/tokens", "Tokens"),
    ("/tokens/new", "New token"),
    ("/domains", "Domains"),
    ("/history", "History"),
    ("/account", "Account"),
];

const ADMINISTRATION: [(&str, &str); 5] = [
    ("/tokens?all=yes", "All tokens"),
    ("/users", "Users"),
    ("/backends", "Backends"),
    ("/audit", "Audit log"),
    ("/replicas", "Replicas"),
];

pub(super) fn page(title: &str, frame: Frame<'_>, content: &Markup) -> Markup {
    html! {
        (DOCTYPE)
        html lang="en" {
            head {
                meta charset="utf-8";
                meta name="viewport" content="width=device-width, initial-scale=1";
                meta name="color-scheme" content="light dark";
                title { (title) " · patgate" }
                link rel="icon" href=(assets::ICON.path());
                link rel="stylesheet" href=(assets::STYLE.path());
                script src=(assets::SCRIPT.path()) defer {}
            }
            body {
                a.skip href="#content" { "Skip to content" }
                header {
                    span.brand { "patgate" }
                    @if let Frame::Of(visitor) = frame {
                        nav aria-label="Main" { (links(&LINKS)) }
                        @if visitor.session.platform_admin {
                            nav aria-label="Administration" { (links(&ADMINISTRATION)) }
                        }
                        div.who {
                            span { (visitor.session.email) }
                            (button_to("/sign-out", visitor, "Sign out", &[]))
                        }
                    }
                }
                main #content tabindex="-1" { (content) }
            }
        }
    }
}

fn links(links: &[(&str, &str)]) -> Markup {
    html! { @for (path, label) in links { a href=(path) { (label) } } }
}

/// A page as an answer.
pub(super) fn answer(status: StatusCode, page: Markup) -> Response {
    (status, Html(page.into_string())).into_response()
}
