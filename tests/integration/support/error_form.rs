//! The forms in which the clients of the protected APIs expect errors.

#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum ErrorForm {
    Openai,
    Ollama,
    Anthropic,
    Aigne,
    Scim,
    Problem,
}
