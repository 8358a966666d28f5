//! What a refusal says, whatever the form of its body: status, challenge, message.

use std::borrow::Cow;

use super::{Facts, not_found, other_entity};
use crate::{
    api::{Insufficient, Manner, Scheme},
    body::{MAX_DECODED, MAX_DEPTH, MAX_MEMBERS, MAX_PARAMETERS, MAX_PARTS, MAX_RATIO, MAX_SHOWN},
    operation::EntityType,
    refusal::{Compressed, Denial, Excess, Fault, Malformed, NoModel, NotAToken, Refusal},
    wire::proto::envoy::r#type::v3::StatusCode,
};

pub(super) fn http_status(refusal: Refusal, manner: Manner) -> StatusCode {
    match (refusal, manner.insufficient) {
        (Refusal::BadRequest(_), _) => StatusCode::BadRequest,
        (
            Refusal::MissingCredential
            | Refusal::NotAToken(_)
            | Refusal::InvalidToken
            | Refusal::TokenNotYetIssued
            | Refusal::TokenExpired
            | Refusal::TokenRevoked
            | Refusal::OwnerDisabled,
            _,
        )
        | (Refusal::PermissionDenied | Refusal::OtherEntity(_), Insufficient::Unauthorized) => {
            StatusCode::Unauthorized
        }
        (Refusal::PermissionDenied | Refusal::OtherEntity(_), Insufficient::Forbidden) => {
            StatusCode::Forbidden
        }
        (Refusal::NoModel(why), insufficient) => match (why.fault(), insufficient) {
            (Fault::Body | Fault::Query, _) => StatusCode::BadRequest,
            (Fault::TooLong, _) => StatusCode::PayloadTooLarge,
            (Fault::Unsupported, _) => StatusCode::UnsupportedMediaType,
            (Fault::Permission, Insufficient::Unauthorized) => StatusCode::Unauthorized,
            (Fault::Permission, Insufficient::Forbidden) => StatusCode::Forbidden,
            (Fault::Rate, _) => StatusCode::TooManyRequests,
            (Fault::Time, _) => StatusCode::ServiceUnavailable,
        },
        (Refusal::NotFound, _) => StatusCode::NotFound,
        (Refusal::RateLimited | Refusal::TooManyBodies, _) => StatusCode::TooManyRequests,
        (Refusal::Unavailable, _) => StatusCode::ServiceUnavailable,
    }
}

pub(super) fn grpc_code(status: StatusCode) -> tonic::Code {
    match status {
        StatusCode::BadRequest | StatusCode::PayloadTooLarge | StatusCode::UnsupportedMediaType => {
            tonic::Code::InvalidArgument
        }
        StatusCode::Unauthorized => tonic::Code::Unauthenticated,
        StatusCode::NotFound => tonic::Code::NotFound,
        StatusCode::TooManyRequests => tonic::Code::ResourceExhausted,
        StatusCode::ServiceUnavailable => tonic::Code::Unavailable,
        StatusCode::Forbidden | StatusCode::Empty => tonic::Code::PermissionDenied,
    }
}

/// For the person who reads the client's error: what happened and what to do.
pub(crate) fn message(denial: &Denial, facts: &Facts<'_>) -> String {
    match (denial.refusal, denial.operation) {
        (Refusal::BadRequest(Malformed::Path), _) => {
            "The request path is not in canonical form: send it without empty, `.` or `..` \
             segments, percent-encoding, `;`, `\\`, `#` or a trailing slash, in visible ASCII \
             characters, and at most 4096 of them."
        }
        (Refusal::BadRequest(Malformed::Authorization), _) => {
            "The Authorization header has more than one value. Send exactly one."
        }
        (Refusal::BadRequest(Malformed::Credentials), _) => {
            "The request carries several credentials that differ. Send the access token once, or \
             the same one everywhere."
        }
        (Refusal::BadRequest(Malformed::TokenInQuery), _) => {
            "The query of the URL holds an access token. URLs are written to logs and histories, \
             so it is not accepted there. Send the token in a header, and replace it by a new one: \
             others may have read it."
        }
        (Refusal::BadRequest(Malformed::Connection), _) => {
            "The Connection header of an upgrade names more than `Upgrade` and `keep-alive`. Send \
             only these two."
        }
        (Refusal::BadRequest(Malformed::Authority), _) => {
            "The Host header has more than one value. Send exactly one."
        }
        (Refusal::BadRequest(Malformed::Message), _) => "The request could not be read.",
        (Refusal::MissingCredential, _) => {
            "No access token was sent. Send it as `Authorization: Bearer <token>`."
        }
        (Refusal::NotAToken(what), _) => not_a_token(what),
        (Refusal::InvalidToken, _) => {
            "The access token is not valid. Check that it was copied completely and still exists."
        }
        (Refusal::TokenNotYetIssued, _) => {
            "The access token says that it was issued in the future. Ask an administrator."
        }
        (Refusal::TokenExpired, _) => "The access token has expired. Create a new one.",
        (Refusal::TokenRevoked, _) => "The access token was revoked. Create a new one.",
        (Refusal::OwnerDisabled, _) => {
            "The owner of the access token is disabled. Ask an administrator."
        }
        (Refusal::PermissionDenied, Some(operation)) => {
            return format!(
                "The access token does not permit `{operation}` here: it needs a scope for it in \
                 this domain, and its owner a role with it."
            );
        }
        (Refusal::PermissionDenied, None) => "The access token does not permit this.",
        (Refusal::OtherEntity(limit), _) => return other_entity::message(denial, limit, facts),
        (Refusal::NotFound, _) => return not_found::message(facts),
        (Refusal::NoModel(why), _) => {
            return format!(
                "It must be known here which model this call is for. {}",
                no_model(why, facts.shown)
            );
        }
        (Refusal::RateLimited, _) => {
            "The access token was refused too often lately. Wait a second, and find out why its \
             requests are refused before you repeat them."
        }
        (Refusal::TooManyBodies, _) => {
            "Too many requests with a body are under way with this access token. Send fewer at a \
             time, or shorter ones, and retry."
        }
        (Refusal::Unavailable, _) => {
            "Authorization is temporarily unavailable. Nothing is wrong with the request: retry."
        }
    }
    .to_owned()
}

/// What was sent in place of a token.
fn not_a_token(what: NotAToken) -> &'static str {
    match what {
        NotAToken::NoScheme => {
            "The Authorization header has no scheme. Send `Authorization: Bearer <token>`."
        }
        NotAToken::OtherScheme => {
            "The Authorization header has a scheme that is not accepted here. Send `Authorization: \
             Bearer <token>`."
        }
        NotAToken::Blank => {
            "The access token is empty or has blanks in it. Send it whole, behind exactly one space."
        }
        NotAToken::ForeignKey => {
            "This is the key of another vendor. Send an access token of this gateway."
        }
        NotAToken::Variable => {
            "This is the name of a variable, not an access token: the client did not replace it."
        }
        NotAToken::OtherPrefix => "The access token has a prefix that is not used here.",
    }
}

/// What to change about a body, or about the gateway, so that a model can be read. So many bytes
/// were `shown`.
pub(crate) fn no_model(why: NoModel, shown: usize) -> Cow<'static, str> {
    let told = match why {
        NoModel::NotShown => {
            "No body was shown to authorization: send one that names the model. If you did, the \
             gateway must set `with_request_body` with `pack_as_bytes` on this route."
        }
        NoModel::Cut => return too_long(shown).into(),
        NoModel::Encoded => {
            "The body is compressed or encoded in a way that is not read: send it without \
             Content-Encoding, or with gzip or zstd alone."
        }
        NoModel::CompressedForm => "The form is compressed: send it without Content-Encoding.",
        NoModel::Compressed(why) => return compressed(why),
        NoModel::TooMuchAtOnce | NoModel::NotInTime => {
            "The compressed body could not be decoded now: retry."
        }
        NoModel::NotJson => "Send JSON in UTF-8, with `Content-Type: application/json`.",
        NoModel::NotForm => {
            "Send a form, with `Content-Type: multipart/form-data` and a boundary of letters, \
             digits, `-` and `_` as its only parameter."
        }
        NoModel::MalformedJson { at } => {
            return format!(
                "The body is not one well-formed JSON object in UTF-8 (near byte {at})."
            )
            .into();
        }
        NoModel::Excessive(excess) => return excessive(excess).into(),
        NoModel::MalformedForm { part: 0 } => {
            "The form is malformed, or can be read in more than one way: it does not begin with \
             its boundary."
        }
        NoModel::MalformedForm { part } => {
            return format!(
                "The form is malformed, or can be read in more than one way (part {part})."
            )
            .into();
        }
        NoModel::Absent => "The body names no model: send `model`.",
        NoModel::Repeated => {
            "The body names more than one model: send `model` once, and no other \
                              spelling of it."
        }
        NoModel::NotAName => {
            "The body's `model` is not a text of 1 to 256 characters without control characters."
        }
        NoModel::Rival(member) => {
            return format!("`{member}` may choose another model: send `model` without it.").into();
        }
        NoModel::InQuery => {
            "The query must not name a model: send no `model` in it, nor a key with `%` or `+`."
        }
        NoModel::Endless => {
            "The body has no Content-Length, and may be longer than what the gateway shows to \
             authorization: send its length."
        }
        NoModel::Elsewhere => {
            "This call names its models in a way that is not read, so it needs both without limits."
        }
    };
    told.into()
}

/// The limit is what was shown; in the first of two steps, what the second would be shown.
fn too_long(shown: usize) -> String {
    let limit = if shown == 0 { MAX_SHOWN } else { shown as u64 };
    let limit = match (limit >> 20, limit % (1 << 20)) {
        (whole, 0) => format!("{whole} MiB"),
        _ => format!("{limit} bytes"),
    };
    format!(
        "The body is longer than the {limit} of it that the gateway shows to authorization: send a \
         shorter one. A token and a domain that are not limited to some models have no such limit."
    )
}

/// What to change about a compressed body.
fn compressed(why: Compressed) -> Cow<'static, str> {
    let told = match why {
        Compressed::Malformed => {
            "The compressed body is damaged, or is not exactly one gzip member or one zstd frame, \
             as its Content-Encoding says."
        }
        Compressed::Optional => {
            "The compressed body uses an option that is not read: a field such as a name in the \
             header of gzip, or a dictionary or a window of more than 8 MiB in zstd. Compress it \
             without, or send it without Content-Encoding."
        }
        Compressed::TooLong => {
            let limit = MAX_DECODED / (1024 * 1024);
            return format!("The compressed body becomes longer than {limit} MiB.").into();
        }
        Compressed::TooDense => {
            return format!(
                "The compressed body becomes more than {MAX_RATIO} times as long as it was sent: \
                 send it without Content-Encoding."
            )
            .into();
        }
        Compressed::TooManyBlocks => {
            "The compressed body consists of very many small blocks: compress it in one go, or \
             send it without Content-Encoding."
        }
    };
    told.into()
}

/// What to send less of.
fn excessive(excess: Excess) -> String {
    match excess {
        Excess::Depth => format!("The JSON body is nested more than {MAX_DEPTH} levels deep."),
        Excess::Members => {
            format!("The JSON object in the body has more than {MAX_MEMBERS} members: send fewer.")
        }
        Excess::Parts => format!("The form has more than {MAX_PARTS} parts: send fewer."),
        Excess::Parameters => {
            format!("The query has more than {MAX_PARAMETERS} parameters: send fewer.")
        }
    }
}

/// One challenge for each scheme (RFC 9110, section 11.6.1). RFC 6750, section 3: no error parameter
/// when no credential was sent; only `Bearer` defines any.
pub(super) fn challenge(denial: &Denial, manner: Manner, message: &str) -> Option<String> {
    let error = match (denial.refusal, denial.operation) {
        (Refusal::NoModel(why), _) if why.fault() != Fault::Permission => return None,
        (
            Refusal::BadRequest(_)
            | Refusal::NotFound
            | Refusal::RateLimited
            | Refusal::TooManyBodies
            | Refusal::Unavailable,
            _,
        ) => return None,
        (Refusal::MissingCredential, _) => String::new(),
        (
            Refusal::PermissionDenied | Refusal::OtherEntity(_) | Refusal::NoModel(_),
            Some(operation),
        ) => {
            format!(r#", error="insufficient_scope", scope="{operation}""#)
        }
        // A 401 must come with a challenge; a 403 need not.
        (Refusal::PermissionDenied | Refusal::OtherEntity(_) | Refusal::NoModel(_), None) => {
            match manner.insufficient {
                Insufficient::Forbidden => return None,
                Insufficient::Unauthorized => r#", error="insufficient_scope""#.to_owned(),
            }
        }
        _ => format!(r#", error="invalid_token", error_description="{message}""#),
    };
    let challenges = manner.sources.schemes().map(|scheme| match scheme {
        Scheme::Bearer => format!(r#"Bearer realm="patgate"{error}"#),
        Scheme::ApiKey => r#"Api-Key realm="patgate""#.to_owned(),
    });
    Some(challenges.collect::<Vec<_>>().join(", "))
}

/// Whether a denial is about the model of the request.
pub(super) fn is_about_model(denial: &Denial, facts: &Facts<'_>) -> bool {
    let of_models = || facts.action.is_none_or(|action| action.entity_type == EntityType::Models);
    match denial.refusal {
        Refusal::NoModel(why) => !why.fault().is_temporary(),
        Refusal::OtherEntity(_) => of_models(),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{api::CredentialSource, operation::Operation};

    #[test]
    fn a_401_has_a_challenge_for_each_scheme() {
        let bearer = Manner::default();
        let both =
            Manner { sources: bearer.sources.with(CredentialSource::ApiKeyScheme), ..bearer };
        let hub = Manner { insufficient: Insufficient::Unauthorized, ..bearer };
        let denied = Refusal::PermissionDenied;
        let read = Denial { operation: Some(Operation::Read), ..denied.into() };
        for (manner, denial, status, expected) in [
            (bearer, Refusal::MissingCredential.into(), 401, Some(r#"Bearer realm="patgate""#)),
            (
                both,
                Refusal::MissingCredential.into(),
                401,
                Some(r#"Bearer realm="patgate", Api-Key realm="patgate""#),
            ),
            (
                both,
                Refusal::TokenRevoked.into(),
                401,
                Some(
                    r#"Bearer realm="patgate", error="invalid_token", error_description="The access token was revoked. Create a new one.", Api-Key realm="patgate""#,
                ),
            ),
            (
                hub,
                read,
                401,
                Some(r#"Bearer realm="patgate", error="insufficient_scope", scope="read""#),
            ),
            (
                hub,
                denied.into(),
                401,
                Some(r#"Bearer realm="patgate", error="insufficient_scope""#),
            ),
            (bearer, denied.into(), 403, None),
            (hub, Refusal::NotFound.into(), 404, None),
            (hub, Refusal::from(NoModel::Absent).into(), 400, None),
            (hub, Refusal::from(NoModel::Cut).into(), 413, None),
            (hub, Refusal::from(NoModel::Encoded).into(), 415, None),
            (
                hub,
                Refusal::from(NoModel::Elsewhere).into(),
                401,
                Some(r#"Bearer realm="patgate", error="insufficient_scope""#),
            ),
            (hub, Refusal::RateLimited.into(), 429, None),
            (hub, Refusal::TooManyBodies.into(), 429, None),
            (hub, Refusal::Unavailable.into(), 503, None),
            (hub, Refusal::BadRequest(Malformed::Path).into(), 400, None),
        ] {
            let challenge = challenge(&denial, manner, &message(&denial, &Facts::default()));
            let got = http_status(denial.refusal, manner) as i32;
            assert_eq!((got, challenge.as_deref()), (status, expected), "{denial:?}");
        }
    }
}
