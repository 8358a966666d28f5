//! `patgate check`: its output besides the decision. That the decision is the service's is tested
//! by the tables of requests and bodies, see `support/explained.rs`.

use std::sync::Arc;

use patgate::keyring;
use serde_json::{Value, json};
use uuid::Uuid;

use crate::support::{
    Scope, Suite, World,
    cli::Cli,
    entries::entries_written,
    fleet::{MODELS, status},
};

const CHAT: &str = "POST /proxy/acme/v1/chat/completions";
const DENIED: i32 = 4;

/// A token of `owner`'s with these scopes, a request, and what the command says about it.
struct NearMiss<'a> {
    owner: &'a str,
    scopes: &'a [Scope<'a>],
    request: &'a str,
    step: &'a str,
    nearest: &'a str,
}

async fn check(world: &World<'_>, cli: &Cli<'_>, miss: &NearMiss<'_>) {
    let NearMiss { owner, scopes, request, step, nearest } = *miss;
    let token = world.token_for(owner, "1 hour", scopes).await;
    let (method, path) = request.split_once(' ').unwrap();
    let command = format!("check --method {method} --path {path}");
    let ran = cli.feed(&format!("{command} --output json"), &token.text);
    let allowed = step.is_empty();
    assert_eq!(ran.code, if allowed { 0 } else { DENIED }, "{request}: {ran:#?}");
    let told: Value = serde_json::from_str(&ran.stdout).unwrap();
    let last = told["steps"].as_array().unwrap().last().unwrap();
    if !allowed {
        assert_eq!(last["step"], step, "{request}: {told:#}");
    }
    assert_eq!(told["nearest"].as_str().unwrap_or_default(), nearest, "{request}: {told:#}");
    let text = cli.feed(&command, &token.text).stdout;
    assert!(text.contains("answer: ") && text.contains(nearest), "{text}");
    assert_eq!(text.contains("REFUSED"), !allowed, "{text}");
}

pub(crate) async fn the_nearest_miss_is_named(suite: Arc<Suite>) {
    let world = suite.world().await;
    let cli = Cli::of(&world);
    let miss =
        |owner, scopes, request, step, nearest| NearMiss { owner, scopes, request, step, nearest };
    let picky = world.id("picky");
    world
        .sql(&format!(
            "INSERT INTO patgate.domain_models VALUES ('{picky}', 'qwen-*', 'model-acme')"
        ))
        .await;
    let chat = "llm_chat_completions";
    let embeds = [("acme", "models", "*", "llm_embeddings")];
    let chats = [("acme", "models", "*", chat)];
    let one = [("acme", "models", "x", chat)];
    let picky = [("picky", "models", "*", chat)];
    let audits = [("acme", "domains", "*", "audit_log_read")];
    let datasets = [("acme", "datasets", "*", "read")];
    let with = |request: &str, model: &str| format!("{request} --model {model}");
    let picky_chat = "POST /proxy/picky/v1/chat/completions";
    for case in [
        miss("ann", &chats, CHAT, "", ""),
        miss("ann", &embeds, CHAT, "scope", "has llm_embeddings here, lacks llm_chat_completions"),
        miss("ann", &datasets, CHAT, "scope", "has read here, lacks llm_chat_completions"),
        miss("ann", &audits, CHAT, "scope", "has audit_log_read here, lacks llm_chat_completions"),
        miss(
            "reader",
            &chats,
            CHAT,
            "permission",
            "has the scope, but the owner's roles in acme lack llm_chat_completions",
        ),
        miss(
            "reader",
            &embeds,
            CHAT,
            "permission",
            "no scope covers it either: has llm_embeddings here, lacks llm_chat_completions",
        ),
        miss(
            "ann",
            &one,
            &with(CHAT, "y"),
            "scope",
            "the scope is for model `x`, the request is about model `y`",
        ),
        miss("ann", &one, &with(CHAT, "x"), "", ""),
        miss(
            "ann",
            &one,
            CHAT,
            "model",
            "the answer depends on the model that the body names: give the model, or the body",
        ),
        miss("ann", &picky, &with(picky_chat, "other"), "", ""),
        miss(
            "ann",
            &picky,
            &with(picky_chat, "m"),
            "model",
            "the domain picky lists its models, but not `m`",
        ),
        miss(
            "ann",
            &picky,
            &with(picky_chat, "qwen-7b,m"),
            "model",
            "the domain picky lists its models, but not `qwen-7b,m`: the `*` of `qwen-*` stands for letters, digits and `. _ - :` only",
        ),
        miss(
            "ann",
            &chats,
            "GET /proxy/acme/v1/chat/completions",
            "rule",
            "a rule exists for POST on this path",
        ),
        miss("ann", &chats, "GET /proxy/acme/v2", "rule", "no method has a rule on this path"),
        miss(
            "ann",
            &chats,
            "GET /elsewhere",
            "rule",
            "the APIs are cube-ai; the table of each says where it is",
        ),
        miss("ann", &chats, "GET /proxy/beta/v1/models", "domain", "the token's scopes name acme"),
        miss("ann", &chats, "GET /proxy/none/v1/models", "domain", "the token's scopes name acme"),
        miss("ann", &[], CHAT, "domain", "the token has no scopes"),
        miss("ann", &chats, "GET /proxy/acme/v1/models/", "path", ""),
    ] {
        check(&world, &cli, &case).await;
    }
}

pub(crate) async fn nothing_is_told_of_a_token_that_is_not_there(suite: Arc<Suite>) {
    let world = suite.world().await;
    let cli = Cli::of(&world);
    let command = "check --method GET --path /proxy/acme/v1/models?key=a-secret";
    let id = Uuid::now_v7();
    cli.refused(&format!("{command} --pat-id {id}"), 3, &id.to_string());
    cli.refused(command, 2, "standard input");
    let token = world.token(&[("acme", "models", "*", "llm_read")]).await;
    // Neither argument is repeated.
    cli.refused(&format!("{command} --pat-id {}", token.text), 2, "a token's id");
    for way in [String::new(), format!(" --pat-id {}", token.id)] {
        let ran = cli.feed(&format!("{command}{way}"), &token.text);
        assert_eq!(ran.code, 0, "{ran:#?}");
        assert!(!ran.stdout.contains(&token.text) && !ran.stdout.contains("a-secret"), "{ran:#?}");
        assert_eq!(ran.stdout.contains("is presumed"), !way.is_empty(), "{ran:#?}");
    }
    // A deleted token: the command answers as the service does, with the exit code for it.
    world.sql(&format!("DELETE FROM patgate.pats WHERE id = '{}'", token.id)).await;
    let ran = cli.feed(command, &token.text);
    assert_eq!(ran.code, 3, "{ran:#?}");
    assert!(ran.stdout.contains("answer: 401 invalid_token"), "{ran:#?}");
    // The command needs a key ring only if there is a token to verify.
    let bare = cli.with("keyring_file", "");
    bare.refused(&format!("{command} --pat-id {id}"), 3, &id.to_string());
    assert_eq!(bare.feed(command, &token.text).code, 2);
}

pub(crate) async fn files_hold_what_no_argument_may(suite: Arc<Suite>) {
    let world = suite.world().await;
    let cli = Cli::of(&world);
    let scopes = ["m", "n"].map(|model| ("acme", "models", model, "llm_chat_completions"));
    let token = world.token(&scopes).await;
    // A separate folder: no token may be in the suite's.
    let dir = tempfile::tempdir().unwrap();
    let file = |name: &str, content: &str| {
        let path = dir.path().join(name);
        std::fs::write(&path, content).unwrap();
        path.display().to_string()
    };
    let body = file("body", r#"{"model":"m"}"#);
    // Line endings as `echo` and other systems write them.
    let unix = file("unix", &format!("bearer {}\n", token.text));
    let other = file("other", &format!("Bearer {}\r\n", token.text));
    let command = "check --method POST --path /proxy/acme/v1/chat/completions";
    for (rest, stdin, code, said) in [
        (format!("--body {body}"), &*token.text, 0, "answer: 200 ok"),
        (format!("--authorization-file {unix} --body {body}"), "", 0, "answer: 200 ok"),
        (format!("--authorization-file {other} --body -"), r#"{"model":"n"}"#, 0, "model `n`"),
        (format!("--pat-id {} --body -", token.id), r#"{"model":"o"}"#, DENIED, "model `o`"),
        (format!("--body {body} --partial"), &token.text, DENIED, "of it that the gateway"),
        (format!("--body {body} --content-encoding gzip"), &token.text, DENIED, "compressed"),
        (format!("--body {body} --content-type="), &token.text, DENIED, "Send JSON in UTF-8"),
        ("--no-credential".to_owned(), "", DENIED, "No access token was sent"),
        (
            format!("--authorization-file {body}"),
            "",
            DENIED,
            "nearest miss: it accepts `Bearer <token>`",
        ),
    ] {
        let ran = cli.feed(&format!("{command} {rest}"), stdin);
        assert!(ran.code == code && ran.stdout.contains(said), "{rest}: {ran:#?}");
        assert!(!ran.stdout.contains(&token.text), "{rest}: {ran:#?}");
    }
    let id = token.id;
    for (rest, code, said) in [
        (format!("--no-credential --pat-id {id}"), 2, "cannot be used with"),
        (format!("--no-credential --authorization-file {unix}"), 2, "cannot be used with"),
        (format!("--pat-id {id} --authorization-file {unix}"), 2, "cannot be used with"),
        (format!("--model m --body {body}"), 2, "cannot be used with"),
        ("--no-credential --partial".to_owned(), 2, "--body <FILE>"),
        (
            "--no-credential --model m --content-type text/plain".to_owned(),
            2,
            "cannot be used with",
        ),
        ("--no-credential --content-encoding gzip".to_owned(), 2, "--body <FILE>"),
        ("--body -".to_owned(), 2, "standard input cannot hold both"),
        ("--authorization-file - --body -".to_owned(), 2, "standard input cannot hold both"),
        (format!("--authorization-file {unix}.none"), 1, "No such file"),
        (format!("--authorization-file {unix} --body {body}.none"), 1, "No such file"),
    ] {
        cli.refused(&format!("{command} {rest}"), code, said);
    }
}

pub(crate) async fn the_entry_in_redis_is_shown_beside_postgres(suite: Arc<Suite>) {
    let world = suite.world().await;
    let cli = Cli::of(&world);
    let token = world.token(&[("acme", "models", "*", "llm_read")]).await;
    let command = format!("check --method GET --path {MODELS}");
    let told = |cli: &Cli<'_>, way: &str| -> Value {
        let ran = cli.feed(&format!("{command}{way} --output json"), &token.text);
        // The command reads the feed, but is not one of the replicas that follow it.
        assert!(!ran.stderr.contains(" lease"), "{ran:#?}");
        serde_json::from_str(&ran.stdout).unwrap_or_else(|error| panic!("{error}: {ran:#?}"))
    };
    let entries = |told: &Value| {
        let entry = |of: &str| told["redis"][of]["entry"].as_str().unwrap_or("").to_owned();
        (told["status"].as_u64().unwrap(), entry("token"), entry("domain"))
    };
    let expect = |status, token: &str, domain: &str| (status, token.to_owned(), domain.to_owned());
    assert_eq!(entries(&told(&cli, "")), expect(200, "miss", "miss"));
    let replica = world.serve(&[]).await;
    assert_eq!(status(&replica, &token).await, 200);
    entries_written(&world, 2).await;

    let first = told(&cli, "");
    assert_eq!((entries(&first), &first["tier"]), (expect(200, "hit", "hit"), &json!("postgres")));
    let age = |told: &Value| told["redis"]["token"]["age_seconds"].as_f64().unwrap();
    let later = told(&cli, &format!(" --pat-id {}", token.id));
    assert!(0.0 < age(&first) && age(&first) < age(&later), "{first} {later}");
    let text = cli.feed(&command, &token.text).stdout;
    assert!(
        text.contains("known from: postgres") && text.contains("redis, token: usable"),
        "{text}"
    );
    // The command changes nothing in Redis.
    assert_eq!(entries(&told(&cli, "")), expect(200, "hit", "hit"));

    world
        .sql(&format!("UPDATE patgate.pats SET revoked_at = now() WHERE id = '{}'", token.id))
        .await;
    // Whether or not the replica has deleted the entry, it cannot be used.
    assert_eq!(entries(&told(&cli, "")), expect(401, "stale", "hit"));
    let other = cli.with("keyring_file", &other_ring(&world));
    assert_eq!(entries(&told(&other, &format!(" --pat-id {}", token.id))).1, "refused");
    let away = cli.with("redis.url", "redis://127.0.0.1:1/0");
    assert_eq!(entries(&told(&away, "")), expect(401, "unavailable", "unavailable"));
    assert_eq!(told(&cli.with("redis.url", ""), "")["redis"], Value::Null);
    // Without a key ring, no entry can be read.
    let bare = cli.with("keyring_file", "");
    assert_eq!(told(&bare, &format!(" --pat-id {}", token.id))["redis"], Value::Null);
}

/// A key ring with the same key id and another key.
fn other_ring(world: &World<'_>) -> String {
    let path = world.keyring_file.with_extension("other");
    std::fs::write(&path, keyring::new_line(&"k1".parse().unwrap()).unwrap().as_bytes()).unwrap();
    path.display().to_string()
}

pub(crate) async fn a_replica_is_asked_and_compared(suite: Arc<Suite>) {
    let world = suite.world().await;
    let cli = Cli::of(&world);
    let socket = suite.dir.path().join("check.sock");
    let replica = world.serve(&[&format!("listen.uds={}", socket.display())]).await;
    let scopes = ["llm_chat_completions", "llm_transcription"];
    let token = world.token(&scopes.map(|operation| ("picky", "models", "*", operation))).await;
    let addresses = [replica.grpc.to_string(), format!("unix:{}", socket.display())];
    let ask = |cli: &Cli<'_>, request: &str, server: &str| {
        let (method, rest) = request.split_once(' ').unwrap();
        let command = format!("check --method {method} --path /proxy/picky/v1/{rest}");
        cli.feed(&format!("{command} --server {server}"), &token.text)
    };
    for address in &addresses {
        for (request, code, said) in [
            ("POST chat/completions --model other", 0, "replica: 200 ok, the same"),
            ("POST chat/completions --model other", 0, "  model: other"),
            // Memory has everything that the first check loaded.
            ("POST chat/completions --model other", 0, "  tier: memory"),
            ("POST audio/transcriptions --model org/listed", 0, "  operation: llm_transcription"),
            ("POST chat/completions --model m", DENIED, "replica: 403 permission_denied, the same"),
            (
                "POST chat/completions",
                DENIED,
                "  message: It must be known here which model this call is for. No body",
            ),
            (
                "GET models",
                DENIED,
                "  message: The access token does not permit `llm_read` in the domain `",
            ),
            ("GET models/", DENIED, "replica: 400 bad_request, the same"),
        ] {
            let ran = ask(&cli, request, address);
            assert!(ran.code == code && ran.stdout.contains(said), "{request}: {ran:#?}");
            assert!(!ran.stdout.contains(&token.text), "{ran:#?}");
        }
    }

    // The age of its data: never above the limit.
    let ran = ask(&cli, "POST chat/completions --model other --output json", &addresses[0]);
    let told: Value = serde_json::from_str(&ran.stdout).unwrap();
    let age = told["replica"]["metadata"]["age_ms"].as_str().unwrap().parse::<u64>().unwrap();
    assert!(age <= 30_000, "{told:#}");

    // A replica with another key does not know this token.
    let ring = format!("keyring_file={}", other_ring(&world));
    let stranger = world.serve(&[&ring]).await.grpc.to_string();
    let strangers = world.serve(&[&ring]).await;
    let ran = ask(&cli, "POST chat/completions --model other", &strangers.grpc.to_string());
    assert!(
        ran.code == 1 && ran.stdout.contains("replica: 401 invalid_token, DIFFERS"),
        "{ran:#?}"
    );
    assert!(ran.stderr.contains("answers 401 invalid_token, the stores 200 ok"), "{ran:#?}");
    // A replica that has ended, and a server that speaks another protocol.
    for address in [&stranger, &replica.http.to_string()] {
        let ran = ask(&cli, "GET models", address);
        assert!(ran.code == 1 && ran.stderr.contains("the replica (--server)"), "{ran:#?}");
    }
    let command = format!("check --method GET --path {MODELS}");
    let id = token.id;
    let asked = format!("{command} --pat-id {id} --server {}", addresses[0]);
    cli.refused(&asked, 2, "a replica cannot be asked about --pat-id");
    for address in ["9191", "unix:", "gateway:port"] {
        cli.refused(&format!("{command} --server {address}"), 2, "expected `host:port`");
    }
}

/// Whether a replica enforces its verdict is reported, but is no difference; the verdict is.
pub(crate) async fn a_replica_that_softens_is_compared_by_its_verdict(suite: Arc<Suite>) {
    let world = suite.world().await;
    let cli = Cli::of(&world);
    cli.ok("domain update acme --mode shadow");
    cli.ok("domain update beta --enforced-share 0%");
    let token = world.token(&[("acme", "models", "*", "llm_read")]).await;
    let shadow = world.serve(&["mode=shadow"]).await;
    let per_domain = world.serve(&["mode=per-domain"]).await;
    let ring = format!("keyring_file={}", other_ring(&world));
    let stranger = world.serve(&[&ring, "mode=shadow"]).await;
    let embeddings = "POST /proxy/acme/v1/embeddings";
    let through = |code: &str, mode: &str| format!("200, lets {code} through (mode {mode})");
    let differs = |code: &str| format!("{}, DIFFERS", through(code, "shadow"));
    let softened =
        |mode: &str| format!("{}, otherwise the same", through("permission_denied", mode));
    let same = |what: &str| format!("{what}, the same");
    for (replica, request, code, said) in [
        (&shadow, embeddings, DENIED, softened("shadow")),
        (&shadow, "GET /proxy/picky/v1/models", DENIED, softened("shadow")),
        (&shadow, "GET /proxy/acme/v1/models/", DENIED, same("400 bad_request")),
        (&shadow, "GET /proxy/acme/v1/models", 0, same("200 ok")),
        (&per_domain, embeddings, DENIED, softened("shadow")),
        (&per_domain, "GET /proxy/beta/v1/models", DENIED, softened("ramp")),
        (&per_domain, "GET /proxy/picky/v1/models", DENIED, same("403 permission_denied")),
        // It does not know the token: another verdict, whether the stores allow or deny.
        (&stranger, "GET /proxy/acme/v1/models", 1, differs("invalid_token")),
        (&stranger, embeddings, 1, differs("invalid_token")),
    ] {
        let (method, path) = request.split_once(' ').unwrap();
        let command = format!("check --method {method} --path {path} --server {}", replica.grpc);
        let ran = cli.feed(&command, &token.text);
        assert_eq!(ran.code, code, "{request}: {ran:#?}");
        assert!(ran.stdout.contains(&format!("replica: {said}\n")), "{request}: {said}: {ran:#?}");
        let told = cli.feed(&format!("{command} --output json"), &token.text).stdout;
        let replica = &serde_json::from_str::<Value>(&told).unwrap()["replica"];
        assert_eq!(replica["agrees"], code != 1, "{request}: {replica:#}");
        let let_through = replica["metadata"]["enforced"] == "false";
        assert_eq!(let_through, said.contains("through"), "{request}: {replica:#}");
        if code == 1 {
            let answers = format!("answers {}", through("invalid_token", "shadow"));
            assert!(ran.stderr.contains(&answers), "{request}: {ran:#?}");
        }
    }
}
