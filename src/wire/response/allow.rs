//! Writes an allow, by hand and in one pass: it is what nearly every check is answered with. From its
//! end to its beginning, so that the length of a part is known when it is written.
//!
//! The fields are those of the messages in `proto/`. Tests read them with Envoy's own definitions.

use bytes::{Buf, Bytes};
use uuid::fmt::Hyphenated;

use super::{AnswerSettings, milliseconds};
use crate::{
    credential::Credential,
    decide::Permit,
    provenance::Provenance,
    request::{COOKIES, HeaderEdit, HeaderEdits, SUBPROTOCOLS},
    rollout::Treatment,
    wire::codec::frame,
};

/// Of `HeaderValueOption.append_action`. Always stated: what Envoy does when it is unset has changed
/// between releases.
const OVERWRITE_IF_EXISTS_OR_ADD: u8 = 2;

/// The `CheckResponse` that lets a request pass as what `permit` says, as gRPC frames it.
///
/// Every name of ours is either set, with overwrite stated, or removed, and so is every header in
/// which clients send credentials: a client's copy never survives.
pub(super) fn write(
    permit: &Permit,
    provenance: &Provenance,
    settings: &AnswerSettings,
    edits: &HeaderEdits,
) -> Bytes {
    write_as(VERDICT, permit, provenance, settings, edits)
}

/// The same for a list of models that the mode does not have patgate answer.
pub(super) fn write_unanswered(
    permit: &Permit,
    by: Treatment,
    provenance: &Provenance,
    settings: &AnswerSettings,
    edits: &HeaderEdits,
) -> Bytes {
    let verdict =
        [("outcome", "answered"), ("code", "ok"), ("enforced", "false"), ("mode", by.as_str())];
    let verdict = verdict.map(|(name, value)| metadata_entry(name, value)).concat();
    write_as(&verdict, permit, provenance, settings, edits)
}

/// `verdict` is the encoded entries of the metadata that say what was decided.
#[inline]
fn write_as(
    verdict: &[u8],
    permit: &Permit,
    provenance: &Provenance,
    settings: &AnswerSettings,
    edits: &HeaderEdits,
) -> Bytes {
    let names = &settings.names;
    let mut texts = [[0; Hyphenated::LENGTH]; 3];
    let [domain, owner, token] = &mut texts;
    let domain: &str = permit.domain().id.0.hyphenated().encode_lower(domain);
    let owner: &str = permit.owner().0.hyphenated().encode_lower(owner);
    let token: &str = permit.token().0.hyphenated().encode_lower(token);
    let (slug, operation) = (permit.domain().slug.as_str(), permit.operation().as_str());

    let model = permit.model();
    let headers = [
        (&*names.domain_id, Some(domain)),
        (&names.domain_slug, Some(slug)),
        (&names.user_id, Some(owner)),
        (&names.pat_id, Some(token)),
        (&names.operation, Some(operation)),
        (&names.upstream, Some(permit.upstream())),
        (&names.model, model),
    ];
    // The backend's own, in the place where the backend wants it.
    let credential = permit.credential();
    let metadata = [
        ("domain_id", Some(domain)),
        ("domain_slug", Some(slug)),
        ("user_id", Some(owner)),
        ("pat_id", Some(token)),
        ("operation", Some(operation)),
        ("model", model),
        ("tier", Some(provenance.tier.as_str())),
    ];
    let mut frame = Backward::with_capacity(CAPACITY);
    frame.message(DYNAMIC_METADATA, |fields| {
        fields.bytes(&milliseconds(provenance.age).to_le_bytes());
        fields.bytes(AGE);
        for (name, value) in metadata.iter().rev() {
            if let Some(value) = value {
                fields.metadata(name, value);
            }
        }
        fields.bytes(settings.guard.entry());
        fields.bytes(verdict);
    });
    frame.message(OK_RESPONSE, |ok| {
        ok.bytes(settings.credentials_removed.but(credential.map(Credential::header)));
        for (name, change) in [(SUBPROTOCOLS, &edits.subprotocols), (COOKIES, &edits.cookies)] {
            match change {
                HeaderEdit::Keep => {}
                HeaderEdit::Remove => ok.text(HEADERS_TO_REMOVE, name),
                HeaderEdit::Set(value) => ok.overwrite(name, value),
            }
        }
        for (name, value) in headers.iter().rev() {
            if value.is_none() {
                ok.text(HEADERS_TO_REMOVE, name);
            }
        }
        if let Some(credential) = credential {
            ok.overwrite(credential.header().as_str(), credential.expose());
        }
        for (name, value) in headers.iter().rev() {
            if let Some(value) = value {
                ok.overwrite(name, value);
            }
        }
    });
    // The status is there, and says OK by saying nothing.
    frame.message(STATUS, |_| {});
    frame.into_frame()
}

/// One entry of the metadata, encoded.
pub(super) fn metadata_entry(name: &str, value: &str) -> Box<[u8]> {
    let mut entry = Backward::with_capacity(0);
    entry.metadata(name, value);
    entry.bytes[entry.at..].into()
}

/// The names of headers that are removed, encoded.
pub(super) fn removed<'a>(names: impl IntoIterator<Item = &'a str>) -> Box<[u8]> {
    let mut removed = Backward::with_capacity(0);
    names.into_iter().for_each(|name| removed.text(HEADERS_TO_REMOVE, name));
    removed.bytes[removed.at..].into()
}

/// Entries of the metadata that are always the same: `outcome` is `allow`, `code` is `ok`.
const VERDICT: &[u8] =
    b"\x0a\x12\x0a\x07outcome\x12\x07\x1a\x05allow\x0a\x0c\x0a\x04code\x12\x04\x1a\x02ok";
/// The entry `age_ms`, up to the eight bytes of its number.
const AGE: &[u8] = b"\x0a\x13\x0a\x06age_ms\x12\x09\x11";
/// Most allows fit.
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
    use envoy_types::pb::{
        envoy::service::auth::v3::{CheckResponse, check_response::HttpResponse},
        google::protobuf::value::Kind,
    };
    use prost::Message;

    use super::*;
    use crate::credential::{CredentialHeader, CredentialScheme};

    /// Names and values of all headers that are set, and the names of those that are removed.
    type Headers = (Vec<(String, String)>, Vec<String>);

    fn headers(frame: &Bytes) -> Headers {
        assert_eq!(frame[..5], frame::head(frame.len() - 5));
        let response = CheckResponse::decode(&frame[5..]).unwrap();
        let metadata = &response.dynamic_metadata.as_ref().unwrap().fields;
        let text = |name: &str| metadata[name].kind.clone().unwrap();
        assert_eq!(text("outcome"), Kind::StringValue("allow".to_owned()));
        assert_eq!(text("code"), Kind::StringValue("ok".to_owned()));
        assert_eq!(text("guard"), Kind::StringValue("gateway-7".to_owned()));
        assert_eq!(response.encoded_len(), frame.len() - 5, "nothing is unknown or in vain");
        assert_eq!(response.status.unwrap().code, 0);
        let Some(HttpResponse::OkResponse(ok)) = response.http_response else { panic!("no allow") };
        let set = ok.headers.into_iter().map(|option| {
            assert_eq!(option.append_action, i32::from(OVERWRITE_IF_EXISTS_OR_ADD));
            let header = option.header.unwrap();
            (header.key, header.value)
        });
        (set.collect(), ok.headers_to_remove)
    }

    /// Lengths on both sides of where a length takes another byte, and of what was made room for.
    #[test]
    fn whatever_the_lengths() {
        let settings = AnswerSettings::new("x-", "gateway-7");
        let edits = HeaderEdits { subprotocols: HeaderEdit::Remove, ..HeaderEdits::default() };
        for length in [1, 60, 113, 114, 115, 127, 128, 129, 500, 1000, 2000, 4000] {
            let text = "k".repeat(length);
            let places = CredentialHeader::ALL.iter().map(|place| (None, Some((*place, &text))));
            let without = [(Some(&text), None), (None, None)];
            for (model, credential) in places.chain(without) {
                let sent = credential.map(|(place, key)| match place {
                    CredentialHeader::Authorization => {
                        Credential::new(CredentialScheme::Bearer, key).unwrap()
                    }
                    CredentialHeader::XApiKey | CredentialHeader::ApiKey => {
                        Credential::bare(place, key).unwrap()
                    }
                });
                let model = model.map(String::as_str);
                let permit = patgate_core::testing::permit().with_for_tests(model, sent);
                let (set, removed) =
                    headers(&write(&permit, &Provenance::default(), &settings, &edits));
                let value = |name: &str| set.iter().find(|(set, _)| set == name).map(|(_, v)| &**v);
                assert_eq!(value("x-auth-model"), model);
                for place in CredentialHeader::ALL {
                    let expected = credential.filter(|(of, _)| of == place).map(|(_, key)| {
                        let bare = key.clone();
                        if *place == CredentialHeader::Authorization {
                            format!("Bearer {bare}")
                        } else {
                            bare
                        }
                    });
                    assert_eq!(value(place.as_str()), expected.as_deref(), "{place}");
                    let removed = removed.iter().any(|name| name == place.as_str());
                    assert_eq!(removed, expected.is_none(), "{place}");
                }
                assert_eq!(set.len() + removed.len(), 15, "{set:?} {removed:?}");
            }
        }
    }

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
