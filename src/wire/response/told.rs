//! Reads an answer back, to show it to an administrator. Nothing is decided by it.

use std::{collections::BTreeMap, fmt};

use prost::Message;
use prost_types::value::Kind;

#[expect(clippy::disallowed_types, reason = "read here, not built")]
use crate::wire::proto::envoy::service::auth::v3::{CheckResponse, check_response::HttpResponse};
use crate::{answer::GUARD, wire::codec::frame, wording::message_of};

/// What a replica has answered, without the headers: one of them may be a backend's credential.
#[derive(Debug, serde::Serialize)]
pub(crate) struct Told {
    /// The HTTP status; 200 for an allow.
    pub(crate) status: u16,
    /// As in the dynamic metadata.
    pub(crate) code: String,
    /// What the client is told.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) message: Option<String>,
    /// The other facts of the dynamic metadata, by name.
    pub(crate) metadata: BTreeMap<String, String>,
}

impl Told {
    /// Nothing for a frame that holds no answer of patgate's.
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

    pub(crate) fn outcome(&self) -> &str {
        self.fact("outcome").unwrap_or_default()
    }

    /// What applied to a request that was refused and passes all the same.
    pub(crate) fn softened_by(&self) -> Option<&str> {
        let passes = self.status == 200 && self.fact("enforced") == Some("false");
        self.fact("mode").filter(|_| passes)
    }

    fn fact(&self, name: &str) -> Option<&str> {
        self.metadata.get(name).map(String::as_str)
    }
}

impl fmt::Display for Told {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { status, code, .. } = self;
        match self.softened_by() {
            Some(mode) if self.outcome() == "answered" => {
                write!(f, "{status}, sends on what it would answer itself (mode {mode})")
            }
            Some(mode) => write!(f, "{status}, lets {code} through (mode {mode})"),
            None if self.outcome() == "answered" => write!(f, "{status} {code}, by itself"),
            None => write!(f, "{status} {code}"),
        }
    }
}
