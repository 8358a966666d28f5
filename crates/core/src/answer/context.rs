//! What an answer depends on besides the operator's settings.

use crate::{
    api::ApiStyle, decision::Decision, request::HeaderEdits, token::Tokens, wording::MessageContext,
};

/// The client's own headers, and what of them must not be forwarded.
pub struct ClientHeaders<'c, H> {
    /// Looks up a header by its lower-case name.
    pub header: H,
    /// The names of the cookies that must not reach a backend.
    pub cookies: &'c [Box<str>],
    /// Recognizes tokens, wherever they are.
    pub tokens: &'c Tokens,
}

/// A decision, and what its answer depends on besides.
///
/// The changes of the client's headers follow from the decision, and are made here with it: no caller
/// can combine a decision with the changes of another one, and so forward a token.
#[derive(Debug)]
pub struct AnswerContext<'a> {
    pub(super) decision: &'a Decision,
    pub(super) request_id: &'a str,
    pub(super) api_style: ApiStyle,
    pub(super) message_context: MessageContext<'a>,
    /// The changes of the client's own headers, if the request goes on.
    pub(super) edits: HeaderEdits,
}

impl<'a> AnswerContext<'a> {
    /// `headers` are those of the request. `request_id` is the gateway's id of the request; the client
    /// gets it too, to find the request in the logs. `api_style` says how the API that was called
    /// answers, and `message_context` what a denial may say about the request.
    pub fn new<'h, H>(
        decision: &'a Decision,
        headers: ClientHeaders<'_, H>,
        request_id: &'a str,
        api_style: ApiStyle,
        message_context: MessageContext<'a>,
    ) -> Self
    where
        H: Fn(&str) -> Option<&'h str>,
    {
        let ClientHeaders { header, cookies, tokens } = headers;
        let edits = match decision {
            _ if decision.permit().is_some() => HeaderEdits::for_a_backend(header, cookies, tokens),
            Decision::Unenforced(_) => HeaderEdits::of_tokens(header, cookies, tokens),
            Decision::Allow(_) | Decision::AnswerList(_) | Decision::Deny(_) => {
                HeaderEdits::default()
            }
        };
        Self { decision, request_id, api_style, message_context, edits }
    }

    /// Makes the context of a request with the id `r-1`, and with these changes of its headers.
    #[cfg(any(test, feature = "testing"))]
    pub fn for_tests(
        decision: &'a Decision,
        edits: HeaderEdits,
        message_context: MessageContext<'a>,
    ) -> Self {
        let api_style = ApiStyle::default();
        Self { decision, request_id: "r-1", api_style, message_context, edits }
    }
}
