//! A model's name, with a maximum length, stored without an allocation.

use crate::refusal::NoModel;

/// Most characters of a model's name, as in domains and scopes.
const MAX_CHARS: usize = 256;
/// Most bytes of that many characters.
const MAX_BYTES: usize = MAX_CHARS * 4;

/// A model's name: 1 to 256 characters, none of them a control character.
#[derive(Clone)]
pub struct ModelName {
    bytes: [u8; MAX_BYTES],
    len: usize,
}

impl ModelName {
    /// Reads the characters; refuses more than fit.
    pub(super) fn read(characters: impl Iterator<Item = char>) -> Result<Self, NoModel> {
        let mut name = Self { bytes: [0; MAX_BYTES], len: 0 };
        for (index, character) in characters.enumerate() {
            if index == MAX_CHARS || character.is_control() {
                return Err(NoModel::NotAName);
            }
            let end = name.len + character.len_utf8();
            let room = name.bytes.get_mut(name.len..end).ok_or(NoModel::NotAName)?;
            character.encode_utf8(room);
            name.len = end;
        }
        if name.len == 0 { Err(NoModel::NotAName) } else { Ok(name) }
    }

    /// Returns the name as text.
    pub fn as_str(&self) -> &str {
        // Whole characters were written, so this is UTF-8; and an empty name matches nothing.
        let written = self.bytes.get(..self.len).unwrap_or_default();
        std::str::from_utf8(written).unwrap_or_default()
    }
}

impl std::str::FromStr for ModelName {
    type Err = NoModel;

    fn from_str(text: &str) -> Result<Self, NoModel> {
        Self::read(text.chars())
    }
}

impl std::fmt::Debug for ModelName {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.as_str().fmt(f)
    }
}

impl PartialEq for ModelName {
    fn eq(&self, other: &Self) -> bool {
        self.as_str() == other.as_str()
    }
}
