//! What has just been done, on the page to which a form leads.

use axum::response::{IntoResponse, Redirect, Response};
use maud::{Markup, html};
use serde::Deserialize;

use crate::vocabulary::vocabulary;

vocabulary! {
    /// Something that was done.
    Done, "thing done" {
        Saved = "saved",
        Deleted = "deleted",
        Password = "password",
        Ended = "ended",
    }
}

impl Done {
    fn words(self) -> &'static str {
        match self {
            Self::Saved => "Saved.",
            Self::Deleted => "Deleted.",
            Self::Password => "Your password is set. Sign in with it.",
            Self::Ended => "Your session has ended. Sign in again.",
        }
    }

    /// Leads to a page that says so.
    pub(super) fn lead_to(self, path: &str) -> Response {
        Redirect::to(&format!("{path}?done={self}")).into_response()
    }
}

/// What the address of a page says was done.
#[derive(Default, Deserialize)]
#[serde(default)]
pub(super) struct Notice {
    done: String,
}

impl Notice {
    pub(super) fn render(&self) -> Markup {
        let done = self.done.parse::<Done>();
        html! { @if let Ok(done) = done { p role="status" { (done.words()) } } }
    }
}
