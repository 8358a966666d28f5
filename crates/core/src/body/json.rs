//! Reads the member `model` of a JSON object (RFC 8259).
//!
//! It checks the whole text, not only the part before the member: if a member is repeated, some
//! readers take the first, others the last, and Go's reader also treats `Model` and `MODEL` as
//! `model`.
//!
//! Beyond the RFC, this reads what some readers refuse and all others read alike: one byte order
//! mark before the object, `NaN`, `Infinity` and `-Infinity` as values, and half a surrogate pair
//! in a text. A reader keeps or replaces such a half. In a name that matters, this makes two
//! different names, so it is refused there.

use super::{ModelName, member::Member};
use crate::refusal::{Excess, NoModel};

/// Most objects and arrays that are open at a time. Readers stop at 100 (PHP's lower settings), 128
/// (serde_json), or about 1000 (Python); requests for models stay far below. At most 128, the bits
/// of `Open`.
pub const MAX_DEPTH: u32 = 100;
/// Most members of the object itself, whose names are compared with those that matter. The
/// protected APIs define fewer than a hundred.
pub const MAX_MEMBERS: usize = 10_000;
const MALFORMED: JsonError = JsonError::Malformed;

/// What is wrong with a text. One byte long, so that it is returned in a register: it is checked
/// after each byte that is read.
#[derive(Clone, Copy)]
enum JsonError {
    Malformed,
    /// The text ends where something must follow.
    Ended,
    TooDeep,
}

impl From<JsonError> for NoModel {
    fn from(fault: JsonError) -> Self {
        match fault {
            JsonError::Malformed => Self::MalformedJson { at: 0 },
            JsonError::Ended => Self::UnfinishedJson { at: 0 },
            JsonError::TooDeep => Self::Excessive(Excess::Depth),
        }
    }
}

const BYTE_ORDER_MARK: char = '\u{feff}';

/// Returns the value of the one `model` at the top level.
pub(super) fn model(text: &str) -> Result<ModelName, NoModel> {
    let mut scan = Scan { text, at: 0, half: false };
    object(&mut scan).map_err(|why| match why {
        NoModel::MalformedJson { .. } => NoModel::MalformedJson { at: scan.at },
        NoModel::UnfinishedJson { .. } => NoModel::UnfinishedJson { at: scan.at },
        why => why,
    })
}

fn object(scan: &mut Scan<'_>) -> Result<ModelName, NoModel> {
    let text = scan.text;
    let mut found = None;
    let mut members = 0;
    if text.starts_with(BYTE_ORDER_MARK) {
        scan.at = BYTE_ORDER_MARK.len_utf8();
    }
    scan.space();
    scan.expect(b'{')?;
    scan.space();
    if !scan.eat(b'}') {
        loop {
            members += 1;
            if members > MAX_MEMBERS {
                return Err(NoModel::Excessive(Excess::Members));
            }
            scan.half = false;
            let key = scan.key()?;
            if scan.half {
                return Err(MALFORMED.into());
            }
            match Member::of(unescaped(key)) {
                Member::Other => scan.value()?,
                Member::Model if found.is_none() => found = Some(scan.name()?),
                Member::Model | Member::Variant => return Err(NoModel::Repeated),
                Member::Rival(rival) => return Err(NoModel::Rival(rival)),
            }
            scan.space();
            if scan.eat(b'}') {
                break;
            }
            scan.expect(b',')?;
            scan.space();
        }
    }
    scan.space();
    if scan.at < text.len() {
        return Err(MALFORMED.into());
    }
    found.ok_or(NoModel::Absent)
}

struct Scan<'a> {
    text: &'a str,
    at: usize,
    /// Whether half a surrogate pair was read since this was last set to false.
    half: bool,
}

impl<'a> Scan<'a> {
    fn rest(&self) -> &'a [u8] {
        self.text.as_bytes().get(self.at..).unwrap_or_default()
    }

    fn peek(&self) -> Option<u8> {
        self.text.as_bytes().get(self.at).copied()
    }

    fn next(&mut self) -> Result<u8, JsonError> {
        let byte = self.peek().ok_or(JsonError::Ended)?;
        self.at += 1;
        Ok(byte)
    }

    fn eat(&mut self, byte: u8) -> bool {
        let here = self.peek() == Some(byte);
        self.at += usize::from(here);
        here
    }

    fn expect(&mut self, byte: u8) -> Result<(), JsonError> {
        if self.eat(byte) { Ok(()) } else { Err(self.unexpected()) }
    }

    /// What is wrong if the next byte is not what must be there.
    fn unexpected(&self) -> JsonError {
        if self.peek().is_some() { MALFORMED } else { JsonError::Ended }
    }

    /// Byte by byte: most values that are skipped in this way have no such bytes, or few.
    #[inline(always)]
    fn skip(&mut self, what: impl Fn(u8) -> bool) -> usize {
        let from = self.at;
        while self.peek().is_some_and(&what) {
            self.at += 1;
        }
        self.at - from
    }

    #[inline(always)]
    fn space(&mut self) {
        self.skip(|byte| matches!(byte, b' ' | b'\t' | b'\n' | b'\r'));
    }

    /// Reads a key and its colon, up to the beginning of the value.
    fn key(&mut self) -> Result<&'a str, JsonError> {
        self.expect(b'"')?;
        let key = self.string()?;
        self.space();
        self.expect(b':')?;
        self.space();
        Ok(key)
    }

    fn name(&mut self) -> Result<ModelName, NoModel> {
        if !self.eat(b'"') {
            // A value that is cut off, or malformed, is not a wrong name.
            self.value()?;
            return Err(NoModel::NotAName);
        }
        self.half = false;
        let name = self.string()?;
        if self.half {
            return Err(NoModel::NotAName);
        }
        ModelName::read(unescaped(name))
    }

    /// Reads the text between the quotes; the first quote has been read.
    fn string(&mut self) -> Result<&'a str, JsonError> {
        let start = self.at;
        loop {
            // Most short texts end here.
            if !self.peek().is_some_and(stops) {
                self.at += plain(self.rest());
            }
            match self.next()? {
                b'"' => return self.text.get(start..self.at - 1).ok_or(MALFORMED),
                b'\\' => self.escape()?,
                _ => return Err(MALFORMED),
            }
        }
    }

    /// Reads what follows a backslash.
    fn escape(&mut self) -> Result<(), JsonError> {
        match self.next()? {
            b'"' | b'\\' | b'/' | b'b' | b'f' | b'n' | b'r' | b't' => Ok(()),
            b'u' => {
                let code = self.hex()?;
                match code {
                    0xD800..=0xDBFF => self.half |= !self.low_half(),
                    0xDC00..=0xDFFF => self.half = true,
                    _ => {}
                }
                Ok(())
            }
            _ => Err(MALFORMED),
        }
    }

    /// Reads the second half of a surrogate pair, if it is next.
    fn low_half(&mut self) -> bool {
        let from = self.at;
        let found = self.eat(b'\\') && self.eat(b'u') && matches!(self.hex(), Ok(0xDC00..=0xDFFF));
        if !found {
            self.at = from;
        }
        found
    }

    fn hex(&mut self) -> Result<u32, JsonError> {
        let mut code = 0;
        for _ in 0..4 {
            let digit = char::from(self.next()?).to_digit(16).ok_or(MALFORMED)?;
            code = code * 16 + digit;
        }
        Ok(code)
    }

    /// Skips any value. The objects and arrays that are open inside it are bits of a set, so a deep
    /// value costs no more than a flat one.
    fn value(&mut self) -> Result<(), JsonError> {
        // The object around all of this is also open.
        let mut open = Open { depth: 1, objects: 1 };
        loop {
            match self.next()? {
                b'"' => drop(self.string()?),
                b'{' => {
                    open.push(true)?;
                    self.space();
                    if !self.eat(b'}') {
                        self.key()?;
                        continue;
                    }
                    open.pop();
                }
                b'[' => {
                    open.push(false)?;
                    self.space();
                    if !self.eat(b']') {
                        continue;
                    }
                    open.pop();
                }
                b't' => self.word(b"rue")?,
                b'f' => self.word(b"alse")?,
                b'n' => self.word(b"ull")?,
                b'N' => self.word(b"aN")?,
                b'I' => self.word(b"nfinity")?,
                b'-' => match self.next()? {
                    b'I' => self.word(b"nfinity")?,
                    first => self.number(first)?,
                },
                first => self.number(first)?,
            }
            // A value has ended. It may be the last one in its object or array, and end that value
            // as well.
            loop {
                if open.depth == 1 {
                    return Ok(());
                }
                self.space();
                match (self.next()?, open.in_object()) {
                    (b',', true) => {
                        self.space();
                        self.key()?;
                        break;
                    }
                    (b',', false) => {
                        self.space();
                        break;
                    }
                    (b'}', true) | (b']', false) => open.pop(),
                    _ => return Err(MALFORMED),
                }
            }
        }
    }

    fn word(&mut self, rest: &[u8]) -> Result<(), JsonError> {
        rest.iter().try_for_each(|byte| self.expect(*byte))
    }

    /// Reads the rest of a number without its sign.
    fn number(&mut self, first: u8) -> Result<(), JsonError> {
        match first {
            b'0' => {}
            b'1'..=b'9' => drop(self.skip(|byte| byte.is_ascii_digit())),
            _ => return Err(MALFORMED),
        }
        if self.eat(b'.') {
            self.digits()?;
        }
        if self.eat(b'e') || self.eat(b'E') {
            let _ = self.eat(b'+') || self.eat(b'-');
            self.digits()?;
        }
        Ok(())
    }

    fn digits(&mut self) -> Result<(), JsonError> {
        if self.skip(|byte| byte.is_ascii_digit()) > 0 { Ok(()) } else { Err(self.unexpected()) }
    }
}

/// The objects and arrays that are open. The lowest bit is the innermost one; 1 means an object.
struct Open {
    depth: u32,
    objects: u128,
}

impl Open {
    fn push(&mut self, object: bool) -> Result<(), JsonError> {
        if self.depth == MAX_DEPTH {
            return Err(JsonError::TooDeep);
        }
        self.depth += 1;
        self.objects = self.objects << 1 | u128::from(object);
        Ok(())
    }

    fn pop(&mut self) {
        self.depth -= 1;
        self.objects >>= 1;
    }

    fn in_object(&self) -> bool {
        self.objects & 1 == 1
    }
}

/// Returns the number of bytes before the first byte that ends a string, escapes, or is not
/// permitted in it. Most of a body is text: it reads eight bytes at a time.
pub(super) fn plain(text: &[u8]) -> usize {
    const ONES: u64 = u64::MAX / 255;
    const HIGH: u64 = ONES << 7;
    // Returns the highest bit of each byte that is lower than `bound`, and perhaps of bytes after
    // the first of those.
    let lower = |bytes: u64, bound: u8| bytes.wrapping_sub(ONES * u64::from(bound)) & !bytes & HIGH;
    let same = |bytes: u64, byte: u8| lower(bytes ^ (ONES * u64::from(byte)), 1);
    let (chunks, rest) = text.as_chunks();
    for (at, chunk) in chunks.iter().enumerate() {
        let bytes = u64::from_le_bytes(*chunk);
        let found = lower(bytes, b' ') | same(bytes, b'"') | same(bytes, b'\\');
        if found != 0 {
            return at * 8 + found.trailing_zeros() as usize / 8;
        }
    }
    text.len() - rest.len() + rest.iter().position(|byte| stops(*byte)).unwrap_or(rest.len())
}

/// Returns whether a byte ends a string, escapes, or is not permitted in it.
fn stops(byte: u8) -> bool {
    byte < b' ' || matches!(byte, b'"' | b'\\')
}

/// Returns the characters of a checked string, in which no surrogate is alone.
fn unescaped(raw: &str) -> Unescaped<'_> {
    Unescaped { rest: raw.chars() }
}

#[derive(Clone)]
struct Unescaped<'a> {
    rest: std::str::Chars<'a>,
}

impl Iterator for Unescaped<'_> {
    type Item = char;

    fn next(&mut self) -> Option<char> {
        let rest = &mut self.rest;
        let character = rest.next()?;
        if character != '\\' {
            return Some(character);
        }
        Some(match rest.next()? {
            'b' => '\u{8}',
            'f' => '\u{c}',
            'n' => '\n',
            'r' => '\r',
            't' => '\t',
            'u' => match unit(rest) {
                // The name has been checked: the second half follows.
                high @ 0xD800..=0xDBFF => {
                    let _backslash_and_u = (rest.next(), rest.next());
                    let low = unit(rest) & 0x3FF;
                    char::from_u32(0x10000 + ((high & 0x3FF) << 10) + low)?
                }
                code => char::from_u32(code)?,
            },
            itself => itself,
        })
    }
}

/// Reads a UTF-16 code unit from four hexadecimal digits.
fn unit(digits: &mut std::str::Chars<'_>) -> u32 {
    digits.take(4).fold(0, |code, digit| code * 16 + digit.to_digit(16).unwrap_or(0))
}
