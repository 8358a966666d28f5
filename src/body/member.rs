//! What the name of a member, a part or a query parameter has to do with the model.

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

/// How near a name comes to `model`.
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
    /// What readers may take these characters for.
    pub(super) fn of(name: impl Iterator<Item = char> + Clone) -> Self {
        if name.clone().eq("model".chars()) {
            Self::Model
        } else if spells("model", name.clone()) {
            Self::Variant
        } else {
            let rival = RIVALS.into_iter().find(|rival| spells(rival, name.clone()));
            rival.map_or(Self::Other, Self::Rival)
        }
    }
}

/// Whether the query of a target may choose a model. Some backends let it win over the body, some
/// read both into one map.
///
/// A key that is escaped is not decoded: no client of a model's API needs one. Some readers split
/// at semicolons, and some take a question mark away once more.
pub(crate) fn in_query(target: &str) -> bool {
    let Some((_, query)) = target.split_once('?') else { return false };
    query.split(['&', ';', '?']).any(|parameter| {
        let key = parameter.split('=').next().unwrap_or_default();
        key.contains(['%', '+']) || !matches!(Member::of(stem(key).chars()), Member::Other)
    })
}

/// Some readers take `model[]` and `model.x` for more of `model`.
pub(super) fn stem(name: &str) -> &str {
    name.split(['[', '.']).next().unwrap_or_default()
}

/// Whether a reader that ignores case would take a name for this one; for one in C, a text ends at
/// U+0000.
fn spells(wanted: &str, name: impl Iterator<Item = char>) -> bool {
    name.take_while(|character| *character != '\0').map(folded).eq(wanted.chars())
}

/// Go folds case as Unicode does, by which these two are letters of ours.
fn folded(character: char) -> char {
    match character {
        '\u{17f}' => 's',
        '\u{212a}' => 'k',
        other => other.to_ascii_lowercase(),
    }
}
