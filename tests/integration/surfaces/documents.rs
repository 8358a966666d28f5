//! The requests in the documents of the APIs, as printed there.

use super::{CLOUD, Case, ErrorForm, ExpectedAnswer, HUB, case, denied};
use crate::support::World;

/// The body that `curl` sends to AIGNE Hub.
const CURL: &str = r#"{
  "model": "openai/gpt-3.5-turbo",
  "messages": [
    {
      "role": "user",
      "content": "Hello, AIGNE Hub!"
    }
  ]
}"#;

/// The body that its Node client sends.
const NODE: &str = r#"{"input":{"messages":[{"role":"user","content":"Hello, AIGNE Hub!"}],"modelOptions":{"model":"openai/gpt-3.5-turbo"}},"options":{"returnProgressChunks":true}}"#;

/// The hub prefers `model_options` to what it derives from `model`.
const IMAGE: &str = r#"{"prompt":"a cat","model":"openai/dall-e-2","modelOptions":{},"model_options":{"model":"gpt-image-1"}}"#;

pub(super) async fn cases(world: &World<'_>, aigne: &str, platform: &str) -> Vec<Case> {
    let chat = "llm_chat_completions";
    let bearer = async |scopes: &[_]| world.token(scopes).await.bearer();
    let some = bearer(&[(aigne, "models", "openai/gpt-3.5-turbo", chat)]).await;
    let draws = bearer(&[(aigne, "models", "openai/dall-e-2", "llm_utility")]).await;
    let draws_all = bearer(&[(aigne, "models", "*", "llm_utility")]).await;
    let other = bearer(&[(aigne, "models", "openai/gpt-4o", chat)]).await;
    let every = bearer(&[
        (aigne, "models", "*", chat),
        ("acme", "models", "*", "llm_read"),
        ("acme", "deployments", "*", "read"),
        ("acme", "scim", "*", "read"),
        (platform, "users", "*", "read"),
    ])
    .await;
    let passes = |as_what: &str| ExpectedAnswer::Passes(as_what.to_owned());
    let sends = |request, token: &String, body, expected| Case {
        body: Some(body),
        ..case(HUB, request, token.clone(), expected)
    };
    let curl = "POST /api/v2/chat/completions";
    let node = "POST /api/v2/chat";
    let image = "POST /api/v2/image/generations";
    let unread = ExpectedAnswer::Refused(401, ErrorForm::Aigne, "in a way that is not read");
    let models = format!("/proxy/{}/v1/models", world.id("acme"));
    let listing = case("cube.example.com", "GET /", every.clone(), passes("llm_read"));
    vec![
        // Cube AI.
        Case { path: models, ..listing },
        case("cube.example.com", "GET /users", every.clone(), passes("read")),
        case("cube.example.com", "GET /users", some.clone(), denied(403, ErrorForm::Problem)),
        // Cube Cloud.
        case(CLOUD, "GET /api/v1/deployments", every.clone(), passes("read")),
        case(
            CLOUD,
            "GET /api/scim/v2/Users?count=100&startIndex=1",
            every.replace("Bearer", "Api-Key"),
            passes("read"),
        ),
        // AIGNE Hub.
        sends(curl, &some, CURL, passes("llm_chat_completions openai/gpt-3.5-turbo")),
        sends(curl, &other, CURL, denied(401, ErrorForm::Aigne)),
        sends(curl, &every, CURL, passes(chat)),
        sends(node, &every, NODE, passes(chat)),
        sends(image, &draws_all, IMAGE, passes("llm_utility")),
        sends(image, &draws, IMAGE, unread.clone()),
        sends(node, &some, NODE, unread),
    ]
}
