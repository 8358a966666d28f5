//! What the name of a member, a part or a query parameter has to do with the model.

use memchr::{memchr, memchr2, memchr3_iter};

use crate::decision::Excess;

/// Members by which some backends choose a model in place of `model`, or when that one fails:
/// OpenRouter's; then LiteLLM's, which also merges what is in `extra_body` over the request (the
/// clients' option of that name is not sent under it) and lets the model of a stored prompt win;
/// then the adapters of SGLang, llama.cpp, TensorRT-LLM and MLX, which make a model another one.
const RIVALS: [&str; 17] = [
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
/// Bytes of the longest of these names.
const LONGEST: usize = {
    let (mut longest, mut at) = (MODEL.len(), 0);
    while at < RIVALS.len() {
        if RIVALS[at].len() > longest {
            longest = RIVALS[at].len();
        }
        at += 1;
    }
    longest
};
/// Whether a name of these begins with a byte.
const BEGINS: [bool; 128] = {
    let (mut begins, mut at) = ([false; 128], 0);
    begins[MODEL.as_bytes()[0] as usize] = true;
    while at < RIVALS.len() {
        begins[RIVALS[at].as_bytes()[0] as usize] = true;
        at += 1;
    }
    begins
};

/// Whether a name of these has so many bytes.
const LENGTHS: [bool; LONGEST + 1] = {
    let (mut lengths, mut at) = ([false; LONGEST + 1], 0);
    lengths[MODEL.len()] = true;
    while at < RIVALS.len() {
        lengths[RIVALS[at].len()] = true;
        at += 1;
    }
    lengths
};

/// Parameters of a query at most. PHP and Django stop at 1000 as well; clients send a handful.
pub(crate) const MAX_PARAMETERS: usize = 1000;

/// How near a name comes to `model`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Member {
    /// It is that.
    Model,
    /// Some readers take it for that.
    Variant,
    /// It may choose a model as well.
    Rival(&'static str),
    Other,
}

impl Member {
    /// What readers may take these characters for: whether a reader that ignores case would take
    /// them for a name of ours; for one in C, a text ends at U+0000.
    ///
    /// Most names are told apart by their first character or their length, and none is read further
    /// than the longest of ours: a body may consist of nothing but names.
    pub(super) fn of(name: impl Iterator<Item = char>) -> Self {
        let (mut read, mut length, mut exact) = ([0; LONGEST], 0, true);
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

/// Whether the query of a target may choose a model. Some backends let it win over the body, some
/// read both into one map.
///
/// A key that is escaped is not decoded: no client of a model's API needs one. Some readers split
/// at semicolons, and some take a question mark away once more.
///
/// # Errors
///
/// If it has more parameters than are read.
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

/// The one model that a query names, in the one spelling that all readers take for it: `None` unless
/// it is there once, and neither encoded nor beside anything that some reader takes for another.
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

/// Some readers take `model[]` and `model.x` for more of `model`.
pub(super) fn stem(name: &str) -> &str {
    memchr2(b'[', b'.', name.as_bytes()).and_then(|end| name.get(..end)).unwrap_or(name)
}

/// Go folds case as Unicode does, by which these two are letters of ours.
fn folded(character: char) -> char {
    match character {
        '\u{17f}' => 's',
        '\u{212a}' => 'k',
        other => other.to_ascii_lowercase(),
    }
}
