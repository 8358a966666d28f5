//! Forms, their fields, and mistakes in them.

use axum::http::StatusCode;
use maud::{Markup, Render, html};

use super::{
    fault::{Fault, sentence},
    input::Visitor,
};
use crate::{admin::web::Error, web::problem::Problem};

/// Why a form was not accepted. It is shown above the form, and at the field that it is about.
#[derive(Debug)]
pub(super) struct Mistake {
    pub(super) status: StatusCode,
    /// The id of the field; `None` if it is about none.
    field: Option<&'static str>,
    text: String,
}

impl Mistake {
    /// A value that cannot be what its field is for.
    pub(super) fn at(field: &'static str, error: &dyn ToString) -> Self {
        let text = sentence(&error.to_string());
        Self { status: StatusCode::BAD_REQUEST, field: Some(field), text }
    }

    /// Why a change was refused, if the visitor can do something about it in the form. `field` is the
    /// one that the error may be about.
    pub(super) fn of(error: Error, field: Option<&'static str>) -> Result<Self, Fault> {
        let correctable = matches!(
            error,
            Error::Exists(_)
                | Error::Invalid(_)
                | Error::LifetimeTooLong { .. }
                | Error::NotPermitted(_)
                | Error::NotFound(_)
                | Error::TooMany(_)
                | Error::Changed(_)
                | Error::SignInFailed
                | Error::TooManyAttempts
                | Error::TokenEnded
                | Error::Busy
        );
        let problem = Problem::from(error);
        if !correctable {
            return Err(problem.into());
        }
        Ok(Self { status: problem.status, field, text: sentence(&problem.detail) })
    }

    /// What is wrong with this field.
    pub(super) fn about(&self, field: &str) -> Option<&str> {
        (self.field == Some(field)).then_some(&self.text)
    }
}

/// Above the forms of a page: what went wrong, with a link to the field.
pub(super) fn summary(mistake: Option<&Mistake>) -> Markup {
    html! {
        @if let Some(Mistake { field, text, .. }) = mistake {
            div.error role="alert" {
                strong { "This did not work" }
                @match field {
                    Some(field) => p { a href={ "#" (field) } { (text) } },
                    None => p { (text) },
                }
            }
        }
    }
}

/// A field of one line, or of several, with its label.
#[derive(Clone, Copy)]
pub(super) struct Field<'a> {
    name: &'a str,
    label: &'a str,
    kind: &'a str,
    value: &'a str,
    hint: Option<&'a str>,
    autocomplete: &'a str,
    required: bool,
    mistake: Option<&'a Mistake>,
}

impl<'a> Field<'a> {
    /// A required line of text. The name is also the id.
    pub(super) fn new(name: &'a str, label: &'a str) -> Self {
        let (kind, value, autocomplete) = ("text", "", "off");
        Self { name, label, kind, value, hint: None, autocomplete, required: true, mistake: None }
    }

    pub(super) fn kind(self, kind: &'a str, autocomplete: &'a str) -> Self {
        Self { kind, autocomplete, ..self }
    }

    pub(super) fn value(self, value: &'a str) -> Self {
        Self { value, ..self }
    }

    pub(super) fn hint(self, hint: &'a str) -> Self {
        Self { hint: Some(hint), ..self }
    }

    pub(super) fn optional(self) -> Self {
        Self { required: false, ..self }
    }

    pub(super) fn mistake(self, mistake: Option<&'a Mistake>) -> Self {
        Self { mistake, ..self }
    }
}

impl Render for Field<'_> {
    fn render(&self) -> Markup {
        let Self { name, label, kind, value, hint, autocomplete, required, mistake } = *self;
        let error = mistake.and_then(|mistake| mistake.about(name));
        let described = described_by(name, hint, error);
        html! {
            div.field {
                label for=(name) { (label) }
                @if kind == "textarea" {
                    textarea id=(name) name=(name) rows="4" autocomplete=(autocomplete)
                        required[required] aria-invalid=[error.map(|_| "true")]
                        aria-describedby=[described.as_deref()] { (value) }
                } @else {
                    input id=(name) name=(name) type=(kind) value=(value)
                        autocomplete=(autocomplete) required[required]
                        aria-invalid=[error.map(|_| "true")]
                        aria-describedby=[described.as_deref()];
                }
                (notes(name, hint, error))
            }
        }
    }
}

/// A choice of one of `options`, each a value and its words.
pub(super) struct Select<'a> {
    pub(super) name: &'a str,
    pub(super) label: &'a str,
    pub(super) options: Vec<(String, String)>,
    pub(super) chosen: &'a str,
    pub(super) mistake: Option<&'a Mistake>,
}

impl Render for Select<'_> {
    fn render(&self) -> Markup {
        let error = self.mistake.and_then(|mistake| mistake.about(self.name));
        let described = described_by(self.name, None, error);
        html! {
            div.field {
                label for=(self.name) { (self.label) }
                select id=(self.name) name=(self.name) aria-invalid=[error.map(|_| "true")]
                    aria-describedby=[described.as_deref()] {
                    @for (value, words) in &self.options {
                        option value=(value) selected[value == self.chosen] { (words) }
                    }
                }
                (notes(self.name, None, error))
            }
        }
    }
}

fn described_by(name: &str, hint: Option<&str>, error: Option<&str>) -> Option<String> {
    let ids: Vec<String> = [hint.map(|_| "hint"), error.map(|_| "error")]
        .into_iter()
        .flatten()
        .map(|what| format!("{name}-{what}"))
        .collect();
    (!ids.is_empty()).then(|| ids.join(" "))
}

fn notes(name: &str, hint: Option<&str>, error: Option<&str>) -> Markup {
    html! {
        @if let Some(hint) = hint { p.hint id={ (name) "-hint" } { (hint) } }
        @if let Some(error) = error { p.error-text id={ (name) "-error" } { (error) } }
    }
}

/// A box to tick. It sends `yes`.
pub(super) fn tick(name: &str, label: &str, ticked: bool) -> Markup {
    html! {
        div.tick {
            input type="checkbox" id=(name) name=(name) value="yes" checked[ticked];
            label for=(name) { (label) }
        }
    }
}

/// A form that only this session can send.
pub(super) fn form_to(action: &str, visitor: &Visitor, content: &Markup) -> Markup {
    html! {
        form method="post" action=(action) {
            (hidden("proof", &visitor.form_proof()))
            (content)
        }
    }
}

/// A form that is only a button, with hidden fields.
pub(super) fn button_to(
    action: &str,
    visitor: &Visitor,
    label: &str,
    fields: &[(&str, &str)],
) -> Markup {
    named_button_to(action, visitor, label, None, fields)
}

/// The same, where several buttons have the same label: `heard` tells them apart for those who hear
/// the page.
pub(super) fn named_button_to(
    action: &str,
    visitor: &Visitor,
    label: &str,
    heard: Option<&str>,
    fields: &[(&str, &str)],
) -> Markup {
    form_to(
        action,
        visitor,
        &html! {
            @for (name, value) in fields { (hidden(name, value)) }
            button.plain { (label) @if let Some(heard) = heard { span.only-heard { " " (heard) } } }
        },
    )
}

pub(super) fn hidden(name: &str, value: &str) -> Markup {
    html! { input type="hidden" name=(name) value=(value); }
}
