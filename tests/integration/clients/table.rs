//! The clients, and the properties of each.

use serde_json::json;

use super::{
    drive::{MODEL, OTHER_MODEL},
    shown::{Api, ClientRound, ErrorNames, Expected, ListsModels, text, words},
};

pub(super) enum Runtime {
    Python,
    Node,
}

pub(crate) struct Client {
    /// The name of its script in tests/clients/calls.
    pub(crate) script: &'static str,
    /// The name of its environment in .clients.
    pub(super) home: &'static str,
    pub(super) runtime: Runtime,
    /// The newest protocol version that it speaks.
    pub(super) protocol: &'static str,
    rounds: &'static [ClientRound],
    more: fn() -> Vec<(&'static str, Expected)>,
}

impl Client {
    pub(crate) fn needs_only_python(&self) -> bool {
        matches!(self.runtime, Runtime::Python)
    }

    pub(super) fn runs_in_a_browser(&self) -> bool {
        self.script == "browser_node"
    }

    pub(super) fn cases(&self) -> Vec<(String, Expected)> {
        let rounds = self.rounds.iter().flat_map(ClientRound::cases);
        rounds
            .chain((self.more)().into_iter().map(|(case, expected)| (case.to_owned(), expected)))
            .collect()
    }
}

const OPENAI: ErrorNames = ErrorNames {
    unauthorized: "AuthenticationError",
    forbidden: "PermissionDeniedError",
    not_found: "NotFoundError",
};

const OPENAI_ROUND: ClientRound = ClientRound {
    name: "",
    api: Api::OpenAi,
    errors: OPENAI,
    lists: ListsModels::Yes,
    whole: false,
    wrong: &["", "/v1/v1"],
    no_token: ("OpenAIError", &["Missing credentials", "OPENAI_API_KEY"]),
};

const AZURE_ROUND: ClientRound = ClientRound {
    name: "azure: ",
    api: Api::Azure,
    wrong: &["/v1", "/openai"],
    no_token: ("OpenAIError", &["Missing credentials", "AZURE_OPENAI_API_KEY"]),
    ..OPENAI_ROUND
};

const ANTHROPIC_ROUND: ClientRound =
    ClientRound { api: Api::Anthropic, wrong: &["/v1"], ..OPENAI_ROUND };

/// For a client with one name for all errors of an API.
const fn alike(name: &'static str) -> ErrorNames {
    ErrorNames { unauthorized: name, forbidden: name, not_found: name }
}

const OLLAMA_ROUND: ClientRound = ClientRound {
    name: "",
    api: Api::Ollama,
    errors: alike("ResponseError"),
    lists: ListsModels::Yes,
    whole: false,
    wrong: &["/v1", "/api"],
    no_token: ("ResponseError", &["No access token was sent", "Authorization: Bearer"]),
};

pub(crate) static CLIENTS: [Client; 11] = [
    Client {
        script: "openai_python",
        home: "openai",
        runtime: Runtime::Python,
        protocol: "HTTP/2",
        rounds: &[
            ClientRound { wrong: &["", "/v1/v1", "/v1/chat/completions"], ..OPENAI_ROUND },
            AZURE_ROUND,
        ],
        more: || {
            vec![
                ("responses", text()),
                (
                    "placeholder",
                    Expected::fails(OPENAI.unauthorized, &["not valid", "copied completely"]),
                ),
                (
                    "key of another vendor",
                    Expected::fails(
                        OPENAI.unauthorized,
                        &["key of another vendor", "this gateway"],
                    ),
                ),
                (
                    "unexpanded variable",
                    Expected::fails(OPENAI.unauthorized, &["name of a variable"]),
                ),
                (
                    "mistyped token",
                    Expected::fails(OPENAI.unauthorized, &["not valid", "copied completely"]),
                ),
            ]
        },
    },
    Client {
        script: "langchain_python",
        home: "langchain",
        runtime: Runtime::Python,
        protocol: "HTTP/2",
        rounds: &[OPENAI_ROUND],
        more: Vec::new,
    },
    Client {
        script: "litellm_python",
        home: "litellm",
        runtime: Runtime::Python,
        protocol: "HTTP/1.1",
        rounds: &[ClientRound {
            errors: ErrorNames { forbidden: "APIError", ..OPENAI },
            lists: ListsModels::WithoutDomain,
            no_token: ("InternalServerError", &["Missing credentials", "OPENAI_API_KEY"]),
            ..OPENAI_ROUND
        }],
        more: || {
            vec![
                ("ollama_chat: chat", text()),
                ("ollama_chat: stream", words()),
                (
                    "ollama_chat: wrong model",
                    Expected::fails("PermissionDeniedError", &[OTHER_MODEL, MODEL]),
                ),
                (
                    "ollama_chat: expired token",
                    Expected::fails(OPENAI.unauthorized, &["has expired"]),
                ),
                ("anthropic: chat", text()),
                ("anthropic: stream", words()),
                (
                    "anthropic: wrong model",
                    Expected::fails("PermissionDeniedError", &[OTHER_MODEL, MODEL]),
                ),
                (
                    "anthropic: expired token",
                    Expected::fails(OPENAI.unauthorized, &["has expired"]),
                ),
            ]
        },
    },
    Client {
        script: "llm_python",
        home: "llm",
        runtime: Runtime::Python,
        protocol: "HTTP/1.1",
        // A command fails with a text only.
        rounds: &[ClientRound {
            errors: alike("RuntimeError"),
            whole: true,
            // If it has no key for a base URL, it sends "DUMMY_KEY".
            no_token: ("RuntimeError", &["not valid", "copied completely"]),
            ..OPENAI_ROUND
        }],
        more: Vec::new,
    },
    Client {
        script: "anthropic_python",
        home: "anthropic",
        runtime: Runtime::Python,
        protocol: "HTTP/2",
        rounds: &[ClientRound {
            no_token: ("TypeError", &["Could not resolve authentication method", "api_key"]),
            ..ANTHROPIC_ROUND
        }],
        more: || vec![("auth_token", text())],
    },
    Client {
        script: "ollama_python",
        home: "ollama",
        runtime: Runtime::Python,
        protocol: "HTTP/2",
        rounds: &[OLLAMA_ROUND],
        more: Vec::new,
    },
    Client {
        script: "openai_node",
        home: "openai-node",
        runtime: Runtime::Node,
        protocol: "HTTP/2",
        rounds: &[OPENAI_ROUND, AZURE_ROUND],
        more: || vec![("responses", text())],
    },
    Client {
        script: "ai_sdk_node",
        home: "ai-sdk-node",
        runtime: Runtime::Node,
        protocol: "HTTP/2",
        rounds: &[ClientRound {
            errors: alike("AI_APICallError"),
            lists: ListsModels::No,
            no_token: ("AI_APICallError", OLLAMA_ROUND.no_token.1),
            ..OPENAI_ROUND
        }],
        more: || {
            vec![
                ("openai: chat", text()),
                ("openai.chat: chat", text()),
                ("openai: stream", words()),
                ("openai.chat: stream", words()),
                ("openai: wrong model", Expected::fails("AI_APICallError", &[OTHER_MODEL, MODEL])),
                (
                    "openai.chat: wrong model",
                    Expected::fails("AI_APICallError", &[OTHER_MODEL, MODEL]),
                ),
                ("openai: expired token", Expected::fails("AI_APICallError", &["has expired"])),
                (
                    "openai.chat: expired token",
                    Expected::fails("AI_APICallError", &["has expired"]),
                ),
            ]
        },
    },
    Client {
        script: "anthropic_node",
        home: "anthropic-node",
        runtime: Runtime::Node,
        protocol: "HTTP/2",
        rounds: &[ClientRound {
            no_token: ("Error", &["Could not resolve authentication method", "apiKey"]),
            ..ANTHROPIC_ROUND
        }],
        more: Vec::new,
    },
    Client {
        script: "ollama_node",
        home: "ollama-node",
        runtime: Runtime::Node,
        protocol: "HTTP/2",
        rounds: &[OLLAMA_ROUND],
        more: Vec::new,
    },
    Client {
        script: "browser_node",
        home: "browser-node",
        runtime: Runtime::Node,
        protocol: "HTTP/2",
        rounds: &[],
        more: browser,
    },
];

/// A page shows the same as other clients, and the request's id, if its origin is listed. Otherwise
/// it only learns that the request failed.
fn browser() -> Vec<(&'static str, Expected)> {
    let refused =
        |error, facts: &[&str]| Expected::fails(error, &[facts, &["request 36 long"]].concat());
    let failed = Expected::fails("APIConnectionError", &["Connection error."]);
    vec![
        ("listed: chat", text()),
        ("listed: stream", words()),
        ("listed: list", Expected::Returns(json!(["model-acme-small"]))),
        ("listed: wrong model", refused(OPENAI.forbidden, &[OTHER_MODEL, MODEL])),
        ("listed: wrong model, streamed", refused(OPENAI.forbidden, &[OTHER_MODEL, MODEL])),
        ("listed: wrong base URL", refused(OPENAI.not_found, &["base URL", "/proxy/acme/v1"])),
        ("listed: expired token", refused(OPENAI.unauthorized, &["has expired"])),
        ("listed: blocked, in the console", Expected::Returns(json!(0))),
        ("listed: preflights", Expected::Returns(json!([200]))),
        ("unlisted: chat", failed.clone()),
        ("unlisted: stream", failed.clone()),
        ("unlisted: list", failed.clone()),
        ("unlisted: wrong model", failed.clone()),
        ("unlisted: wrong model, streamed", failed.clone()),
        ("unlisted: wrong base URL", failed.clone()),
        ("unlisted: expired token", failed),
        ("unlisted: blocked, in the console", Expected::Returns(json!(7))),
        ("unlisted: preflights", Expected::Returns(json!([403]))),
    ]
}
