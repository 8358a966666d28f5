//! Decodes an answer, so that `patgate check` can show it. Nothing is decided by it.

use std::{collections::BTreeMap, fmt};

use prost::Message;
use prost_types::value::Kind;

#[expect(clippy::disallowed_types, reason = "read here, not built")]
use crate::wire::proto::envoy::service::auth::v3::{CheckResponse, check_response::HttpResponse};
use crate::{answer::GUARD, wire::codec::frame, wording::message_of};

/// The answer of a replica, without the headers: one of them may be a backend's credential.
#[derive(Debug, serde::Serialize)]
pub(crate) struct DecodedAnswer {
    /// The HTTP status; 200 for an allow.
    pub(crate) status: u16,
    /// The code of the dynamic metadata: `ok`, or that of the refusal.
    pub(crate) code: String,
    /// The message in the error body, if the request is refused.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) message: Option<String>,
    /// The other entries of the dynamic metadata, by name, except the guard's word.
    pub(crate) metadata: BTreeMap<String, String>,
}

impl DecodedAnswer {
    /// Decodes the gRPC frame of an answer. Returns `None` if it holds no answer of patgate's.
    pub(crate) fn decode(frame: &[u8]) -> Option<Self> {
        let (_, bytes) = frame.split_at_checked(frame::HEAD)?;
        #[expect(clippy::disallowed_types, reason = "read here, not built")]
        let response = CheckResponse::decode(bytes).ok()?;
        let fields = response.dynamic_metadata.unwrap_or_default().fields;
        let mut metadata: BTreeMap<_, _> = fields
            .into_iter()
            .filter_map(|(name, value)| match value.kind? {
                Kind::StringValue(text) => Some((name, text)),
                Kind::NumberValue(number) => Some((name, number.to_string())),
                _ => None,
            })
            .collect();
        // The same for all that passes: no fact about this request.
        metadata.remove(GUARD);
        let (status, message) = match response.http_response? {
            HttpResponse::OkResponse(_) => (200, None),
            HttpResponse::DeniedResponse(denied) => {
                (u16::try_from(denied.status?.code).ok()?, message_of(&denied.body))
            }
        };
        Some(Self { status, code: metadata.remove("code")?, message, metadata })
    }

    /// Returns the verdict in a word, as in the dynamic metadata.
    pub(crate) fn outcome(&self) -> &str {
        self.fact("outcome").unwrap_or_default()
    }

    /// Returns the mode because of which the verdict is not enforced, if the request goes on.
    pub(crate) fn unenforced_by(&self) -> Option<&str> {
        let passes = self.status == 200 && self.fact("enforced") == Some("false");
        self.fact("mode").filter(|_| passes)
    }

    fn fact(&self, name: &str) -> Option<&str> {
        self.metadata.get(name).map(String::as_str)
    }
}

impl fmt::Display for DecodedAnswer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { status, code, .. } = self;
        match self.unenforced_by() {
            Some(mode) if self.outcome() == "answered" => {
                write!(f, "{status}, sends on what it would answer itself (mode {mode})")
            }
            Some(mode) => write!(f, "{status}, lets {code} through (mode {mode})"),
            None if self.outcome() == "answered" => write!(f, "{status} {code}, by itself"),
            None => write!(f, "{status} {code}"),
        }
    }
}
