//! Backend credentials: a backend sees its own, no other sees it, and changes take effect at once.

use std::{fs, sync::Arc, time::Instant};

use envoy_types::pb::envoy::service::auth::v3::check_response::HttpResponse;
use patgate_testing::{PAUSE, http};
use serde_json::json;
use tokio::time::sleep;

use crate::support::{
    Suite, Token, World,
    cli::Cli,
    credentials::{authorization, give, turns},
    decision_log,
    entries::entries_written,
    fleet::{Fleet, HEALED, MODELS},
    leaks, outcome,
    settings::PATIENT,
    tokens::reader,
};

const LISTED: &str = "/proxy/picky/v1/models/org/listed";
const OTHER: &str = "/proxy/picky/v1/models/other";

async fn picky_reader(world: &World<'_>) -> Token {
    let scopes = ["acme", "picky"].map(|domain| (domain, "models", "*", "llm_read"));
    world.token(&scopes).await
}

pub(crate) async fn the_backend_sees_its_own_and_no_token(suite: Arc<Suite>) {
    let world = suite.world().await;
    let cli = Cli::of(&world);
    let token = picky_reader(&world).await;
    let of_acme = give(&cli, &suite, "model-acme");
    let replica = world.serve(&[]).await;
    let envoy = replica.envoy(&suite);
    let bearer = token.bearer();
    let headers = [("authorization", bearer.as_str()), ("x-kept", "kept")];
    let seen = async |path: &str, backend: &str| {
        let reply = http::send(envoy.port, "GET", path, &headers, "").await;
        assert_eq!((reply.status, reply.header("x-backend")), (200, Some(backend)), "{path}");
        assert!(!reply.body.contains(&token.text), "{path}");
        assert_eq!(reply.seen("x-kept"), ["kept"]);
        reply.seen("authorization")
    };
    assert_eq!(seen(MODELS, "model-acme").await, [of_acme.as_str()]);
    assert_eq!(seen(OTHER, "model-acme").await, [of_acme.as_str()]);
    // The model's own backend has none: it gets neither the domain's credential nor the client's.
    assert_eq!(seen(LISTED, "model-beta").await, [""; 0]);
    let of_beta = give(&cli, &suite, "model-beta");
    let began = Instant::now();
    while seen(LISTED, "model-beta").await != [of_beta.as_str()] {
        assert!(began.elapsed() < HEALED);
        sleep(PAUSE).await;
    }
    assert_eq!(seen(OTHER, "model-acme").await, [of_acme.as_str()]);
    // In the header that the backend wants, and in no other.
    const PLACES: [&str; 3] = ["authorization", "x-api-key", "api-key"];
    for place in ["x-api-key", "api-key", "authorization"] {
        let key = suite.provider_key();
        let set = format!("backend credential set model-acme --header {place}");
        assert_eq!(cli.feed(&set, &format!("{key}\n")).code, 0);
        let key = if place == "authorization" { format!("Bearer {key}") } else { key };
        let began = Instant::now();
        loop {
            let sent = PLACES.map(|name| (name, bearer.strip_prefix("Bearer ").unwrap()));
            let sent = [&headers[..1], &sent[1..]].concat();
            let reply = http::send(envoy.port, "GET", MODELS, &sent, "").await;
            assert!(!leaks::mentions(&reply.body, &[&token.text]), "{place}");
            let expected =
                PLACES.map(|name| if name == place { vec![key.clone()] } else { vec![] });
            if PLACES.map(|name| reply.seen(name)) == expected {
                break;
            }
            assert!(began.elapsed() < HEALED, "{place}: {reply:?}");
            sleep(PAUSE).await;
        }
    }
    let wrong = "backend credential set model-acme --header x-api-key --scheme basic";
    assert_eq!(cli.feed(wrong, "k\n").code, 2);
    assert_eq!(cli.feed("backend credential set model-acme --header cookie", "k\n").code, 2);
    let of_acme = give(&cli, &suite, "model-acme");
    let began = Instant::now();
    while seen(MODELS, "model-acme").await != [of_acme.as_str()] {
        assert!(began.elapsed() < HEALED);
        sleep(PAUSE).await;
    }
    // The entry was read again, and is written to Redis again.
    assert_eq!(seen(OTHER, "model-acme").await, [of_acme.as_str()]);
    // A refused request is refused before any of this.
    let reply = http::send(envoy.port, "GET", MODELS, &[("authorization", &of_acme)], "").await;
    assert_eq!((reply.status, reply.code()), (401, "invalid_token".to_owned()));

    // Redis must have entries, so that the search for leaks could find something.
    entries_written(&world, 3).await;
    let asked = "check --method GET --path /proxy/acme/v1/models";
    let ran = cli.feed(&format!("{asked} --server {}", replica.grpc), &token.text);
    assert!(ran.stdout.contains("backend credential: set"), "{ran:#?}");
    assert!(ran.stdout.contains("replica: 200 ok, the same"), "{ran:#?}");
    let bare = cli.with("keyring_file", "");
    let ran = bare.run(&format!("{asked} --pat-id {}", token.id));
    assert!(ran.stdout.contains("backend credential: set"), "{ran:#?}");
    let log = fs::read_to_string(&envoy.access_log).unwrap();
    assert!(log.contains("model-acme") && !leaks::mentions(&log, &[&of_acme, &of_beta]), "{log}");
}

/// Only that one header of an allow has it.
pub(crate) async fn no_other_part_of_an_answer_contains_the_credential(suite: Arc<Suite>) {
    let world = suite.world().await;
    let cli = Cli::of(&world);
    let token = picky_reader(&world).await;
    let of_acme = give(&cli, &suite, "model-acme");
    let log = decision_log::file(&world, "credential");
    let replica = decision_log::logging(&world, &log, &decision_log::ALL).await;
    let mentions = |text: &str| leaks::mentions(text, &[&of_acme]);
    let bearer = token.bearer();
    let headers = [("authorization", bearer.as_str())];

    let mut allow = replica.check("GET", MODELS, &headers).await;
    assert!(mentions(&format!("{allow:?}")), "the header, or this search finds nothing");
    assert!(allow.dynamic_metadata.is_some());
    let Some(HttpResponse::OkResponse(ok)) = &mut allow.http_response else { panic!("{allow:?}") };
    ok.headers.retain(|option| option.header.as_ref().unwrap().key != "authorization");
    assert!(!mentions(&format!("{allow:?}")), "{allow:?}");
    let denial = replica.check("GET", "/proxy/acme/v1/nothing", &headers).await;
    assert_eq!(outcome(&denial).0, 404);
    assert!(!mentions(&format!("{denial:?}")), "{denial:?}");

    let envoy = replica.envoy(&suite);
    let reply = http::send(envoy.port, "GET", MODELS, &headers, "").await;
    assert_eq!((reply.status, reply.seen("authorization")), (200, vec![of_acme.clone()]));
    assert!(!mentions(&format!("{:?}", reply.headers)), "{reply:?}");
    let page = http::send(replica.http.port(), "GET", "/metrics", &[], "").await.body;
    assert!(page.contains("patgate_decisions_total") && !mentions(&page), "{page}");
    let logged = decision_log::decisions(&log, 3).await;
    assert!(!mentions(&format!("{logged:?}")), "{logged:?}");
}

pub(crate) async fn a_change_is_obeyed_at_once_by_whatever_means(suite: Arc<Suite>) {
    let world = suite.world().await;
    let cli = Cli::of(&world);
    let token = picky_reader(&world).await;
    let fleet = Fleet::of(&world, 2, &PATIENT).await;
    turns(&fleet, &token, MODELS, Ok(None)).await;
    let first = give(&cli, &suite, "model-acme");
    turns(&fleet, &token, MODELS, Ok(Some(&first))).await;
    turns(&fleet, &token, OTHER, Ok(Some(&first))).await;
    let second = give(&cli, &suite, "model-acme");
    turns(&fleet, &token, MODELS, Ok(Some(&second))).await;
    cli.ok("backend credential remove model-acme");
    turns(&fleet, &token, MODELS, Ok(None)).await;

    let third = give(&cli, &suite, "model-beta");
    turns(&fleet, &token, LISTED, Ok(Some(&third))).await;
    world.sql("CREATE TABLE kept AS SELECT * FROM patgate.backends").await;
    let put = "SET credential = k.credential, credential_key_id = k.credential_key_id,
                   credential_set_at = k.credential_set_at FROM kept k WHERE k.name = b.name";
    let take = "UPDATE patgate.backends SET credential = NULL, credential_key_id = NULL,
                    credential_set_at = NULL";
    world.sql(take).await;
    turns(&fleet, &token, LISTED, Ok(None)).await;
    // A replayed statement counts also.
    world
        .sql(&format!(
            "BEGIN; SET LOCAL session_replication_role = replica;
             UPDATE patgate.backends b {put}; COMMIT"
        ))
        .await;
    turns(&fleet, &token, LISTED, Ok(Some(&third))).await;
    // Under another name it cannot be opened, and the request is not sent without it.
    world.sql("UPDATE patgate.backends SET name = 'renamed' WHERE name = 'model-beta'").await;
    turns(&fleet, &token, LISTED, Err(503)).await;
    world.sql("UPDATE patgate.backends SET name = 'model-beta' WHERE name = 'renamed'").await;
    turns(&fleet, &token, LISTED, Ok(Some(&third))).await;
    let changes = "SELECT count(*) FROM patgate.changes";
    let before: i64 = crate::support::value(&world, changes).await;
    world.sql("UPDATE patgate.backends SET url = 'http://elsewhere', kind = 'openai'").await;
    assert_eq!(
        crate::support::value::<i64>(&world, changes).await,
        before,
        "no answer rests on it"
    );
}

/// The transaction that changes the credential does not see the domain that starts to use the
/// backend, nor the reverse.
pub(crate) async fn a_domain_that_takes_up_a_backend_during_a_change_uses_the_new_credential(
    suite: Arc<Suite>,
) {
    let world = suite.world().await;
    let cli = Cli::of(&world);
    let token = reader(&world).await;
    let old = give(&cli, &suite, "model-beta");
    let fleet = Fleet::of(&world, 2, &PATIENT).await;
    turns(&fleet, &token, MODELS, Ok(None)).await;

    let mut changing = world.postgres.begin().await.unwrap();
    let remove = "UPDATE patgate.backends SET credential = NULL, credential_key_id = NULL,
                      credential_set_at = NULL WHERE name = 'model-beta'";
    sqlx::raw_sql(remove).execute(&mut *changing).await.unwrap();
    world.sql("UPDATE patgate.domains SET upstream = 'model-beta' WHERE slug = 'acme'").await;
    turns(&fleet, &token, MODELS, Ok(Some(&old))).await;
    changing.commit().await.unwrap();
    turns(&fleet, &token, MODELS, Ok(None)).await;
}

pub(crate) async fn a_moved_or_changed_credential_is_not_used(suite: Arc<Suite>) {
    let world = suite.world().await;
    let cli = Cli::of(&world);
    let token = picky_reader(&world).await;
    let of_acme = give(&cli, &suite, "model-acme");
    let of_beta = give(&cli, &suite, "model-beta");
    let fleet = Fleet::of(&world, 1, &PATIENT).await;
    let unopened = async || fleet.0[0].metric("patgate_unopened_credentials_total").await;
    turns(&fleet, &token, MODELS, Ok(Some(&of_acme))).await;
    turns(&fleet, &token, LISTED, Ok(Some(&of_beta))).await;
    assert_eq!(unopened().await, 0);

    // Each has the other's credential, both under the same key.
    let swap = "UPDATE patgate.backends b SET credential = o.credential
                FROM patgate.backends o WHERE o.name <> b.name";
    world.sql(swap).await;
    turns(&fleet, &token, MODELS, Err(503)).await;
    turns(&fleet, &token, LISTED, Err(503)).await;
    // Counted once per entry that was read, however often it was used: acme has one, picky two.
    let counted = unopened().await;
    assert!((2..=3).contains(&counted), "{counted}");
    fleet.all_answer(&token, MODELS, 503).await;
    assert_eq!(unopened().await, counted);
    let log = fs::read_to_string(suite.dir.path().join("patgate.log")).unwrap();
    let told = "a backend's credential cannot be opened";
    assert!(log.lines().any(|l| l.contains(told) && l.contains("model-acme") && l.contains("k1")));
    // The command explains what the service answers.
    let ran = cli.feed("check --method GET --path /proxy/acme/v1/models", &token.text);
    assert!(ran.code == 4 && ran.stdout.contains("answer: 503 unavailable"), "{ran:#?}");
    assert!(ran.stdout.contains("the credential of `model-acme` cannot be opened"), "{ran:#?}");
    world.sql(swap).await;
    turns(&fleet, &token, MODELS, Ok(Some(&of_acme))).await;
    turns(&fleet, &token, LISTED, Ok(Some(&of_beta))).await;

    let flip = |at: &str| {
        format!(
            "UPDATE patgate.backends SET credential =
                 set_byte(credential, {at}, get_byte(credential, {at}) # 1)
             WHERE name = 'model-acme'"
        )
    };
    for at in ["0", "5", "20", "octet_length(credential) - 1"] {
        world.sql(&flip(at)).await;
        turns(&fleet, &token, MODELS, Err(503)).await;
        turns(&fleet, &token, LISTED, Ok(Some(&of_beta))).await;
        world.sql(&flip(at)).await;
        turns(&fleet, &token, MODELS, Ok(Some(&of_acme))).await;
    }
    let key = |id: &str| {
        format!("UPDATE patgate.backends SET credential_key_id = '{id}' WHERE name = 'model-acme'")
    };
    world.sql(&key("k9")).await;
    turns(&fleet, &token, MODELS, Err(503)).await;
    // A caller that would be refused anyway gets the refusal, not the outage.
    let stranger = world.token(&[]).await;
    assert_eq!(authorization(&fleet.0[0], &stranger, MODELS).await, Err(403));
    world.sql(&key("k1")).await;
    turns(&fleet, &token, MODELS, Ok(Some(&of_acme))).await;
}

pub(crate) async fn keys_rotate(suite: Arc<Suite>) {
    let world = suite.world().await;
    let cli = Cli::of(&world);
    let of_acme = give(&cli, &suite, "model-acme");
    let of_beta = give(&cli, &suite, "model-beta");
    // A replica to which the new ring is not brought.
    let ring = suite.dir.path().join(format!("{}.old.keys", world.database));
    fs::copy(&world.keyring_file, &ring).unwrap();
    let ring = format!("keyring_file={}", ring.display());
    let old = Fleet::of(&world, 1, &[&ring, PATIENT[0], PATIENT[1]]).await;
    cli.ok("keyring add --id k2");
    cli.ok("keyring promote k2");
    cli.refused("keyring drop k1", 1, "seals the credentials of 2 backends");
    let of_both = Fleet::of(&world, 1, &PATIENT).await;
    let token = picky_reader(&world).await;
    for fleet in [&old, &of_both] {
        turns(fleet, &token, OTHER, Ok(Some(&of_acme))).await;
        turns(fleet, &token, LISTED, Ok(Some(&of_beta))).await;
    }

    let since = |backend: &str| {
        cli.json(&format!("backend show {backend}"))["credential"]["set_at"].clone()
    };
    let before = since("model-acme");
    assert!(cli.ok("backend credential reseal").contains("under key k2: model-acme model-beta"));
    assert!(cli.ok("backend credential reseal").contains("every credential is under key k2"));
    assert_eq!(since("model-acme"), before);
    assert_eq!(cli.json("backend show model-acme")["credential"]["key_id"], "k2");
    turns(&of_both, &token, OTHER, Ok(Some(&of_acme))).await;
    turns(&of_both, &token, LISTED, Ok(Some(&of_beta))).await;
    // A replica that lacks the new key forwards nothing instead.
    turns(&old, &token, OTHER, Err(503)).await;
    let resealed = json!([{ "id": "k2", "credentials": 2 }, { "id": "k1", "credentials": 0 }]);
    let counts = cli.json("keyring list --count");
    for (at, entry) in resealed.as_array().unwrap().iter().enumerate() {
        assert_eq!(
            (&counts[at]["id"], &counts[at]["credentials"]),
            (&entry["id"], &entry["credentials"])
        );
    }
    world.sql("UPDATE patgate.pats SET revoked_at = now()").await;
    cli.ok("keyring drop k1");
    let last = Fleet::of(&world, 1, &PATIENT).await;
    world.sql("UPDATE patgate.pats SET key_id = 'k2', revoked_at = NULL").await;
    // The removed key signed this token.
    assert_eq!(authorization(&last.0[0], &token, OTHER).await, Err(401));
    let fresh = cli.mint(
        "token create fresh --user ann@example.com --expires-in 1h --scope picky:models:*:llm_read",
    );
    turns(&last, &fresh, OTHER, Ok(Some(&of_acme))).await;

    // A credential that no key opens is kept, and the others are not resealed without it.
    cli.ok("keyring add --id k3");
    cli.ok("keyring promote k3");
    world
        .sql("UPDATE patgate.backends SET credential_key_id = 'k1' WHERE name = 'model-beta'")
        .await;
    cli.refused("backend credential reseal", 1, "needs key `k1`");
    assert_eq!(cli.json("backend show model-acme")["credential"]["key_id"], "k2");
}

pub(crate) async fn mistakes_are_told_and_not_repeated(suite: Arc<Suite>) {
    let world = suite.world().await;
    let cli = Cli::of(&world);
    let key = suite.provider_key();
    let set = "backend credential set model-acme";
    for bad in [
        format!("{key} {key}"),
        format!(" {key}"),
        format!("Bearer {key}"),
        format!("{key}\n\n"),
        format!("{key}\r\nx-user-id: root"),
        format!("{key}\t"),
        format!("{key}\0"),
        format!("{key}ä"),
        key.repeat(60),
        key.repeat(300),
    ] {
        let ran = cli.feed(set, &bad);
        assert_eq!((ran.code, ran.stdout.as_str()), (2, ""), "{ran:#?}");
        assert!(ran.stderr.contains("visible ASCII characters"), "{ran:#?}");
    }
    for (cli, command, code, reason) in [
        (&cli, "backend credential set nowhere", 3, "`nowhere` does not exist"),
        (&cli.with("keyring_file", ""), set, 2, "PATGATE_KEYRING_FILE"),
        (&cli.login(&world, "server"), set, 4, "grant it patgate_admin"),
    ] {
        let ran = cli.feed(command, &key);
        assert!(ran.code == code && ran.stderr.contains(reason), "{command}: {ran:#?}");
    }
    assert_eq!(cli.json("backend show model-acme")["credential"], json!(null));

    for (scheme, word) in [("bearer", "Bearer"), ("basic", "Basic"), ("api-key", "Api-Key")] {
        let ran = cli.feed(&format!("{set} --scheme {scheme}"), &format!("{key}\r\n"));
        assert_eq!(ran.code, 0, "{ran:#?}");
        let token = reader(&world).await;
        let fleet = Fleet::of(&world, 1, &[]).await;
        turns(&fleet, &token, MODELS, Ok(Some(&format!("{word} {key}")))).await;
    }
    let shown = cli.json("backend list")[0]["credential"].clone();
    assert_eq!(shown["key_id"], "k1");
    assert_eq!(shown.as_object().unwrap().len(), 2, "{shown}");
    let table = cli.ok("backend show model-acme");
    assert!(table.contains("credential:  set ") && table.contains("(k1)"), "{table}");
}
