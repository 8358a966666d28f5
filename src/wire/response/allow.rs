//! Writes an allow, by hand and in one pass: it is what nearly every check is answered with. From its
//! end to its beginning, so that the length of a part is known when it is written.
//!
//! The fields are those of the messages in `proto/`. Tests read them with Envoy's own definitions.

use bytes::{Buf, Bytes};

use crate::{
    answer::{AGE_MS, Allow, AnswerSettings, credential_headers_except},
    credential::CredentialHeader,
    wire::codec::frame,
};

/// Of `HeaderValueOption.append_action`. Always stated: what Envoy does when it is unset has changed
/// between releases.
const OVERWRITE_IF_EXISTS_OR_ADD: u8 = 2;

/// What is the same in every allow, encoded once instead of for each.
#[derive(Debug)]
pub(super) struct Preencoded {
    /// The metadata of a verdict that is enforced.
    verdict: Box<[u8]>,
    /// The removal of the headers in which clients send credentials.
    all_removed: Box<[u8]>,
    /// The same of all but one of them, by [`CredentialHeader::ALL`].
    all_but_one_removed: Box<[Box<[u8]>]>,
}

impl Preencoded {
    pub(super) fn new(settings: &AnswerSettings) -> Self {
        let verdict = written(|fields| {
            settings
                .verdict_metadata(None)
                .rev()
                .for_each(|(name, value)| fields.metadata(name, value));
        });
        let removed = |set| {
            written(|ok| {
                credential_headers_except(set)
                    .rev()
                    .for_each(|name| ok.text(HEADERS_TO_REMOVE, name));
            })
        };
        let all_but_one_removed =
            CredentialHeader::ALL.iter().map(|place| removed(Some(*place))).collect();
        Self { verdict, all_removed: removed(None), all_but_one_removed }
    }

    /// Returns the removal of the headers, except the one that is set, if one is.
    fn credentials_removed(&self, set: Option<CredentialHeader>) -> &[u8] {
        let but_one = set.and_then(|place| self.all_but_one_removed.get(place as usize));
        but_one.unwrap_or(&self.all_removed)
    }
}

/// Returns an allow as a `CheckResponse` in its gRPC frame.
pub(super) fn write(allow: &Allow<'_>, preencoded: &Preencoded) -> Bytes {
    let mut frame = Backward::with_capacity(CAPACITY);
    frame.message(DYNAMIC_METADATA, |fields| {
        fields.number(AGE_MS, allow.age_ms());
        allow.facts().rev().for_each(|(name, value)| fields.metadata(name, value));
        match allow.unenforced_by() {
            None => fields.bytes(&preencoded.verdict),
            Some(_) => {
                allow
                    .verdict_metadata()
                    .rev()
                    .for_each(|(name, value)| fields.metadata(name, value));
            }
        }
    });
    frame.message(OK_RESPONSE, |ok| {
        ok.bytes(preencoded.credentials_removed(allow.credential_header()));
        let removed = allow.headers_removed_besides_credentials();
        removed.rev().for_each(|name| ok.text(HEADERS_TO_REMOVE, name));
        allow.headers_set().rev().for_each(|(name, value)| ok.overwrite(name, value));
    });
    // The status is there, and says OK by saying nothing.
    frame.message(STATUS, |_| {});
    frame.into_frame()
}

/// Returns what `write` writes.
fn written(write: impl FnOnce(&mut Backward)) -> Box<[u8]> {
    let mut message = Backward::with_capacity(0);
    write(&mut message);
    message.bytes[message.at..].into()
}

/// The initial capacity of an allow in bytes; most allows fit.
const CAPACITY: usize = 1024;

/// Field numbers, all below 16: each key is one byte.
const STATUS: u8 = 1;
const OK_RESPONSE: u8 = 3;
const DYNAMIC_METADATA: u8 = 4;
const HEADERS: u8 = 2;
const HEADERS_TO_REMOVE: u8 = 5;
const OPTION_HEADER: u8 = 1;
const OPTION_APPEND_ACTION: u8 = 3;
const STRUCT_FIELDS: u8 = 1;
const NUMBER_VALUE: u8 = 2;
const STRING_VALUE: u8 = 3;
/// Of `HeaderValue` and of the entry of a map.
const KEY: u8 = 1;
const VALUE: u8 = 2;

/// A message that grows towards its beginning.
struct Backward {
    bytes: Vec<u8>,
    /// Where what is written begins.
    at: usize,
}

impl Backward {
    fn with_capacity(capacity: usize) -> Self {
        Self { bytes: vec![0; capacity], at: capacity }
    }

    /// Puts a field that holds a message, or nothing, before what is there.
    #[inline]
    fn message(&mut self, number: u8, write: impl FnOnce(&mut Self)) {
        let length = |of: &Self| of.bytes.len() - of.at;
        let before = length(self);
        write(self);
        self.head(number, length(self) - before);
    }

    #[inline]
    fn text(&mut self, number: u8, text: &str) {
        self.bytes(text.as_bytes());
        self.head(number, text.len());
    }

    /// Puts an entry of the metadata.
    #[inline]
    fn metadata(&mut self, name: &str, value: &str) {
        self.message(STRUCT_FIELDS, |entry| {
            entry.message(VALUE, |kind| kind.text(STRING_VALUE, value));
            entry.text(KEY, name);
        });
    }

    /// Puts an entry of the metadata that is a number.
    #[inline]
    fn number(&mut self, name: &str, value: f64) {
        self.message(STRUCT_FIELDS, |entry| {
            entry.message(VALUE, |kind| {
                kind.bytes(&value.to_le_bytes());
                // Of eight bytes.
                kind.bytes(&[NUMBER_VALUE << 3 | 1]);
            });
            entry.text(KEY, name);
        });
    }

    /// Puts a header that replaces every copy of the client's.
    #[inline]
    fn overwrite(&mut self, name: &str, value: &str) {
        self.message(HEADERS, |option| {
            option.bytes(&[OPTION_APPEND_ACTION << 3, OVERWRITE_IF_EXISTS_OR_ADD]);
            option.message(OPTION_HEADER, |header| {
                header.text(VALUE, value);
                header.text(KEY, name);
            });
        });
    }

    /// What a field with so many bytes begins with.
    #[inline]
    fn head(&mut self, number: u8, length: usize) {
        let key = number << 3 | 2;
        if length < 0x80 {
            self.bytes(&[key, length as u8]);
        } else if length < 0x4000 {
            self.bytes(&[key, length as u8 | 0x80, (length >> 7) as u8]);
        } else {
            let mut bytes = vec![key];
            prost::encoding::encode_varint(length as u64, &mut bytes);
            self.bytes(&bytes);
        }
    }

    #[inline]
    fn bytes(&mut self, bytes: &[u8]) {
        if self.at < bytes.len() {
            self.grow(bytes.len());
        }
        let end = self.at;
        self.at -= bytes.len();
        self.bytes[self.at..end].copy_from_slice(bytes);
    }

    #[cold]
    fn grow(&mut self, by: usize) {
        let room = self.bytes.len().max(by);
        self.bytes.splice(0..0, std::iter::repeat_n(0, room));
        self.at += room;
    }

    fn into_frame(mut self) -> Bytes {
        let length = self.bytes.len() - self.at;
        self.bytes(&frame::head(length));
        let mut frame = Bytes::from(self.bytes);
        frame.advance(self.at);
        frame
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whatever_the_room() {
        for length in [0, 127, 128, 16_383, 16_384, 20_000] {
            let text = "k".repeat(length);
            let (mut inner, mut outer) = (Vec::new(), Vec::new());
            prost::encoding::string::encode(2, &text, &mut inner);
            prost::encoding::bytes::encode(3, &inner, &mut outer);
            for room in [0, 1, length, 2 * length] {
                let mut message = Backward::with_capacity(room);
                message.message(3, |message| message.text(2, &text));
                assert_eq!(message.into_frame()[5..], outer, "{length} {room}");
            }
        }
    }
}
