//! What a new token can be tried with.

use maud::{Markup, html};

use crate::admin::web::{GrantableDomain, OwnScope, OwnToken};

/// A call that a token may make.
#[derive(Debug, PartialEq, Eq)]
enum Call {
    /// To chat with a model; `None` if no name of one is known.
    Chat { domain: String, model: Option<String> },
    /// To list the models of a domain.
    List { domain: String },
}

impl Call {
    /// The call that shows most of what the token is for.
    fn of(token: &OwnToken, domains: &[GrantableDomain]) -> Option<Self> {
        let chat = token.scopes.iter().filter(|scope| permits(scope, "llm_chat_completions"));
        let mut chats = chat.map(|scope| {
            let domain = scope.domain.clone();
            let listed = || domains.iter().find(|listed| listed.slug == domain)?.models.first();
            let model = match (scope.entity_type.as_str(), scope.entity_id.as_str()) {
                ("models", model) if model != "*" => Some(model.to_owned()),
                _ => listed().cloned(),
            };
            // A pattern is no name.
            Self::Chat { model: model.filter(|model| !model.contains('*')), domain }
        });
        let list = token.scopes.iter().find(|scope| permits(scope, "llm_read"));
        let list = list.map(|scope| Self::List { domain: scope.domain.clone() });
        let is_whole = |call: &Self| matches!(call, Self::Chat { model: Some(_), .. });
        let first = chats.next();
        first.filter(|call| list.is_none() || is_whole(call)).or(list)
    }

    fn domain(&self) -> &str {
        match self {
            Self::Chat { domain, .. } | Self::List { domain } => domain,
        }
    }
}

/// What stands for the name of a model that is not known.
const PLACEHOLDER: &str = "MODEL";

fn permits(scope: &OwnScope, operation: &str) -> bool {
    scope.permitted
        && scope.operation == operation
        && matches!(scope.entity_type.as_str(), "models" | "domains")
}

/// Commands to paste, for the gateway at `gateway`; nothing if its URL or a fitting call is not known.
/// `secret` is the token. In a shell, it becomes a variable: an argument of a command would be seen
/// by every user of the machine.
pub(super) fn examples(
    gateway: &str,
    secret: &str,
    token: &OwnToken,
    domains: &[GrantableDomain],
) -> Markup {
    let Some(call) = Call::of(token, domains).filter(|_| !gateway.is_empty()) else {
        return Markup::default();
    };
    let base = format!("{gateway}/proxy/{}/v1", call.domain());
    let (curl, openai) = (curl(&call, &base, secret), openai(&call, &base, secret));
    html! {
        h2 { "Try it" }
        p { "Base URL, for settings of programs: " code #base { (base) } }
        (copy("base", "Copy the base URL"))
        @if matches!(call, Call::Chat { model: None, .. }) {
            p { "Replace " (PLACEHOLDER) " by the name of a model." }
        }
        h3 { "curl" }
        pre #curl { code { (curl) } }
        (copy("curl", "Copy the commands"))
        h3 { "Python, with the package openai" }
        pre #openai { code { (openai) } }
        (copy("openai", "Copy the program"))
    }
}

/// A button that the script shows.
pub(super) fn copy(id: &str, label: &str) -> Markup {
    html! { p { button.plain type="button" data-copy=(id) hidden { (label) } } }
}

fn curl(call: &Call, base: &str, secret: &str) -> String {
    let variable = format!("export PATGATE_TOKEN='{secret}'\n");
    let header = r#"printf 'Authorization: Bearer %s' "$PATGATE_TOKEN" | curl --header @- \"#;
    let rest = match call {
        Call::List { .. } => format!("    '{base}/models'"),
        Call::Chat { model, .. } => {
            let body = chat(model.as_deref().unwrap_or(PLACEHOLDER));
            format!(
                "    --json '{}' \\\n    '{base}/chat/completions'",
                body.replace('\'', r"'\''")
            )
        }
    };
    format!("{variable}{header}\n{rest}\n")
}

fn chat(model: &str) -> String {
    let messages = [serde_json::json!({ "role": "user", "content": "Hello!" })];
    serde_json::json!({ "model": model, "messages": messages }).to_string()
}

fn openai(call: &Call, base: &str, secret: &str) -> String {
    let client = format!(
        "from openai import OpenAI\n\nclient = OpenAI(base_url=\"{base}\", api_key=\"{secret}\")\n"
    );
    let rest = match call {
        Call::List { .. } => "for model in client.models.list():\n    print(model.id)\n".to_owned(),
        Call::Chat { model, .. } => format!(
            "answer = client.chat.completions.create(\n    model={},\n    \
             messages=[{{\"role\": \"user\", \"content\": \"Hello!\"}}],\n)\n\
             print(answer.choices[0].message.content)\n",
            serde_json::Value::from(model.as_deref().unwrap_or(PLACEHOLDER)),
        ),
    };
    client + &rest
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;
    use crate::admin::TokenStatus;

    fn token(scopes: &[(&str, &str, &str)]) -> OwnToken {
        let scopes = scopes.iter().map(|(entity_type, entity_id, operation)| OwnScope {
            id: Uuid::nil(),
            domain: "acme".to_owned(),
            entity_type: (*entity_type).to_owned(),
            entity_id: (*entity_id).to_owned(),
            operation: (*operation).to_owned(),
            permitted: true,
        });
        let empty = String::new;
        OwnToken {
            id: Uuid::nil(),
            name: empty(),
            description: empty(),
            owner: empty(),
            status: TokenStatus::Live,
            key_id: empty(),
            issued_at: empty(),
            expires_at: empty(),
            revoked_at: None,
            last_used_at: None,
            version: empty(),
            scopes_total: scopes.len() as u64,
            scopes: scopes.collect(),
        }
    }

    fn acme(models: &[&str]) -> [GrantableDomain; 1] {
        [GrantableDomain {
            id: Uuid::nil(),
            slug: "acme".to_owned(),
            name: "Acme".to_owned(),
            enabled: true,
            all_models: models.is_empty(),
            operations: Vec::new(),
            models: models.iter().map(|model| (*model).to_owned()).collect(),
        }]
    }

    #[test]
    fn a_call_is_one_that_the_token_may_make() {
        let domain = || "acme".to_owned();
        let chat = |model: &str| Call::Chat { domain: domain(), model: Some(model.to_owned()) };
        let of = |scopes: &[_], models: &[&str]| Call::of(&token(scopes), &acme(models));
        let (chats, reads) = ("llm_chat_completions", "llm_read");
        assert_eq!(of(&[("models", "m", chats), ("models", "*", reads)], &[]), Some(chat("m")));
        assert_eq!(of(&[("domains", "*", chats)], &["a", "b"]), Some(chat("a")));
        // Which models there are is not known.
        let unnamed = Call::Chat { domain: domain(), model: None };
        assert_eq!(of(&[("models", "*", chats)], &[]), Some(unnamed));
        let list = Call::List { domain: domain() };
        assert_eq!(of(&[("models", "*", chats), ("models", "*", reads)], &[]), Some(list));
        assert_eq!(of(&[("datasets", "*", "read")], &["a"]), None);
        let mut lost = token(&[("models", "m", chats)]);
        lost.scopes[0].permitted = false;
        assert_eq!(Call::of(&lost, &acme(&[])), None);
    }

    #[test]
    fn a_shell_and_python_read_every_name_as_it_is() {
        let call = Call::Chat { domain: "acme".to_owned(), model: Some("it's \"m\"".to_owned()) };
        let curl = curl(&call, "https://gateway.example/proxy/acme/v1", "pat_x");
        assert!(curl.contains(r#""model":"it'\''s \"m\"""#), "{curl}");
        assert_eq!(curl.matches("pat_x").count(), 1);
        assert!(openai(&call, "https://x", "pat_x").contains(r#"model="it's \"m\"""#));
    }
}
