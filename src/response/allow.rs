//! Writes an allow, by hand and in one pass: it is what nearly every check is answered with.
//!
//! The fields are those of the messages in `proto/`; a test reads them with Envoy's own
//! definitions, and compares with what the generated code would write.

use uuid::fmt::Hyphenated;

use super::HeaderNames;
use crate::{credential::Credential, decision::Permit};

/// Of `HeaderValueOption.append_action`. Always stated: what Envoy does when it is unset has changed
/// between releases.
const OVERWRITE_IF_EXISTS_OR_ADD: u8 = 2;

/// Appends the `CheckResponse` that lets a request pass as what `permit` says.
///
/// Every name is either set, with overwrite stated, or removed: a client's copy never survives.
pub(super) fn write(permit: &Permit, names: &HeaderNames, to: &mut Vec<u8>) {
    let mut texts = [[0; Hyphenated::LENGTH]; 3];
    let [domain, owner, token] = &mut texts;
    let domain: &str = permit.domain.id.0.hyphenated().encode_lower(domain);
    let owner: &str = permit.owner.0.hyphenated().encode_lower(owner);
    let token: &str = permit.token.0.hyphenated().encode_lower(token);
    let (slug, operation) = (permit.domain.slug.as_str(), permit.operation.as_str());

    let model = permit.model.as_deref();
    let credential = permit.credential.as_ref().map(Credential::expose);
    let headers = [
        (&*names.domain_id, Some(domain)),
        (&names.domain_slug, Some(slug)),
        (&names.user_id, Some(owner)),
        (&names.pat_id, Some(token)),
        (&names.operation, Some(operation)),
        (&names.upstream, Some(&*permit.upstream)),
        (&names.model, model),
        // The backend's own, or none; the client's token never.
        (AUTHORIZATION, credential),
    ];
    let metadata = [
        ("outcome", Some("allow")),
        ("code", Some("ok")),
        ("domain_id", Some(domain)),
        ("domain_slug", Some(slug)),
        ("user_id", Some(owner)),
        ("pat_id", Some(token)),
        ("operation", Some(operation)),
        ("model", model),
    ];
    // The status is there, and says OK by saying nothing.
    message(to, STATUS, 0);
    let sizes = headers.iter().map(|(name, value)| match value {
        Some(value) => field_size(option_size(name, value)),
        None => field_size(name.len()),
    });
    message(to, OK_RESPONSE, sizes.sum());
    for (name, value) in &headers {
        if let Some(value) = value {
            message(to, HEADERS, option_size(name, value));
            message(to, OPTION_HEADER, pair_size(name, value));
            text(to, KEY, name);
            text(to, VALUE, value);
            to.extend_from_slice(&[OPTION_APPEND_ACTION << 3, OVERWRITE_IF_EXISTS_OR_ADD]);
        }
    }
    for (name, value) in &headers {
        if value.is_none() {
            text(to, HEADERS_TO_REMOVE, name);
        }
    }

    let known = metadata.iter().filter_map(|(name, value)| Some((*name, (*value)?)));
    let entry_size =
        |(name, value): (&str, &str)| field_size(name.len()) + field_size(field_size(value.len()));
    let fields: usize = known.clone().map(|entry| field_size(entry_size(entry))).sum();
    message(to, DYNAMIC_METADATA, fields);
    for (name, value) in known {
        message(to, STRUCT_FIELDS, entry_size((name, value)));
        text(to, KEY, name);
        message(to, VALUE, field_size(value.len()));
        text(to, STRING_VALUE, value);
    }
}

const AUTHORIZATION: &str = "authorization";

/// Begins a field that holds `size` bytes.
fn message(to: &mut Vec<u8>, number: u8, size: usize) {
    to.push(number << 3 | 2);
    let mut rest = size;
    while rest >= 0x80 {
        to.push(rest as u8 | 0x80);
        rest >>= 7;
    }
    to.push(rest as u8);
}

fn text(to: &mut Vec<u8>, number: u8, text: &str) {
    message(to, number, text.len());
    to.extend_from_slice(text.as_bytes());
}

/// Of a field that holds `size` bytes: its key, its length, and these.
fn field_size(size: usize) -> usize {
    let bits = usize::BITS - (size | 1).leading_zeros();
    1 + bits.div_ceil(7) as usize + size
}

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

fn pair_size(name: &str, value: &str) -> usize {
    field_size(name.len()) + field_size(value.len())
}

fn option_size(name: &str, value: &str) -> usize {
    field_size(pair_size(name, value)) + 2
}
