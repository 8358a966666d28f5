//! The message for a request in which no model can be read.

use std::borrow::Cow;

use crate::{
    body::{MAX_DECODED, MAX_DEPTH, MAX_MEMBERS, MAX_PARAMETERS, MAX_PARTS, MAX_RATIO, MAX_SHOWN},
    refusal::{CompressionFault, Excess, NoModel},
};

/// Returns what to change about a body, or about the gateway, so that a model can be read. `shown` is
/// the length in bytes of the part of the body that patgate was shown.
pub fn no_model(why: NoModel, shown: usize) -> Cow<'static, str> {
    let text = match why {
        NoModel::NotShown => {
            "No body arrived: send one that names the model. If you did send one, ask the operator \
             of the gateway: it must show bodies to authorization (in Envoy, `with_request_body` \
             with `pack_as_bytes`)."
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
        NoModel::UnfinishedJson { at } => {
            return format!(
                "The body ends after {at} bytes, before its JSON object does: send all of it."
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
    text.into()
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
fn compressed(why: CompressionFault) -> Cow<'static, str> {
    let text = match why {
        CompressionFault::Malformed => {
            "The compressed body is damaged, or is not exactly one gzip member or one zstd frame, \
             as its Content-Encoding says."
        }
        CompressionFault::Optional => {
            "The compressed body uses an option that is not read: a field such as a name in the \
             header of gzip, or a dictionary or a window of more than 8 MiB in zstd. Compress it \
             without, or send it without Content-Encoding."
        }
        CompressionFault::TooLong => {
            let limit = MAX_DECODED / (1024 * 1024);
            return format!("The compressed body becomes longer than {limit} MiB.").into();
        }
        CompressionFault::TooDense => {
            return format!(
                "The compressed body becomes more than {MAX_RATIO} times as long as it was sent: \
                 send it without Content-Encoding."
            )
            .into();
        }
        CompressionFault::TooManyBlocks => {
            "The compressed body consists of very many small blocks: compress it in one go, or \
             send it without Content-Encoding."
        }
    };
    text.into()
}

/// Says what to send less of.
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
