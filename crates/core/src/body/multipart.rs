//! Reads the part `model` of a form (RFC 7578).
//!
//! Readers of forms differ in almost everything that the RFC leaves open, and often in what it does
//! not. So this reads what the clients in use write, and refuses the rest.

use memchr::memmem;

use super::{
    ModelName, is_length,
    member::{self, Member},
    trimmed,
};
use crate::refusal::{Excess, NoModel};

/// The longest boundary (RFC 2046).
pub(super) const MAX_BOUNDARY: usize = 70;
const MAX_PART_NAME: usize = 64;
/// Readers also stop at 1000 (Starlette, Werkzeug, PHP), or earlier; clients send a dozen.
pub const MAX_PARTS: usize = 1000;
/// Most bytes of a part's headers and the empty line after them. Readers cut or drop what is
/// longer: from 4 KiB per header (python-multipart), 5 KiB per line (PHP), 80 KiB in all (Node's
/// busboy).
const MAX_HEAD: usize = 4096;
const CRLF: &[u8] = b"\r\n";
const EMPTY_LINE: &[u8] = b"\r\n\r\n";

/// Returns the content of the one part `model`.
///
/// The delimiter may occur only where it delimits, not even after a bare line feed or with more
/// text after it: some readers would see a delimiter there, and others would not. Nothing may
/// precede the first delimiter, and nothing may follow the last.
pub(super) fn model(form: &[u8], boundary: &str) -> Result<ModelName, NoModel> {
    let malformed = |part| NoModel::MalformedForm { part };
    let mut delimiter = [b'-'; 2 + MAX_BOUNDARY];
    let delimiter = delimiter.get_mut(..2 + boundary.len()).ok_or(malformed(0))?;
    delimiter[2..].copy_from_slice(boundary.as_bytes());
    let delimiters = memmem::Finder::new(delimiter);
    let empty_line = memmem::Finder::new(EMPTY_LINE);

    let mut rest = form.strip_prefix(&*delimiter).ok_or(malformed(0))?;
    let mut found = None;
    let mut parts = 0;
    while !matches!(rest, b"--" | b"--\r\n") {
        parts += 1;
        if parts > MAX_PARTS {
            return Err(NoModel::Excessive(Excess::Parts));
        }
        rest = rest.strip_prefix(CRLF).ok_or(malformed(parts))?;
        let end = delimiters.find(rest).ok_or(malformed(parts))?;
        let (part, after) = rest.split_at(end);
        rest = after.strip_prefix(&*delimiter).ok_or(malformed(parts))?;
        let part = part.strip_suffix(CRLF).ok_or(malformed(parts))?;
        let part = Part::read(part, &empty_line).ok_or(malformed(parts))?;
        match part.member() {
            Member::Other => {}
            Member::Model if found.is_none() => found = Some(part.model()?),
            Member::Model | Member::Variant => return Err(NoModel::Repeated),
            Member::Rival(rival) => return Err(NoModel::Rival(rival)),
        }
    }
    found.ok_or(NoModel::Absent)
}

struct Part<'a> {
    name: &'a str,
    is_file: bool,
    media_type: Option<&'a str>,
    content: &'a [u8],
}

impl<'a> Part<'a> {
    /// Accepts only headers that the clients in use write: others have a meaning for some reader,
    /// such as `Content-Encoding` for aiohttp and `X-Content-Disposition` for Rack.
    fn read(part: &'a [u8], empty_line: &memmem::Finder<'_>) -> Option<Self> {
        let end = empty_line.find(part.get(..MAX_HEAD).unwrap_or(part))?;
        let (head, content) = part.split_at_checked(end)?;
        let content = content.strip_prefix(EMPTY_LINE)?;
        let mut disposition = None;
        let mut media_type = None;
        let mut encoding = None;
        let mut length = None;
        for line in std::str::from_utf8(head).ok()?.split("\r\n") {
            let (name, value) = header(line)?;
            let (_, slot) = [
                ("content-disposition", &mut disposition),
                ("content-type", &mut media_type),
                ("content-transfer-encoding", &mut encoding),
                ("content-length", &mut length),
            ]
            .into_iter()
            .find(|(known, _)| name.eq_ignore_ascii_case(known))?;
            // Of two values, readers take either.
            if slot.replace(value).is_some() {
                return None;
            }
        }
        // Go's reader decodes quoted-printable, others do not.
        let plain = |value: &str| {
            ["7bit", "8bit", "binary"].iter().any(|known| value.eq_ignore_ascii_case(known))
        };
        let counted = |value: &str| is_length(value, content.len());
        // Some readers look for parts within parts, and some of them remove Unicode spaces first.
        let nested = |value: &str| {
            let kind = value.get(..10);
            !value.is_ascii() || kind.is_some_and(|kind| kind.eq_ignore_ascii_case("multipart/"))
        };
        if !encoding.is_none_or(plain)
            || !length.is_none_or(counted)
            || media_type.is_some_and(nested)
        {
            return None;
        }
        let (name, is_file) = self::disposition(disposition?)?;
        Some(Self { name, is_file, media_type, content })
    }

    fn member(&self) -> Member {
        let stem = member::stem(self.name);
        match Member::of(stem.chars()) {
            Member::Model if stem != self.name => Member::Variant,
            member => member,
        }
    }

    fn model(&self) -> Result<ModelName, NoModel> {
        let text = |value: &str| {
            ["text/plain", "text/plain; charset=utf-8"]
                .iter()
                .any(|known| value.eq_ignore_ascii_case(known))
        };
        if self.is_file || !self.media_type.is_none_or(text) {
            return Err(NoModel::NotAName);
        }
        let text = std::str::from_utf8(self.content).map_err(|_| NoModel::NotAName)?;
        ModelName::read(text.chars())
    }
}

/// Splits a header into name and value. A line that continues another one begins with a space,
/// which no name does.
fn header(line: &str) -> Option<(&str, &str)> {
    let (name, value) = line.split_once(':')?;
    let printable = |c: char| c == '\t' || !c.is_control();
    let value = trimmed(value);
    (is_token(name) && value.chars().all(printable)).then_some((name, value))
}

/// Reads `form-data; name="…"`, then perhaps a file's name. Returns the part's name, and whether it
/// is a file.
///
/// The name must come first, because some readers take the first `name="…"` that they find, even
/// the end of `filename="…"`. It must have no backslashes, which not all readers treat as escapes,
/// and no semicolons, at which some split.
fn disposition(value: &str) -> Option<(&str, bool)> {
    let kind = "form-data";
    let (head, mut rest) = value.split_at_checked(kind.len())?;
    let mut name = None;
    let mut filename = None;
    let mut extended = None;
    while let Some(parameter) = next_parameter(rest) {
        let (key, after) = parameter.split_once('=')?;
        let (value, after) = match after.strip_prefix('"') {
            Some(quoted) if key == "filename" => file_name(quoted)?,
            Some(quoted) => quoted.split_once('"')?,
            None => after.split_at(after.find([';', ' ', '\t']).unwrap_or(after.len())),
        };
        rest = after;
        let slot = match key {
            "name" if !value.contains(['\\', ';']) => &mut name,
            "filename" if name.is_some() => &mut filename,
            "filename*" if name.is_some() && is_token(value) => &mut extended,
            _ => return None,
        };
        if slot.replace(value).is_some() {
            return None;
        }
    }
    let known = head.eq_ignore_ascii_case(kind) && rest.is_empty();
    let name = name.filter(|name| known && is_part_name(name))?;
    Some((name, filename.is_some() || extended.is_some()))
}

/// Returns a file's name after its first quote, and what follows its last quote.
///
/// Readers differ in where a name with quotes, backslashes or semicolons ends, and in how they read
/// the rest. None finds another part's name in it, because that needs a `=`.
fn file_name(quoted: &str) -> Option<(&str, &str)> {
    let plain = quoted.split_once('"').filter(|(name, after)| {
        !name.contains(['\\', ';']) && (after.is_empty() || next_parameter(after).is_some())
    });
    if plain.is_some() {
        return plain;
    }
    let (name, after) = quoted.rsplit_once('"')?;
    let escapes = name.bytes().rev().take_while(|byte| *byte == b'\\').count();
    (!name.contains('=') && escapes.is_multiple_of(2)).then_some((name, after))
}

fn next_parameter(rest: &str) -> Option<&str> {
    Some(rest.trim_start_matches([' ', '\t']).strip_prefix(';')?.trim_start_matches([' ', '\t']))
}

/// Returns whether a name means the same to readers that trim, decode or nest. HTML gives
/// `_charset_` a meaning for the other parts.
fn is_part_name(name: &str) -> bool {
    let inner = |byte: u8| byte.is_ascii_alphanumeric() || b"_-.[]".contains(&byte);
    name.len() <= MAX_PART_NAME
        && name.starts_with(|first: char| first.is_ascii_alphanumeric() || first == '_')
        && name.bytes().all(inner)
        && !name.eq_ignore_ascii_case("_charset_")
}

/// Returns whether this is a token (RFC 9110, section 5.6.2).
fn is_token(text: &str) -> bool {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte);
    !text.is_empty() && text.bytes().all(allowed)
}
