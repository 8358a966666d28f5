//! Classifies the name of a member, a part or a query parameter by its effect on the model.

use memchr::{memchr, memchr2, memchr3_iter};

use crate::refusal::Excess;

/// Members by which some backends choose a model in place of `model`, or when that model fails.
/// First OpenRouter's; then LiteLLM's, which also merges the content of `extra_body` over the
/// request (the clients' option of that name is not sent under it) and prefers the model of a
/// stored prompt; then the adapters of SGLang, llama.cpp, TensorRT-LLM and MLX, which change a
/// model into another one.
pub(super) const RIVALS: [&str; 17] = [
    "models",
    "preset",
    "fallbacks",
    "context_window_fallbacks",
    "context_window_fallback_dict",
    "content_policy_fallbacks",
    "model_list",
    "model_id",
    "deployment_id",
    "prompt_id",
    "user_config",
    "router_settings_override",
    "extra_body",
    "lora_path",
    "lora",
    "lora_request",
    "adapters",
];
const MODEL: &str = "model";
/// Length of the longest of these names, in bytes.
const LONGEST: usize = {
    let mut longest = MODEL.len();
    let mut at = 0;
    while at < RIVALS.len() {
        if RIVALS[at].len() > longest {
            longest = RIVALS[at].len();
        }
        at += 1;
    }
    longest
};
/// Whether one of these names begins with a byte.
const BEGINS: [bool; 128] = {
    let mut begins = [false; 128];
    let mut at = 0;
    begins[MODEL.as_bytes()[0] as usize] = true;
    while at < RIVALS.len() {
        begins[RIVALS[at].as_bytes()[0] as usize] = true;
        at += 1;
    }
    begins
};

/// Whether one of these names has this length in bytes.
const LENGTHS: [bool; LONGEST + 1] = {
    let mut lengths = [false; LONGEST + 1];
    let mut at = 0;
    lengths[MODEL.len()] = true;
    while at < RIVALS.len() {
        lengths[RIVALS[at].len()] = true;
        at += 1;
    }
    lengths
};

/// Most parameters of a query. PHP and Django also stop at 1000; clients send a handful.
pub const MAX_PARAMETERS: usize = 1000;

/// How close a name is to `model`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Member {
    /// The name is `model`.
    Model,
    /// Some readers treat the name as `model`.
    Variant,
    /// The member may also choose a model.
    Rival(&'static str),
    Other,
}

impl Member {
    /// Classifies a name by what readers may make of it: whether a reader that ignores case would
    /// read one of the names that matter. For a reader in C, a text ends at U+0000.
    ///
    /// Most names are distinguished by their first character or their length, and none is read
    /// further than the longest name that matters: a body may consist of nothing but names.
    pub(super) fn of(name: impl Iterator<Item = char>) -> Self {
        let mut read = [0; LONGEST];
        let mut length = 0;
        let mut exact = true;
        for character in name {
            if character == '\0' {
                exact = false;
                break;
            }
            let folded = folded(character);
            let Some(byte) = u8::try_from(folded).ok().filter(u8::is_ascii) else {
                return Self::Other;
            };
            let Some(slot) = read.get_mut(length) else { return Self::Other };
            if length == 0 && !BEGINS[usize::from(byte)] {
                return Self::Other;
            }
            exact &= folded == character;
            *slot = byte;
            length += 1;
        }
        if !LENGTHS[length] {
            return Self::Other;
        }
        let name = &read[..length];
        if name == MODEL.as_bytes() {
            return if exact { Self::Model } else { Self::Variant };
        }
        let rival = RIVALS.into_iter().find(|rival| rival.as_bytes() == name);
        rival.map_or(Self::Other, Self::Rival)
    }
}

/// Returns whether the query of a target may choose a model. Some backends prefer the query to the
/// body, some read both into one map.
///
/// An escaped key is not decoded: no client of a model API needs one. Some readers split at
/// semicolons, and some remove one more question mark.
///
/// # Errors
///
/// Returns an error if the query has more parameters than patgate reads.
pub(crate) fn in_query(target: &str) -> Result<bool, Excess> {
    let Some(query) = memchr(b'?', target.as_bytes()).and_then(|at| target.get(at + 1..)) else {
        return Ok(false);
    };
    let ends = memchr3_iter(b'&', b';', b'?', query.as_bytes()).chain([query.len()]);
    let mut from = 0;
    for (number, end) in ends.enumerate() {
        if number == MAX_PARAMETERS {
            return Err(Excess::Parameters);
        }
        if chooses(query.get(from..end).unwrap_or_default()) {
            return Ok(true);
        }
        from = end + 1;
    }
    Ok(false)
}

/// Returns the one model that a query names, in the one spelling that all readers understand:
/// `None` unless it occurs once, unencoded, and without anything that some reader takes for another
/// model.
pub(crate) fn model_in_query(query: &str) -> Option<&str> {
    let query = query.strip_prefix('?')?;
    let mut found = None;
    for (number, parameter) in query.split(['&', ';', '?']).enumerate() {
        if number == MAX_PARAMETERS {
            return None;
        }
        if chooses(parameter) {
            let name = parameter.strip_prefix("model=")?;
            let is_name = !name.is_empty() && name.len() <= 256 && !name.contains(['%', '+', '=']);
            if found.replace(name).is_some() || !is_name {
                return None;
            }
        }
    }
    found
}

fn chooses(parameter: &str) -> bool {
    let key = memchr(b'=', parameter.as_bytes()).and_then(|end| parameter.get(..end));
    let key = key.unwrap_or(parameter);
    memchr2(b'%', b'+', key.as_bytes()).is_some() || Member::of(stem(key).chars()) != Member::Other
}

/// Some readers treat `model[]` and `model.x` as more of `model`.
pub(super) fn stem(name: &str) -> &str {
    memchr2(b'[', b'.', name.as_bytes()).and_then(|end| name.get(..end)).unwrap_or(name)
}

/// Go folds case as Unicode does, which turns these two characters into letters of the names above.
fn folded(character: char) -> char {
    match character {
        '\u{17f}' => 's',
        '\u{212a}' => 'k',
        other => other.to_ascii_lowercase(),
    }
}
