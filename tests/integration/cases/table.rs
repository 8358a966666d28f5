//! The table: credentials, paths, methods, headers, scopes, and the exact answer to each.

use patgate::token::TokenId;
use uuid::Uuid;

use crate::support::{Scope, Token, World};

pub(super) type ExpectedAnswer = (u16, &'static str);

const OK: ExpectedAnswer = (200, "ok");
/// patgate answers this itself, instead of a backend.
pub(super) const ANSWERED: ExpectedAnswer = (200, "answered");
const BAD: ExpectedAnswer = (400, "bad_request");
const MISSING: ExpectedAnswer = (401, "missing_credential");
pub(super) const INVALID: ExpectedAnswer = (401, "invalid_token");
const EXPIRED: ExpectedAnswer = (401, "token_expired");
const REVOKED: ExpectedAnswer = (401, "token_revoked");
const DISABLED: ExpectedAnswer = (401, "owner_disabled");
const DENIED: ExpectedAnswer = (403, "permission_denied");
/// The model is needed, and no body was shown, or one without a type.
const NO_BODY: ExpectedAnswer = (400, "invalid_body");
const NO_TYPE: ExpectedAnswer = (415, "unsupported_media_type");
const NO_RULE: ExpectedAnswer = (404, "not_found");
/// Envoy refused it itself, with an empty body.
const ENVOY_400: ExpectedAnswer = (400, "malformed_request");
const ENVOY_PATH: ExpectedAnswer = (400, "path_not_accepted");
const ENVOY_431: ExpectedAnswer = (431, "headers_too_large");

pub(super) struct Case {
    pub(super) name: String,
    pub(super) method: String,
    pub(super) path: String,
    pub(super) headers: Vec<(String, String)>,
    pub(super) direct: ExpectedAnswer,
    /// `None` if HTTP cannot carry the request.
    pub(super) envoy: Option<ExpectedAnswer>,
}

impl Case {
    fn new(
        name: &str,
        method: &str,
        path: &str,
        bearer: Option<&str>,
        expected: ExpectedAnswer,
    ) -> Self {
        let authorization = bearer.map(|value| ("authorization".to_owned(), value.to_owned()));
        Self {
            name: name.to_owned(),
            method: method.to_owned(),
            path: path.to_owned(),
            headers: authorization.into_iter().collect(),
            direct: expected,
            envoy: Some(expected),
        }
    }

    fn header(mut self, name: &str, value: &str) -> Self {
        self.headers.push((name.to_owned(), value.to_owned()));
        self
    }

    /// Envoy, or HTTP itself, changes the request before patgate sees it.
    fn envoy(self, expected: ExpectedAnswer) -> Self {
        Self { envoy: Some(expected), ..self }
    }

    fn grpc_only(self) -> Self {
        Self { envoy: None, ..self }
    }

    pub(super) fn headers(&self) -> Vec<(&str, &str)> {
        self.headers.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect()
    }
}

pub(super) const CHAT: &str = "/proxy/acme/v1/chat/completions";

/// Every operation on everything in a domain.
pub(super) fn everything(domain: &str) -> Vec<Scope<'_>> {
    patgate::operation::Operation::ALL
        .iter()
        .map(|operation| (domain, "domains", "*", operation.as_str()))
        .collect()
}

pub(super) async fn cases(world: &World<'_>) -> Vec<Case> {
    let full = world.token(&everything("acme")).await;
    let mut cases = credentials(world, &full).await;
    cases.extend(lives(world).await);
    cases.extend(scopes(world).await);
    cases.extend(nonsense_scopes(world).await);
    cases.extend(rules(&full));
    cases.extend(paths(&full));
    cases.extend(domains(world, &full));
    cases.extend(methods(&full));
    cases.extend(headers(&full));
    cases
}

async fn credentials(world: &World<'_>, full: &Token) -> Vec<Case> {
    let text = &full.text;
    let other_world = world.suite.world().await;
    let foreign = other_world.token(&[]).await.text;
    let unknown = world.unknown(TokenId(Uuid::now_v7())).text;
    let wrong_secret = world.unknown(full.id).text;
    let deleted = world.token(&everything("acme")).await;
    world.sql(&format!("DELETE FROM patgate.pats WHERE id = '{}'", deleted.id)).await;

    let case =
        |name: &str, value: &str, expected| Case::new(name, "POST", CHAT, Some(value), expected);
    let two = |name: &str, a: &str, b: &str| case(name, a, BAD).header("authorization", b);
    let bearer = |token: &str| format!("Bearer {token}");
    let plain = |name: &str| Case::new(name, "POST", CHAT, None, MISSING);
    vec![
        case("a good token", &bearer(text), OK),
        case("scheme in lower case", &format!("bearer {text}"), OK),
        case("scheme in capitals", &format!("BEARER {text}"), OK),
        case("scheme in mixed case", &format!("bEaReR {text}"), OK),
        plain("no credential"),
        plain("proxy-authorization is another header").header("proxy-authorization", &bearer(text)),
        plain("x-token is another header").header("x-token", text),
        plain("a cookie is no credential").header("cookie", &format!("authorization={text}")),
        Case::new(
            "a token in the query",
            "POST",
            &format!("{CHAT}?access_token={text}"),
            None,
            BAD,
        ),
        Case::new(
            "a token in the query beside one in its place",
            "POST",
            &format!("{CHAT}?access_token={text}"),
            Some(&bearer(text)),
            BAD,
        ),
        case("empty value", "", INVALID),
        case("Bearer alone", "Bearer", INVALID),
        case("Bearer and a space", "Bearer ", INVALID),
        case("two spaces", &format!("Bearer  {text}"), INVALID),
        case("a tab", &format!("Bearer\t{text}"), INVALID),
        case("a space and a tab", &format!("Bearer \t{text}"), INVALID),
        // HTTP strips white space around a value.
        case("leading space", &format!(" Bearer {text}"), INVALID).envoy(OK),
        case("trailing space", &format!("Bearer {text} "), INVALID).envoy(OK),
        case("trailing tab", &format!("Bearer {text}\t"), INVALID).envoy(OK),
        case("no space", &format!("Bearer{text}"), INVALID),
        case("a colon", &format!("Bearer: {text}"), INVALID),
        case("the token alone", text, INVALID),
        case("Basic", "Basic YW5uOnBhc3N3b3Jk", INVALID),
        case("Basic with the token", &format!("Basic {text}"), INVALID),
        case("Api-Key, which this API does not accept", &format!("Api-Key {text}"), INVALID),
        case("Token", &format!("Token {text}"), INVALID),
        case("something behind the token", &format!("Bearer {text} x"), INVALID),
        case("quotes", &format!("Bearer \"{text}\""), INVALID),
        case("a semicolon", &format!("Bearer {text};"), INVALID),
        case("a comma behind", &format!("Bearer {text},"), BAD),
        case("two tokens in one value", &format!("Bearer {text},Bearer {text}"), BAD),
        case("two tokens and a space", &format!("Bearer {text}, Bearer {text}"), BAD),
        case("a comma without a token", ",", BAD),
        two("the same value twice", &bearer(text), &bearer(text)),
        two("two schemes", &bearer(text), "Basic YW5uOnBhc3N3b3Jk"),
        // Envoy drops an empty value when it joins.
        two("good and empty", &bearer(text), "").envoy(OK),
        two("empty and good", "", &bearer(text)).envoy(OK),
        case("one character short", &bearer(&text[..text.len() - 1]), INVALID),
        case("one character more", &bearer(&format!("{text}0")), INVALID),
        case("in capitals", &bearer(&text.to_uppercase()), INVALID),
        case("in lower case", &bearer(&text.to_lowercase()), INVALID),
        case("another prefix", &bearer(&text.replacen("pat_", "tap_", 1)), INVALID),
        case("no prefix", &bearer(&text.replacen("pat_", "", 1)), INVALID),
        case("a hyphen for the underscore", &bearer(&text.replacen("pat_", "pat-", 1)), INVALID),
        case("percent-encoded", &bearer(&text.replacen('p', "%70", 1)), INVALID),
        case("letters beyond ASCII", &bearer(&text.replacen('p', "р", 1)), INVALID),
        case("a NUL", &bearer(&format!("{text}\0")), INVALID).envoy(ENVOY_400),
        case("20 KB", &bearer(&"a".repeat(20_000)), INVALID),
        case("1 MB", &bearer(&"a".repeat(1_000_000)), INVALID).grpc_only(),
        case("100 KB", &bearer(&"a".repeat(100_000)), INVALID).envoy(ENVOY_431),
        case("signed by another key", &bearer(&foreign), INVALID),
        case("unknown id, good tag", &bearer(&unknown), INVALID),
        case("known id, another secret, good tag", &bearer(&wrong_secret), INVALID),
        case("deleted", &deleted.bearer(), INVALID),
    ]
}

async fn lives(world: &World<'_>) -> Vec<Case> {
    let scopes = everything("acme");
    let expired = world.token_for("ann", "-1 second", &scopes).await;
    let long_expired = world.token_for("ann", "-30 days", &scopes).await;
    let revoked = world.token(&scopes).await;
    let revoked_and_expired = world.token_for("ann", "-1 day", &scopes).await;
    let gone = world.token_for("gone", "1 day", &scopes).await;
    let gone_and_revoked = world.token_for("gone", "1 day", &scopes).await;
    let gone_and_expired = world.token_for("gone", "-1 day", &scopes).await;
    let future = world.token(&scopes).await;
    for token in [&revoked, &revoked_and_expired, &gone_and_revoked] {
        world
            .sql(&format!("UPDATE patgate.pats SET revoked_at = now() WHERE id = '{}'", token.id))
            .await;
    }
    // A revoked token is reported as revoked, also after its expiry.
    world
        .sql(&format!(
            "UPDATE patgate.pats SET revoked_at = now() + interval '1 day' WHERE id = '{}'",
            future.id
        ))
        .await;
    let guess = |token: &Token| world.unknown(token.id).bearer();
    let case =
        |name: &str, value: String, expected| Case::new(name, "POST", CHAT, Some(&value), expected);
    vec![
        case("expired a second ago", expired.bearer(), EXPIRED),
        case("expired long ago", long_expired.bearer(), EXPIRED),
        case("revoked", revoked.bearer(), REVOKED),
        case("revoked as of tomorrow", future.bearer(), REVOKED),
        case("revoked and expired", revoked_and_expired.bearer(), REVOKED),
        case("owner disabled", gone.bearer(), DISABLED),
        case("owner disabled, revoked", gone_and_revoked.bearer(), REVOKED),
        case("owner disabled, expired", gone_and_expired.bearer(), EXPIRED),
        // Without the secret, the caller does not learn what is wrong.
        case("expired, another secret", guess(&expired), INVALID),
        case("revoked, another secret", guess(&revoked), INVALID),
        case("owner disabled, another secret", guess(&gone), INVALID),
        Case::new("expired and no rule", "POST", "/nowhere", Some(&expired.bearer()), EXPIRED),
        Case::new("expired and a bad path", "POST", "/a;b", Some(&expired.bearer()), BAD),
    ]
}

async fn scopes(world: &World<'_>) -> Vec<Case> {
    const MODELS: &str = "/proxy/acme/v1/models";
    let chat = world.token(&[("acme", "models", "*", "llm_chat_completions")]).await.bearer();
    let none = world.token(&[]).await.bearer();
    let beta = world.token(&everything("beta")).await.bearer();
    let both = world
        .token(&[("acme", "models", "*", "llm_read"), ("beta", "models", "*", "llm_completions")])
        .await
        .bearer();
    let by_id = world.id("acme").to_string();
    let whole = world.token(&[("acme", "domains", &by_id, "llm_read")]).await.bearer();
    let one = world.token(&[("acme", "models", "org/m-7b", "llm_read")]).await.bearer();
    let one_chat = world.token(&[("acme", "models", "m", "llm_chat_completions")]).await.bearer();
    let named_as_domain = world.token(&[("acme", "models", &by_id, "llm_read")]).await.bearer();
    let datasets = world.token(&[("acme", "datasets", "*", "read")]).await.bearer();
    let closed = world.token(&everything("closed")).await.bearer();
    let picky = world.token(&everything("picky")).await.bearer();
    let audit = world.token(&[("acme", "domains", "*", "audit_log_read")]).await.bearer();
    let reader_scopes = everything("acme");
    let reader = world.token_for("reader", "1 day", &reader_scopes).await.bearer();
    let bob = world.token_for("bob", "1 day", &reader_scopes).await.bearer();
    let root = world.token_for("root", "1 day", &reader_scopes).await.bearer();
    let root_unscoped = world.token_for("root", "1 day", &[]).await.bearer();
    let case = |name: &str, method: &str, path: &str, token: &str, expected| {
        Case::new(name, method, path, Some(token), expected)
    };
    vec![
        case("the operation of the scope", "POST", CHAT, &chat, OK),
        case("the same operation by Ollama's name", "POST", "/proxy/acme/api/chat", &chat, OK),
        case("another operation", "POST", "/proxy/acme/v1/embeddings", &chat, DENIED),
        case("an operation of a similar name", "POST", "/proxy/acme/v1/completions", &chat, DENIED),
        case("reading is another operation", "GET", MODELS, &chat, DENIED),
        case("no scopes", "POST", CHAT, &none, DENIED),
        case("scopes in another domain", "POST", CHAT, &beta, DENIED),
        case("scopes, but no role, there", "POST", "/proxy/beta/v1/completions", &beta, DENIED),
        case("one operation in each of two domains", "GET", MODELS, &both, OK),
        case("and not the other's", "POST", "/proxy/acme/v1/completions", &both, DENIED),
        case("a scope on the domain's id", "GET", MODELS, &whole, OK),
        case("covers what it holds", "GET", "/proxy/acme/v1/models/x/y", &whole, OK),
        case("one model", "GET", "/proxy/acme/v1/models/org/m-7b", &one, OK),
        case("another model", "GET", "/proxy/acme/v1/models/org/m", &one, DENIED),
        case("a longer name", "GET", "/proxy/acme/v1/models/org/m-7b/x", &one, DENIED),
        case("another case", "GET", "/proxy/acme/v1/models/org/M-7b", &one, DENIED),
        case("a star is no name", "GET", "/proxy/acme/v1/models/*", &one, DENIED),
        case("a list for one model", "GET", MODELS, &one, ANSWERED),
        case(
            "deleting is another operation",
            "DELETE",
            "/proxy/acme/v1/models/org/m-7b",
            &one,
            DENIED,
        ),
        case("one model, and there is no body", "POST", CHAT, &one_chat, NO_BODY).envoy(NO_TYPE),
        case("a model named as the domain", "GET", MODELS, &named_as_domain, ANSWERED),
        case("is one model", "GET", "/proxy/acme/api/version", &named_as_domain, DENIED),
        case("another entity type", "GET", MODELS, &datasets, DENIED),
        case("a disabled domain", "POST", "/proxy/closed/v1/chat/completions", &closed, DENIED),
        case("a listed model", "GET", "/proxy/picky/v1/models/org/listed", &picky, ANSWERED),
        case("an unlisted model", "GET", "/proxy/picky/v1/models/org/unlisted", &picky, DENIED),
        case(
            "a list, and there is no body",
            "POST",
            "/proxy/picky/v1/chat/completions",
            &picky,
            NO_BODY,
        )
        .envoy(NO_TYPE),
        case("a list, and no model in particular", "GET", "/proxy/picky/api/version", &picky, OK),
        case("a list of its list", "GET", "/proxy/picky/v1/models", &picky, ANSWERED),
        case("the audit log", "GET", "/proxy/acme/audit/2026/11", &audit, OK),
        case("models are not in its scope", "GET", MODELS, &audit, DENIED),
        case("scopes beyond the owner's role", "POST", CHAT, &reader, DENIED),
        case("scopes within the owner's role", "GET", MODELS, &reader, OK),
        case("no role in the domain", "POST", CHAT, &bob, DENIED),
        case("a platform admin needs no role", "POST", CHAT, &root, OK),
        case("but a scope", "POST", CHAT, &root_unscoped, DENIED),
    ]
}

/// Rows that the constraints of the schema forbid, as a careless restore could insert them.
async fn nonsense_scopes(world: &World<'_>) -> Vec<Case> {
    world
        .sql(
            "DO $$ DECLARE c record; BEGIN
                 FOR c IN SELECT conname FROM pg_constraint
                     WHERE conrelid = 'patgate.pat_scopes'::regclass AND contype IN ('c', 'f')
                 LOOP EXECUTE format('ALTER TABLE patgate.pat_scopes DROP CONSTRAINT %I', c.conname);
                 END LOOP;
             END $$;
             ALTER TABLE patgate.pat_scopes ALTER domain_id DROP NOT NULL,
                 ALTER entity_type DROP NOT NULL, ALTER entity_id DROP NOT NULL,
                 ALTER operation DROP NOT NULL",
        )
        .await;
    let acme = world.id("acme").to_string();
    let beta = world.id("beta").to_string();
    let acme_column = format!("'{acme}'");
    let chat = "'llm_chat_completions'";
    let rows = [
        ("domain NULL", ["NULL", "'models'", "'*'", chat]),
        ("entity type NULL", [&acme_column, "NULL", "'*'", chat]),
        ("entity type empty", [&acme_column, "''", "'*'", chat]),
        ("entity type *", [&acme_column, "'*'", "'*'", chat]),
        ("entity type in capitals", [&acme_column, "'MODELS'", "'*'", chat]),
        ("entity id NULL", [&acme_column, "'models'", "NULL", chat]),
        ("entity id empty", [&acme_column, "'models'", "''", chat]),
        ("entity id **", [&acme_column, "'models'", "'**'", chat]),
        ("entity id of another domain", [&acme_column, "'domains'", &format!("'{beta}'"), chat]),
        ("entity id by slug", [&acme_column, "'domains'", "'acme'", chat]),
        ("operation NULL", [&acme_column, "'models'", "'*'", "NULL"]),
        ("operation empty", [&acme_column, "'models'", "'*'", "''"]),
        ("operation *", [&acme_column, "'models'", "'*'", "'*'"]),
        ("operation of no entity type", [&acme_column, "'models'", "'*'", "'read'"]),
        ("operation on the wrong type", [&acme_column, "'datasets'", "'*'", chat]),
    ];
    let mut cases = Vec::new();
    for (name, [domain, entity_type, entity, operation]) in rows {
        let token = world.token(&[]).await;
        world
            .sql(&format!(
                "INSERT INTO patgate.pat_scopes VALUES
                     ('{}', '{}', {domain}, {entity_type}, {entity}, {operation})",
                Uuid::now_v7(),
                token.id
            ))
            .await;
        let name = format!("a scope with {name}");
        // Such a text is the name of a model.
        let names_a_model = entity == "'**'";
        let (direct, envoy) = if names_a_model { (NO_BODY, NO_TYPE) } else { (DENIED, DENIED) };
        let case = Case::new(&name, "POST", CHAT, Some(&token.bearer()), direct);
        cases.push(case.envoy(envoy));
    }
    cases
}

/// Every rule of the table, with its own method and path.
fn rules(full: &Token) -> Vec<Case> {
    let posts = "v1/chat/completions v1/completions v1/embeddings v1/audio/transcriptions \
                 v1/audio/translations tokenize detokenize pooling classify score rerank \
                 v1/pooling v1/classify v1/score v1/rerank api/chat api/generate api/embed \
                 api/embeddings api/show api/pull api/create api/copy api/push \
                 v1/responses v1/responses/a/cancel v1/messages v1/messages/count_tokens \
                 v1/chat/completions/batch v1/chat/completions/render v1/completions/render \
                 inference/v1/generate generative_scoring v2/embed v2/rerank v1/audio/speech \
                 v1/images/generations v1/images/edits v1/load_lora_adapter \
                 v1/unload_lora_adapter api/blobs/sha256:0a";
    let gets = "v1/models v1/models/a v1/models/a/b/c v1/responses/a api/tags api/ps api/version \
                audit/x";
    let heads = "api/version api/blobs/sha256:0a";
    let deletes = "v1/models/a/b api/delete";
    [("POST", posts), ("GET", gets), ("HEAD", heads), ("DELETE", deletes)]
        .into_iter()
        .flat_map(|(method, paths)| paths.split_whitespace().map(move |path| (method, path)))
        .map(|(method, path)| {
            let name = format!("rule {method} {path}");
            Case::new(&name, method, &format!("/proxy/acme/{path}"), Some(&full.bearer()), OK)
        })
        .collect()
}

fn paths(full: &Token) -> Vec<Case> {
    let case = |path: &str, direct: ExpectedAnswer, envoy: ExpectedAnswer| {
        Case::new("path", "GET", path, Some(&full.bearer()), direct).envoy(envoy)
    };
    let long = format!("/proxy/acme/v1/models/{}", "a".repeat(5000));
    let mut cases = vec![
        case("/proxy/acme/v1/models", OK, OK),
        case("/proxy/acme/v1/models?a=b", OK, OK),
        case("/proxy/acme/v1/models?a=../..//%2F;\\", OK, OK),
        case("/proxy/acme/v1/models?", OK, OK),
        case("/proxy/acme/v1/models?x=/proxy/beta/v1/models", OK, OK),
        // Envoy rewrites these to canonical form before patgate sees them.
        case("/proxy/beta/../acme/v1/models", BAD, OK),
        case("/proxy/acme/../beta/v1/models", BAD, DENIED),
        case("/proxy/acme/%2e%2e/beta/v1/models", BAD, DENIED),
        case("/proxy/acme/%2E%2E/beta/v1/models", BAD, DENIED),
        case("/proxy/acme/.%2e/beta/v1/models", BAD, DENIED),
        case("/proxy/acme/..;/beta/v1/models", BAD, DENIED),
        case("/proxy/acme/./v1/models", BAD, OK),
        case("//proxy/acme/v1/models", BAD, OK),
        case("/proxy//acme/v1/models", BAD, OK),
        case("/proxy/acme//v1/models", BAD, OK),
        case("/proxy/%61cme/v1/models", BAD, OK),
        case("/../../proxy/acme/v1/models", BAD, OK),
        case("/proxy\\acme\\v1\\models", BAD, OK),
        // Envoy refuses these itself.
        case("/proxy/acme%2Fv1/models", BAD, ENVOY_PATH),
        case("/proxy/acme%2fv1/models", BAD, ENVOY_PATH),
        case("/proxy/acme%5Cv1/models", BAD, ENVOY_PATH),
        case("/proxy/acme/v1/models%00", BAD, ENVOY_PATH),
        case("/proxy/acme/v1/models#x", BAD, ENVOY_PATH),
        case("/proxy/acme/v1/modéls", BAD, ENVOY_400),
        // patgate must refuse the rest.
        case("/proxy/acme;x=1/v1/models", BAD, BAD),
        case("/proxy/acme/v1/models;x=1", BAD, BAD),
        case("/proxy/acme/%252e%252e/v1/models", BAD, BAD),
        case("/proxy/acme/v1/models/a%20b", BAD, BAD),
        case("/proxy/acme/v1/models/", BAD, BAD),
        // The root, in both of its forms.
        case("/proxy/acme/", OK, OK),
        case("/proxy/acme//", BAD, OK),
        case("/proxy/", BAD, BAD),
        case(&long, BAD, BAD),
        case("/proxy/acme/V1/models", NO_RULE, NO_RULE),
        case("/Proxy/acme/v1/models", NO_RULE, NO_RULE),
        case("/proxy/acme/v1", NO_RULE, NO_RULE),
        case("/proxy/acme", OK, OK),
        case("/proxy", NO_RULE, NO_RULE),
        case("/", NO_RULE, NO_RULE),
        case("/?a", NO_RULE, NO_RULE),
        case("/metrics", NO_RULE, NO_RULE),
        case("/v1/models", NO_RULE, NO_RULE),
        case("/x/proxy/acme/v1/models", NO_RULE, NO_RULE),
        case("/proxy/acme/v1/models.json", NO_RULE, NO_RULE),
        case("/proxy/acme/v1/chat/completions/x", NO_RULE, NO_RULE),
        case("/proxy/acme/audit", NO_RULE, NO_RULE),
        case("/proxy/acme/api/tags/x", NO_RULE, NO_RULE),
        // The tail of a path is a name, whatever it looks like: this request reads a model.
        case("/proxy/acme/v1/models/v1/chat/completions", OK, OK),
        case("", BAD, BAD).grpc_only(),
        case("*", BAD, BAD).grpc_only(),
        case("proxy/acme/v1/models", BAD, BAD).grpc_only(),
        case("http://gateway/proxy/acme/v1/models", BAD, OK),
        case("/proxy/acme/v1/models\n", BAD, BAD).grpc_only(),
    ];
    let unauthenticated = |path: &str, expected| Case::new("path", "GET", path, None, expected);
    cases.extend([
        unauthenticated("/", MISSING),
        unauthenticated("/nowhere", MISSING),
        unauthenticated("/proxy/acme/v1/models/", BAD),
        unauthenticated("/a;b", BAD),
    ]);
    for case in &mut cases {
        case.name = format!("path {:.60}", case.path);
    }
    cases
}

fn domains(world: &World<'_>, full: &Token) -> Vec<Case> {
    let id = world.id("acme");
    let hyphenated = id.to_string();
    let simple = id.simple().to_string();
    let stranger = Uuid::now_v7().to_string();
    [
        ("by slug", "acme", OK),
        ("by id", hyphenated.as_str(), OK),
        ("id in capitals", &hyphenated.to_uppercase(), DENIED),
        ("id without hyphens", &simple, DENIED),
        ("id in braces", &format!("{{{hyphenated}}}"), DENIED),
        ("id as urn", &format!("urn:uuid:{hyphenated}"), DENIED),
        ("id and a letter", &format!("{hyphenated}a"), DENIED),
        ("another id", &stranger, DENIED),
        ("another slug", "nobody", DENIED),
        ("slug in capitals", "ACME", DENIED),
        ("slug and a dot", "acme.", DENIED),
        ("slug and a hyphen", "acme-", DENIED),
        ("part of a slug", "acm", DENIED),
        ("a star", "*", DENIED),
        ("another's domain", "beta", DENIED),
    ]
    .into_iter()
    .map(|(name, domain, expected)| {
        let path = format!("/proxy/{domain}/v1/models");
        let case =
            Case::new(&format!("domain {name}"), "GET", &path, Some(&full.bearer()), expected);
        // Envoy percent-encodes braces.
        if domain.contains('{') { case.envoy(BAD) } else { case }
    })
    .collect()
}

fn methods(full: &Token) -> Vec<Case> {
    let case = |method: &str, path: &str, expected: ExpectedAnswer| {
        let name = format!("method {method} {path}");
        Case::new(&name, method, path, Some(&full.bearer()), expected)
    };
    const MODELS: &str = "/proxy/acme/v1/models";
    vec![
        case("HEAD", MODELS, NO_RULE),
        case("OPTIONS", MODELS, NO_RULE),
        case("PUT", MODELS, NO_RULE),
        case("PATCH", MODELS, NO_RULE),
        case("POST", MODELS, NO_RULE),
        case("DELETE", MODELS, NO_RULE),
        case("TRACE", MODELS, NO_RULE),
        case("PROPFIND", MODELS, NO_RULE),
        case("GET", CHAT, NO_RULE),
        case("PUT", CHAT, NO_RULE),
        case("DELETE", CHAT, NO_RULE),
        case("POST", "/proxy/acme/v1/models/v1/chat/completions", NO_RULE),
        case("BREW", MODELS, NO_RULE).envoy(ENVOY_400),
        case("get", MODELS, NO_RULE).envoy(ENVOY_400),
        case("GETT", MODELS, NO_RULE).envoy(ENVOY_400),
        case("", MODELS, NO_RULE).grpc_only(),
        case("CONNECT", MODELS, NO_RULE).grpc_only(),
    ]
}

fn headers(full: &Token) -> Vec<Case> {
    let allowed = |name: &str, value: &str| {
        let case = format!("header {name}: {value}");
        Case::new(&case, "POST", CHAT, Some(&full.bearer()), OK).header(name, value)
    };
    let denied = |name: &str, value: &str| {
        let case = format!("header {name}: {value} to beta");
        let path = "/proxy/beta/v1/chat/completions";
        Case::new(&case, "POST", path, Some(&full.bearer()), DENIED).header(name, value)
    };
    vec![
        allowed("x-domain-id", "beta"),
        allowed("x-upstream-cluster", "model-beta"),
        allowed("x-user-id", "root"),
        allowed("x-pat-id", "1"),
        allowed("x-auth-operation", "read"),
        allowed("x-auth-model", "m"),
        allowed("x-http-method-override", "DELETE"),
        allowed("x-original-url", "/proxy/beta/v1/models"),
        allowed("x-envoy-original-path", "/proxy/beta/v1/models"),
        allowed("x-forwarded-for", "127.0.0.1"),
        // Envoy drops it.
        allowed("x_domain_id", "beta"),
        denied("x-domain-id", "acme"),
        denied("x-domain-slug", "acme"),
        denied("x-upstream-cluster", "model-acme"),
        denied("x-original-url", "/proxy/acme/v1/models"),
        denied("x-rewrite-url", "/proxy/acme/v1/models"),
        denied("host", "acme").grpc_only(),
        Case::new("header no token but an identity", "POST", CHAT, None, MISSING)
            .header("x-user-id", "root")
            .header("x-pat-id", "1"),
    ]
}
