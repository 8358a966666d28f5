//! Reads the model that a call names in its body.
//!
//! The model that patgate reads must be the model that the backend uses. If two readers of the same
//! bytes could come to different models, or one of them sees more than patgate was shown, there is
//! no model, and a decision that needs one is a denial. Reading is one pass, does not recurse, and
//! allocates only for a decompressed body. It happens only if a decision depends on it. Its cost is
//! bounded by the length of the body, whatever is in it: a name is compared no further than the
//! names that matter, and named members, parts and parameters are counted, with a limit far above
//! what clients send.

mod encoding;
mod json;
mod member;
mod multipart;
mod name;

use std::fmt;

use self::encoding::Encoding;
pub(crate) use self::member::{in_query, model_in_query};
pub use self::{
    encoding::{MAX_DECODED, MAX_RATIO},
    json::{MAX_DEPTH, MAX_MEMBERS},
    member::MAX_PARAMETERS,
    multipart::MAX_PARTS,
};
pub use self::{
    encoding::{ResourceGate, ResourceNeed, gunzip},
    name::ModelName,
};
use crate::refusal::NoModel;

/// If a body without a length ends at a multiple of this, Envoy may have stopped showing it there.
/// Envoy is configured to show a multiple of this.
const SHOWN_BY: usize = 4096;

/// The longest body that a gateway in two steps is configured to show; a body without a length
/// counts as this long.
pub const MAX_SHOWN: u64 = 32 * 1024 * 1024;

/// Where a call names its model in its body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BodyForm {
    /// In the member `model` of a JSON object.
    Json,
    /// In the same member, for a backend that reads JSON whatever `Content-Type` says.
    JsonOfAnyType,
    /// In the part `model` of `multipart/form-data`.
    Multipart,
    /// In a place that patgate does not read.
    Other,
}

impl BodyForm {
    /// Returns the shortest body that names a model in this form, with its media type; `None` if there is
    /// none.
    pub fn naming(self, model: &str) -> Option<(&'static str, Vec<u8>)> {
        match self {
            Self::Json | Self::JsonOfAnyType => {
                let body = serde_json::json!({ "model": model }).to_string();
                Some(("application/json", body.into_bytes()))
            }
            Self::Multipart => {
                let body = format!(
                    "--patgate\r\ncontent-disposition: form-data; name=\"model\"\r\n\r\n{model}\r\n\
                     --patgate--\r\n"
                );
                Some(("multipart/form-data; boundary=patgate", body.into_bytes()))
            }
            Self::Other => None,
        }
    }
}

/// A body that an edge lends, with the headers that describe it.
#[derive(Clone, Copy, Default)]
pub struct Body<'a> {
    /// The bytes that Envoy has shown.
    pub bytes: &'a [u8],
    /// `x-envoy-auth-partial-body`: `false` if that was the whole body, absent if nothing was
    /// shown.
    pub partial: Option<&'a str>,
    /// The value of `content-length`.
    pub length: Option<&'a str>,
    /// The value of `content-encoding`.
    pub encoding: Option<&'a str>,
    /// The value of `content-type`.
    pub media_type: Option<&'a str>,
}

/// Hides the bytes: they hold what a person wrote to a model.
impl fmt::Debug for Body<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Body(…)")
    }
}

impl Body<'_> {
    /// Returns the one model that the body names.
    ///
    /// # Errors
    ///
    /// Returns the reason why it does not name exactly one.
    pub fn model(&self, form: BodyForm) -> Result<ModelName, NoModel> {
        self.model_with(form, &mut |_| Ok(()))
    }

    /// Returns the same, where decoding must ask for memory and time.
    ///
    /// # Errors
    ///
    /// Returns the reason why it does not name exactly one, or the error of `gate`.
    pub fn model_with(&self, form: BodyForm, gate: ResourceGate<'_>) -> Result<ModelName, NoModel> {
        let encoding = self.encoding_for(form)?;
        self.is_whole()?;
        let media_type = self.media_type.unwrap_or_default();
        match form {
            BodyForm::Json if !is_json(media_type) => Err(NoModel::NotJson),
            BodyForm::Json | BodyForm::JsonOfAnyType => match encoding {
                None => in_json(self.bytes),
                // More bytes may follow, which some decoders also read.
                Some(_) if self.may_go_on() => Err(NoModel::Endless),
                Some(encoding) => in_json(&encoding.decode(self.bytes, gate)?),
            },
            BodyForm::Multipart => {
                let boundary = boundary(media_type).ok_or(NoModel::NotForm)?;
                // Some readers of forms continue after the last delimiter.
                if self.may_go_on() {
                    return Err(NoModel::Endless);
                }
                multipart::model(self.bytes, boundary)
            }
            BodyForm::Other => Err(NoModel::Elsewhere),
        }
    }

    /// Returns how the body is compressed.
    ///
    /// # Errors
    ///
    /// Returns an error if patgate does not read this encoding, or not in this form.
    fn encoding_for(&self, form: BodyForm) -> Result<Option<Encoding>, NoModel> {
        if form == BodyForm::Other {
            return Err(NoModel::Elsewhere);
        }
        match (form, Encoding::of(self.encoding)?) {
            // Readers of forms also look for parts after other bytes, such as compressed ones.
            (BodyForm::Multipart, Some(_)) => Err(NoModel::CompressedForm),
            (_, encoding) => Ok(encoding),
        }
    }

    /// Checks whether the body could be read, before any of it is shown.
    ///
    /// # Errors
    ///
    /// Returns the reason why it could not be read, whatever it contains.
    pub(crate) fn may_be_read(&self, form: BodyForm) -> Result<(), NoModel> {
        self.encoding_for(form).map(drop)
    }

    /// Returns whether the body must be decoded.
    pub fn is_compressed(&self) -> bool {
        matches!(Encoding::of(self.encoding), Ok(Some(_)))
    }

    /// Returns whether the body may be longer than what was shown.
    fn may_go_on(&self) -> bool {
        self.length.is_none() && self.bytes.len().is_multiple_of(SHOWN_BY)
    }

    /// Checks that the body was shown whole, because a second model may follow a cut. A client may
    /// have sent `x-envoy-auth-partial-body` itself to an Envoy that shows no bodies, but then
    /// there are no bytes either. There are also none if `pack_as_bytes` is not set, where Envoy
    /// would have replaced bytes that are not UTF-8.
    fn is_whole(&self) -> Result<(), NoModel> {
        match self.partial {
            Some("false") => {}
            Some("true") => return Err(NoModel::Cut),
            _ => return Err(NoModel::NotShown),
        }
        if self.bytes.is_empty() {
            return Err(NoModel::NotShown);
        }
        // Envoy 1.40 also says `false` of the beginning of a longer body, if exactly as much as it
        // may show has arrived. Without a length, this cannot be noticed here. But nothing may
        // follow the end of an object, and a form that ends exactly there is refused.
        let same = |length: &str| is_length(length, self.bytes.len());
        if self.length.is_none_or(same) { Ok(()) } else { Err(NoModel::Cut) }
    }
}

fn in_json(bytes: &[u8]) -> Result<ModelName, NoModel> {
    let text = std::str::from_utf8(bytes)
        .map_err(|error| NoModel::MalformedJson { at: error.valid_up_to() })?;
    json::model(text)
}

/// Returns whether this is `application/json`, in UTF-8 if it names an encoding. Some backends
/// parse a body without looking at its type, others by its type alone: they agree only if the body
/// says what it is.
fn is_json(media_type: &str) -> bool {
    let (kind, parameter) = split(media_type);
    let utf8 = |value: &str| unquoted(value).eq_ignore_ascii_case("utf-8");
    kind.eq_ignore_ascii_case("application/json")
        && parameter.is_none_or(|text| parameter_named("charset", text).is_some_and(utf8))
}

/// Returns the boundary of `multipart/form-data`, which may have no other parameter. Of the
/// characters that RFC 2046 allows, it may have only those that every reader understands in the
/// same way; clients use no others.
fn boundary(media_type: &str) -> Option<&str> {
    let (kind, parameter) = split(media_type);
    let boundary = unquoted(parameter_named("boundary", parameter?)?);
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_');
    let fits = (1..=multipart::MAX_BOUNDARY).contains(&boundary.len());
    (kind.eq_ignore_ascii_case("multipart/form-data") && fits && boundary.bytes().all(plain))
        .then_some(boundary)
}

/// Splits a media type into the type and what follows the first semicolon. Another parameter ends
/// up in the value of the first, where the callers refuse it.
fn split(media_type: &str) -> (&str, Option<&str>) {
    match media_type.split_once(';') {
        Some((kind, parameter)) => (trimmed(kind), Some(trimmed(parameter))),
        None => (trimmed(media_type), None),
    }
}

/// Removes the optional white space of RFC 9110, section 5.6.3. Most readers treat other Unicode
/// spaces as a part of the value.
fn trimmed(value: &str) -> &str {
    value.trim_matches([' ', '\t'])
}

/// Returns whether a header's value is this length: only digits, because the standard library would
/// also read a sign.
fn is_length(value: &str, length: usize) -> bool {
    value.bytes().all(|byte| byte.is_ascii_digit()) && value.parse() == Ok(length)
}

fn parameter_named<'a>(name: &str, parameter: &'a str) -> Option<&'a str> {
    let (key, value) = parameter.split_once('=')?;
    key.eq_ignore_ascii_case(name).then_some(value)
}

fn unquoted(value: &str) -> &str {
    value.strip_prefix('"').and_then(|rest| rest.strip_suffix('"')).unwrap_or(value)
}

#[cfg(test)]
mod tests;
