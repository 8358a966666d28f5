//! The model that a call names in its body.
//!
//! What is read here is what the backend will use: where two readers of the same bytes could come
//! to different models, or one of them sees more than we were shown, there is no model, and a
//! decision that needs one is a denial. Reading is one pass, does not recurse, and allocates nothing
//! but what a compressed body becomes; it happens only when a decision depends on it. What it costs is bounded by the length
//! of the body, whatever is in it: a name is compared no further than the names that matter go, and
//! the members, parts and parameters that have names are counted, and bounded far above what
//! clients send.

mod encoding;
mod json;
mod member;
mod multipart;
mod name;

use std::fmt;

use self::encoding::Encoding;
pub(crate) use self::member::{in_query, model_in_query};
pub use self::{
    encoding::{Ask, Leave},
    name::ModelName,
};
pub(crate) use self::{
    encoding::{MAX_DECODED, MAX_RATIO},
    json::{MAX_DEPTH, MAX_MEMBERS},
    member::MAX_PARAMETERS,
    multipart::MAX_PARTS,
};
use crate::decision::NoModel;

/// A body without a length is not known to end where showing ends. Envoy is told to show a multiple
/// of this.
const SHOWN_BY: usize = 4096;

/// The longest body that a gateway in two steps is told to show; one without a length counts as one.
pub(crate) const MAX_SHOWN: u64 = 32 * 1024 * 1024;

/// How a call names its model in its body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// As the member `model` of a JSON object.
    Json,
    /// The same, for a backend that reads JSON whatever `Content-Type` says.
    JsonOfAnyType,
    /// As the part `model` of `multipart/form-data`.
    Multipart,
    /// In a way that is not read.
    Other,
}

/// A body as an edge lends it, with the headers that say what it is.
#[derive(Clone, Copy, Default)]
pub struct Body<'a> {
    /// What was shown of it.
    pub bytes: &'a [u8],
    /// `x-envoy-auth-partial-body`: `false` when that was all, absent when nothing was shown.
    pub partial: Option<&'a str>,
    /// `content-length`.
    pub length: Option<&'a str>,
    /// `content-encoding`.
    pub encoding: Option<&'a str>,
    /// `content-type`.
    pub media_type: Option<&'a str>,
}

/// It holds what a person wrote to a model.
impl fmt::Debug for Body<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Body(…)")
    }
}

impl Body<'_> {
    /// The one model that the body names.
    ///
    /// # Errors
    ///
    /// Whatever keeps it from naming exactly one.
    pub fn model(&self, form: Form) -> Result<ModelName, NoModel> {
        self.model_with(form, &mut |_| Ok(()))
    }

    /// The same, where decoding has to ask for memory and time.
    ///
    /// # Errors
    ///
    /// Whatever keeps it from naming exactly one, or what `leave` answers.
    pub fn model_with(&self, form: Form, leave: Leave<'_>) -> Result<ModelName, NoModel> {
        let encoding = self.encoding_for(form)?;
        self.is_whole()?;
        let media_type = self.media_type.unwrap_or_default();
        match form {
            Form::Json if !is_json(media_type) => Err(NoModel::NotJson),
            Form::Json | Form::JsonOfAnyType => match encoding {
                None => in_json(self.bytes),
                // More may follow, which some decoders read as well.
                Some(_) if self.may_go_on() => Err(NoModel::Endless),
                Some(encoding) => in_json(&encoding.decode(self.bytes, leave)?),
            },
            Form::Multipart => {
                let boundary = boundary(media_type).ok_or(NoModel::NotForm)?;
                // Some readers of forms go on behind the last delimiter.
                if self.may_go_on() {
                    return Err(NoModel::Endless);
                }
                multipart::model(self.bytes, boundary)
            }
            Form::Other => Err(NoModel::Elsewhere),
        }
    }

    /// How it is compressed.
    ///
    /// # Errors
    ///
    /// If it is not read so, or not read at all.
    fn encoding_for(&self, form: Form) -> Result<Option<Encoding>, NoModel> {
        if form == Form::Other {
            return Err(NoModel::Elsewhere);
        }
        match (form, Encoding::of(self.encoding)?) {
            // Readers of forms look for them behind other bytes, too, such as compressed ones.
            (Form::Multipart, Some(_)) => Err(NoModel::CompressedForm),
            (_, encoding) => Ok(encoding),
        }
    }

    /// Whether it could be read, as far as can be said before any of it is shown.
    ///
    /// # Errors
    ///
    /// What keeps it from that, whatever is in it.
    pub(crate) fn may_be_read(&self, form: Form) -> Result<(), NoModel> {
        self.encoding_for(form).map(drop)
    }

    /// Whether it has to be decoded.
    pub(crate) fn is_compressed(&self) -> bool {
        matches!(Encoding::of(self.encoding), Ok(Some(_)))
    }

    /// Whether it may be longer than what was shown.
    fn may_go_on(&self) -> bool {
        self.length.is_none() && self.bytes.len().is_multiple_of(SHOWN_BY)
    }

    /// A second model may follow a cut. A client may have sent `x-envoy-auth-partial-body` itself
    /// to an Envoy that shows no bodies, but then there are no bytes, either; nor are there where
    /// `pack_as_bytes` is not set, and what is not UTF-8 would have been replaced.
    fn is_whole(&self) -> Result<(), NoModel> {
        match self.partial {
            Some("false") => {}
            Some("true") => return Err(NoModel::Cut),
            _ => return Err(NoModel::NotShown),
        }
        if self.bytes.is_empty() {
            return Err(NoModel::NotShown);
        }
        // Envoy 1.40 says `false` of the beginning of a longer body, too, when exactly as much as
        // it may show has arrived. Without a length that is not noticed here; but nothing may
        // follow the end of an object, and a form that ends just there is refused.
        let same = |length: &str| is_length(length, self.bytes.len());
        if self.length.is_none_or(same) { Ok(()) } else { Err(NoModel::Cut) }
    }
}

fn in_json(bytes: &[u8]) -> Result<ModelName, NoModel> {
    let text = std::str::from_utf8(bytes)
        .map_err(|error| NoModel::MalformedJson { at: error.valid_up_to() })?;
    json::model(text)
}

/// `application/json`, in UTF-8 if it says so. Some backends parse a body without looking at its
/// type, others by its type alone: only when it says what it is do they agree.
fn is_json(media_type: &str) -> bool {
    let (kind, parameter) = split(media_type);
    let utf8 = |value: &str| unquoted(value).eq_ignore_ascii_case("utf-8");
    kind.eq_ignore_ascii_case("application/json")
        && parameter.is_none_or(|text| parameter_named("charset", text).is_some_and(utf8))
}

/// The boundary of `multipart/form-data`, which may have no other parameter. Of the characters
/// that RFC 2046 allows only those that no reader takes for something else; they are what clients
/// use.
fn boundary(media_type: &str) -> Option<&str> {
    let (kind, parameter) = split(media_type);
    let boundary = unquoted(parameter_named("boundary", parameter?)?);
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_');
    let fits = (1..=multipart::MAX_BOUNDARY).contains(&boundary.len());
    (kind.eq_ignore_ascii_case("multipart/form-data") && fits && boundary.bytes().all(plain))
        .then_some(boundary)
}

/// The type, and what follows the first semicolon. Another parameter ends up in the value of the
/// first, where nobody accepts it.
fn split(media_type: &str) -> (&str, Option<&str>) {
    match media_type.split_once(';') {
        Some((kind, parameter)) => (trimmed(kind), Some(trimmed(parameter))),
        None => (trimmed(media_type), None),
    }
}

/// Without the optional white space of RFC 9110, section 5.6.3. What Unicode counts as space
/// besides, most readers take for a part of the value.
fn trimmed(value: &str) -> &str {
    value.trim_matches([' ', '\t'])
}

/// Whether a header's value is this length: digits alone, where the standard library would also
/// read a sign.
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
