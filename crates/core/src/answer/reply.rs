//! What patgate answers to the client itself: an error, or a list of models.

use std::{borrow::Cow, fmt};

use super::{AnswerContext, MetadataValue, Metadatum};
use crate::{
    api::ErrorStyle,
    decide::AnsweredList,
    refusal::{Denial, Refusal},
    wording::{ErrorBody, ErrorStatus, challenge, is_about_model, message},
};

/// Seconds after which a client may ask again if patgate could not decide, or did not want to.
const RETRY_AFTER: &str = "1";

/// An answer to the client. The request reaches no backend.
pub struct Reply<'a> {
    error: Option<ErrorStatus>,
    reason: &'static str,
    headers: Vec<(&'static str, Cow<'a, str>)>,
    body: Cow<'a, str>,
    metadata: Vec<Metadatum<'a>>,
}

impl fmt::Debug for Reply<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Reply").field("status", &self.status()).finish_non_exhaustive()
    }
}

impl<'a> Reply<'a> {
    pub(super) fn of_denial(
        denial: &Denial,
        metadata: Vec<Metadatum<'a>>,
        context: &'a AnswerContext<'_>,
    ) -> Self {
        let message = message(denial, &context.message_context);
        let status = ErrorStatus::of(denial.refusal, context.api_style);
        let style = context.message_context.error_style();
        let code = denial.refusal.code();
        let error = ErrorBody {
            status,
            code,
            message: &message,
            about_model: is_about_model(denial, &context.message_context),
            request_id: context.request_id,
        };
        let (content_type, body) = error.write(style);
        let mut headers = headers(content_type, context);
        if style == ErrorStyle::Anthropic {
            // From here its clients take the id that they show.
            headers.push(("request-id", context.request_id.into()));
        }
        if let Some(challenge) = challenge(denial, context.api_style, &message) {
            headers.push(("www-authenticate", challenge.into()));
        }
        if is_temporary(denial.refusal) {
            headers.push(("retry-after", RETRY_AFTER.into()));
        }
        Self { error: Some(status), reason: code, headers, body: body.into(), metadata }
    }

    pub(super) fn of_list(
        list: &'a AnsweredList,
        mut metadata: Vec<Metadatum<'a>>,
        context: &'a AnswerContext<'_>,
    ) -> Self {
        let domain = list.domain();
        let texts: [(_, Option<Cow<'a, str>>); 3] = [
            ("domain_id", Some(domain.id.to_string().into())),
            ("domain_slug", Some(domain.slug.as_str().into())),
            ("model", list.model().map(Cow::from)),
        ];
        let texts = texts.into_iter();
        metadata.extend(texts.filter_map(|(name, text)| Some((name, MetadataValue::Text(text?)))));
        Self {
            error: None,
            reason: "answered",
            headers: headers("application/json", context),
            body: list.body().into(),
            metadata,
        }
    }

    /// Returns the HTTP status.
    pub fn status(&self) -> u16 {
        self.error.map_or(200, ErrorStatus::code)
    }

    /// Returns the status if the request is refused; `None` for a list.
    pub fn error(&self) -> Option<ErrorStatus> {
        self.error
    }

    /// Returns the reason in a word: the code of the refusal, or `answered`.
    pub fn reason(&self) -> &'static str {
        self.reason
    }

    /// Returns the headers.
    pub fn headers(&self) -> &[(&'static str, Cow<'a, str>)] {
        &self.headers
    }

    /// Returns the body; its media type is in the headers.
    pub fn body(&self) -> &str {
        &self.body
    }

    /// Returns the metadata.
    pub fn metadata(&self) -> &[Metadatum<'a>] {
        &self.metadata
    }
}

/// Returns the headers of every reply. It depends on the token, so no cache may keep it.
fn headers<'a>(
    content_type: &'static str,
    context: &'a AnswerContext<'_>,
) -> Vec<(&'static str, Cow<'a, str>)> {
    vec![
        ("content-type", content_type.into()),
        ("cache-control", "no-store".into()),
        ("x-request-id", context.request_id.into()),
    ]
}

/// Returns whether the client may send the same again in a moment.
fn is_temporary(refusal: Refusal) -> bool {
    match refusal {
        Refusal::RateLimited | Refusal::TooManyBodies | Refusal::Unavailable => true,
        Refusal::NoModel(why) => why.kind().is_temporary(),
        _ => false,
    }
}
