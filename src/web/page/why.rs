//! What the gateway would answer to a request with one of the visitor's tokens, and why.

use std::sync::Arc;

use axum::{
    extract::{Path, State},
    http::StatusCode,
    response::Response,
};
use maud::{Markup, html};
use serde::Deserialize;

use super::{
    Fault,
    form::{Field, Select},
    input::{Asked, Visitor, token_id},
    layout::{Frame, answer, page},
};
use crate::{
    admin::web::{AskedRequest, OwnToken},
    explain::Verdict,
    web::Site,
};

const METHODS: [&str; 5] = ["GET", "POST", "PUT", "PATCH", "DELETE"];

/// What the address asks. Without a path, nothing is asked yet.
#[derive(Default, Deserialize)]
#[serde(default)]
pub(super) struct Question {
    method: String,
    path: String,
    model: String,
}

pub(super) async fn show(
    State(site): State<Arc<Site>>,
    Path(id): Path<String>,
    visitor: Visitor,
    Asked(question): Asked<Question>,
) -> Result<Response, Fault> {
    let id = token_id(&id)?;
    let token = site.service.token(&visitor.caller, id).await?;
    let path = question.path.trim();
    let verdict = if path.is_empty() {
        None
    } else {
        let model = question.model.trim();
        let asked = AskedRequest {
            method: question.method.clone(),
            path: within(&site.settings.gateway_url, path).to_owned(),
            host: String::new(),
            model: (!model.is_empty()).then(|| model.to_owned()),
        };
        Some(site.service.why(&visitor.caller, id, &asked).await?)
    };
    Ok(answer(StatusCode::OK, render(&visitor, &token, &question, verdict.as_ref())))
}

/// The path, if a whole URL of the gateway was pasted.
fn within<'t>(gateway: &str, text: &'t str) -> &'t str {
    let rest = text.strip_prefix(gateway).filter(|_| !gateway.is_empty());
    rest.filter(|rest| rest.starts_with('/')).unwrap_or(text)
}

fn render(
    visitor: &Visitor,
    token: &OwnToken,
    question: &Question,
    verdict: Option<&Verdict>,
) -> Markup {
    let method = Select {
        name: "method",
        label: "Method",
        options: METHODS.map(|method| (method.to_owned(), method.to_owned())).into(),
        chosen: &question.method,
        mistake: None,
    };
    let content = html! {
        h1 { "Why was I refused?" }
        p { "What the gateway would answer now to a request with the token " strong { (token.name) } "." }
        form method="get" action={ "/tokens/" (token.id) "/why" } {
            (method)
            (Field::new("path", "Path")
                .value(&question.path)
                .hint("as the client sends it, such as /proxy/acme/v1/chat/completions"))
            (Field::new("model", "Model, if the request names one").value(&question.model).optional())
            button { "Ask" }
        }
        @if let Some(verdict) = verdict { (reasons(verdict)) }
        p { a href={ "/tokens/" (token.id) } { "Details of the token" } }
    };
    page("Why was I refused?", Frame::Of(visitor), &content)
}

fn reasons(verdict: &Verdict) -> Markup {
    html! {
        h2 { "The answer" }
        p role="status" {
            @match &verdict.message {
                Some(message) => { strong { (verdict.status) " " (verdict.code) } ": " (message) },
                None => strong { "The request is allowed." },
            }
        }
        h3 { "What was examined" }
        ol {
            @for step in &verdict.explanation.steps {
                li {
                    strong { (step.step) @if step.passed { ": passed" } @else { ": failed" } }
                    " – " (step.detail)
                }
            }
        }
        @if let Some(nearest) = &verdict.explanation.nearest { p { (nearest) } }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_of_the_gateway_is_a_path() {
        let gateway = "https://gateway.example";
        for (text, path) in [
            ("https://gateway.example/proxy/acme/v1", "/proxy/acme/v1"),
            ("/proxy/acme/v1", "/proxy/acme/v1"),
            ("https://gateway.example.org/x", "https://gateway.example.org/x"),
            ("https://gateway.example", "https://gateway.example"),
        ] {
            assert_eq!(within(gateway, text), path);
        }
        assert_eq!(within("", "/x"), "/x");
    }
}
