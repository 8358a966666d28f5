//! What each client must show: its result, or the facts that its user must find in the text of an
//! error, however the client formats it.

use serde::Deserialize;
use serde_json::{Value, json};

use super::{WORDS, drive::MODEL};

/// The output of a client.
#[derive(Debug, Deserialize)]
#[serde(untagged)]
pub(super) enum Shown {
    Returned { returned: Value },
    Failed { error: String, says: String },
}

/// The expected output.
#[derive(Clone, Debug)]
pub(super) enum Expected {
    Returns(Value),
    /// The end of the exception's name, and parts of its text.
    Fails(&'static str, Vec<String>),
}

impl Expected {
    pub(super) fn fails(error: &'static str, says: &[&str]) -> Self {
        Self::Fails(error, says.iter().map(|&fact| fact.to_owned()).collect())
    }

    /// Returns how the output differs from the expectation.
    pub(super) fn missed(&self, shown: &Shown) -> Option<String> {
        let is_so = match (self, shown) {
            (Self::Returns(expected), Shown::Returned { returned }) => expected == returned,
            (Self::Fails(expected, facts), Shown::Failed { error, says }) => {
                error.ends_with(expected) && facts.iter().all(|fact| says.contains(fact))
            }
            _ => false,
        };
        (!is_so).then(|| format!("{self:?} is expected of {shown:?}"))
    }
}

/// The API that a client speaks.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Api {
    OpenAi,
    Azure,
    Anthropic,
    Ollama,
}

/// How a client lists models.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum ListsModels {
    Yes,
    /// The client has no call for it.
    No,
    /// It drops the path of the base URL, so its request belongs to no domain.
    WithoutDomain,
}

/// The names of a client's exceptions, by status.
#[derive(Clone, Copy)]
pub(super) struct ErrorNames {
    pub(super) unauthorized: &'static str,
    pub(super) forbidden: &'static str,
    pub(super) not_found: &'static str,
}

/// The cases for each client, depending on its properties.
#[derive(Clone, Copy)]
pub(super) struct ClientRound {
    /// The prefix of the cases' names.
    pub(super) name: &'static str,
    pub(super) api: Api,
    pub(super) errors: ErrorNames,
    pub(super) lists: ListsModels,
    /// Whether the client shows its stream only as a whole.
    pub(super) whole: bool,
    /// Endings of base URLs that users might try.
    pub(super) wrong: &'static [&'static str],
    /// What the client says without a token: most report it before they send anything.
    pub(super) no_token: (&'static str, &'static [&'static str]),
}

impl ClientRound {
    pub(super) fn cases(&self) -> Vec<(String, Expected)> {
        let mut cases = vec![
            ("chat".to_owned(), text()),
            (
                "stream".to_owned(),
                if self.whole { Expected::Returns(json!([WORDS.concat()])) } else { words() },
            ),
            ("wrong model".to_owned(), self.wrong_model()),
            ("wrong model, streamed".to_owned(), self.wrong_model()),
            ("no token".to_owned(), Expected::fails(self.no_token.0, self.no_token.1)),
            ("expired token".to_owned(), self.expired()),
            ("expired token, streamed".to_owned(), self.expired()),
        ];
        cases.extend(
            self.wrong.iter().map(|end| (format!("wrong base URL '{end}'"), self.wrong_url())),
        );
        if self.lists != ListsModels::No {
            let listed = |expected| match self.lists {
                ListsModels::WithoutDomain => {
                    Expected::fails("RuntimeError", &["/v1/models", "/proxy/"])
                }
                _ => expected,
            };
            let all = json!([if self.api == Api::Ollama {
                "model-acme-small:latest"
            } else {
                "model-acme-small"
            }]);
            cases.push(("list".to_owned(), listed(Expected::Returns(all))));
            cases.push((
                "list of a limited token".to_owned(),
                listed(Expected::Returns(json!([MODEL]))),
            ));
            cases.push((
                "expired token, list".to_owned(),
                match self.lists {
                    ListsModels::WithoutDomain => Expected::fails("RuntimeError", &EXPIRED),
                    _ => self.expired(),
                },
            ));
            for end in self.wrong {
                cases.push((format!("wrong base URL '{end}', list"), listed(self.wrong_url())));
            }
        }
        cases
            .into_iter()
            .map(|(case, expected)| (format!("{}{case}", self.name), expected))
            .collect()
    }

    /// Which model was refused, and which may be used instead.
    fn wrong_model(&self) -> Expected {
        Expected::fails(self.errors.forbidden, &["`m-70b`", "Available to it: `m-7b`"])
    }

    /// The base URL that works.
    fn wrong_url(&self) -> Expected {
        let facts = match self.api {
            Api::OpenAi => ["base URL", "`/proxy/acme/v1`"],
            Api::Azure | Api::Ollama => ["base URL", "`/proxy/acme`"],
            // The same path as without the /v1 that this client adds.
            Api::Anthropic => ["Did you mean `", " /proxy/acme/v1/m"],
        };
        Expected::fails(self.errors.not_found, &facts)
    }

    fn expired(&self) -> Expected {
        Expected::fails(self.errors.unauthorized, &EXPIRED)
    }
}

/// The error says what happened, and what to do.
const EXPIRED: [&str; 2] = ["has expired", "Create a new one"];

pub(super) fn text() -> Expected {
    Expected::Returns(json!(WORDS.concat()))
}

pub(super) fn words() -> Expected {
    Expected::Returns(json!(WORDS))
}
