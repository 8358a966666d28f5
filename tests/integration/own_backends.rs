//! Backends that API tables name: address and credential come from the same decision.

use std::{
    fs,
    path::{Path, PathBuf},
    sync::Arc,
    time::Instant,
};

use patgate_testing::{PAUSE, http};
use tokio::time::sleep;

use crate::support::{
    Suite, World,
    cli::Cli,
    credentials::{authorization, give, turns},
    entries::entries_written,
    fleet::{Fleet, HEALED, MODELS},
    leaks, outcome,
    replica::lookups,
    settings::PATIENT,
};

const OWN: &str = "/api/own/acme/models";
const RULE: &str = "/api/own/acme/rule";
const LOST: &str = "/api/lost/acme/models";

fn table(name: &str, more: &str, rules: &[(&str, &str)]) -> String {
    let rule = |(path, more): &(&str, &str)| {
        format!("- {{ methods: [GET], path: {path}, operation: llm_read, entity: models{more} }}\n")
    };
    let rules: String = rules.iter().map(rule).collect();
    format!("name: {name}\nmount: /api/{name}/{{domain}}\nerrors: openai\n{more}rules:\n{rules}")
}

/// Writes two tables: in one, all rules except one go to `model-beta`; the other goes to a backend
/// that does not exist.
fn tables(world: &World<'_>) -> PathBuf {
    let dir = world.suite.dir.path().join(format!("{}.own", world.database));
    fs::create_dir(&dir).unwrap();
    let rules = [("/models", ""), ("/rule", ", upstream: model-acme")];
    fs::write(dir.join("own.yaml"), table("own", "upstream: model-beta\n", &rules)).unwrap();
    fs::write(dir.join("lost.yaml"), table("lost", "upstream: model-lost\n", &rules[..1])).unwrap();
    let shipped = Path::new(&world.suite.shipped_tables);
    fs::copy(shipped.join("cube-ai.yaml"), dir.join("cube-ai.yaml")).unwrap();
    dir
}

pub(crate) async fn each_sees_its_own_key_and_never_anothers(suite: Arc<Suite>) {
    let world = suite.world().await;
    let dir = tables(&world);
    let cli = Cli::of(&world).with("apis", &dir.display().to_string());
    let token = world.token(&[("acme", "models", "*", "llm_read")]).await;
    let of_acme = give(&cli, &suite, "model-acme");
    let replica = world.serve(&[&format!("apis={}", dir.display())]).await;
    let envoy = replica.envoy(&suite);
    let bearer = token.bearer();
    let stranger = world.token(&[]).await.bearer();
    let ask = async |path: &str, bearer: &str| {
        http::send(envoy.port, "GET", path, &[("authorization", bearer)], "").await
    };
    let seen = async |path: &str, backend: &str| {
        let reply = ask(path, &bearer).await;
        assert_eq!((reply.status, reply.header("x-backend")), (200, Some(backend)), "{path}");
        assert_eq!(reply.seen("x-upstream-cluster"), [backend]);
        reply.seen("authorization")
    };
    // The domain's backend has a credential and the table's has none: it does not get the domain's
    // either.
    assert_eq!(seen(MODELS, "model-acme").await, [of_acme.as_str()]);
    assert_eq!(seen(OWN, "model-beta").await, [""; 0]);
    let of_beta = give(&cli, &suite, "model-beta");
    let began = Instant::now();
    while seen(OWN, "model-beta").await != [of_beta.as_str()] {
        assert!(began.elapsed() < HEALED);
        sleep(PAUSE).await;
    }
    assert_eq!(seen(RULE, "model-acme").await, [of_acme.as_str()]);
    assert_eq!(seen(MODELS, "model-acme").await, [of_acme.as_str()]);

    // A backend that does not exist has no substitute, and clients without permission do not learn
    // of it.
    let lost = ask(LOST, &bearer).await;
    assert_eq!((lost.status, lost.code()), (503, "unavailable".to_owned()), "{lost:?}");
    assert!(lost.header("x-backend").is_none() && lost.header("retry-after").is_some());
    assert!(!leaks::mentions(&lost.body, &[&of_acme, &of_beta]), "{lost:?}");
    assert_eq!(ask(LOST, &stranger).await.status, 403);
    let log = fs::read_to_string(suite.dir.path().join("patgate.log")).unwrap();
    let told = "the API tables name a backend that does not exist";
    assert!(log.lines().any(|line| line.contains(told) && line.contains("model-lost")));

    // The command explains what the service does.
    let check = |path: &str| {
        let server = format!("--server {}", replica.grpc);
        cli.feed(&format!("check --method GET --path {path} {server}"), &token.text)
    };
    let ran = check(OWN);
    assert!(ran.stdout.contains("upstream: model-beta\nbackend credential: set"), "{ran:#?}");
    assert!(ran.stdout.contains("replica: 200 ok, the same"), "{ran:#?}");
    let ran = check(LOST);
    assert!(ran.code == 4 && ran.stdout.contains("names the backend `model-lost`"), "{ran:#?}");
    assert!(ran.stdout.contains("patgate backend create model-lost"), "{ran:#?}");
    assert!(ran.stdout.contains("replica: 503 unavailable, the same"), "{ran:#?}");
    let listed = cli.ok(&format!("api check {}", dir.display()));
    for names in [["cube-ai", "each domain's"], ["own", "model-acme model-beta"]] {
        let row = listed.lines().find(|line| line.starts_with(names[0]));
        assert!(row.is_some_and(|row| row.ends_with(names[1])), "{listed}");
    }
}

/// Created, given a credential, deprived of it, renamed, deleted: by commands and by bare SQL.
pub(crate) async fn changes_count_at_once(suite: Arc<Suite>) {
    let world = suite.world().await;
    let cli = Cli::of(&world);
    let token = world.token(&[("acme", "models", "*", "llm_read")]).await;
    let apis = format!("apis={}", tables(&world).display());
    let fleet = Fleet::of(&world, 2, &[PATIENT[0], PATIENT[1], &apis]).await;
    turns(&fleet, &token, OWN, Ok(None)).await;
    turns(&fleet, &token, LOST, Err(503)).await;
    cli.ok("backend create model-lost --url http://127.0.0.1:1 --kind vllm");
    turns(&fleet, &token, LOST, Ok(None)).await;
    let of_lost = give(&cli, &suite, "model-lost");
    turns(&fleet, &token, LOST, Ok(Some(&of_lost))).await;
    let of_beta = give(&cli, &suite, "model-beta");
    turns(&fleet, &token, OWN, Ok(Some(&of_beta))).await;
    let none = "UPDATE patgate.backends SET credential = NULL, credential_key_id = NULL,
                    credential_set_at = NULL WHERE name = 'model-beta'";
    world.sql("CREATE TABLE kept AS SELECT * FROM patgate.backends").await;
    world.sql(none).await;
    turns(&fleet, &token, OWN, Ok(None)).await;
    // The credential of another backend opens nothing here, and nothing is sent without one.
    world
        .sql(
            "UPDATE patgate.backends b SET credential = k.credential,
                 credential_key_id = k.credential_key_id, credential_set_at = now()
             FROM kept k WHERE k.name = 'model-lost' AND b.name = 'model-beta'",
        )
        .await;
    turns(&fleet, &token, OWN, Err(503)).await;
    world.sql(none).await;
    turns(&fleet, &token, OWN, Ok(None)).await;
    world.sql("UPDATE patgate.backends SET name = 'renamed' WHERE name = 'model-lost'").await;
    turns(&fleet, &token, LOST, Err(503)).await;
    world.sql("UPDATE patgate.backends SET name = 'model-lost' WHERE name = 'renamed'").await;
    turns(&fleet, &token, LOST, Ok(Some(&of_lost))).await;
    cli.ok("backend delete model-lost");
    turns(&fleet, &token, LOST, Err(503)).await;
    turns(&fleet, &token, RULE, Ok(None)).await;
}

/// Entries in Redis come from replicas with other tables, before and after a change of tables.
pub(crate) async fn entries_do_not_depend_on_tables(suite: Arc<Suite>) {
    let world = suite.world().await;
    let cli = Cli::of(&world);
    let token = world.token(&[("acme", "models", "*", "llm_read")]).await;
    let of_acme = give(&cli, &suite, "model-acme");
    let of_beta = give(&cli, &suite, "model-beta");
    let dir = tables(&world);
    let apis = format!("apis={}", dir.display());

    // A replica without these tables fills Redis with token and domain.
    let plain = world.serve(&[]).await;
    assert_eq!(authorization(&plain, &token, MODELS).await, Ok(Some(of_acme.clone())));
    entries_written(&world, 2).await;
    let first = world.serve(&[&apis]).await;
    assert_eq!(authorization(&first, &token, OWN).await, Ok(Some(of_beta.clone())));
    assert_eq!(lookups(&first, "domain", "redis", "hit").await, 1);
    assert_eq!(lookups(&first, "backend", "postgres", "hit").await, 1);
    entries_written(&world, 3).await;
    // A replica with the tables swapped finds entries that were read for the others.
    let turned = dir.join("own.yaml");
    let text = fs::read_to_string(&turned).unwrap();
    let swap = |text: &str| {
        let text = text.replace("model-acme", "model-x").replace("model-beta", "model-acme");
        text.replace("model-x", "model-beta")
    };
    fs::write(&turned, swap(&text)).unwrap();
    let second = world.serve(&[&apis]).await;
    assert_eq!(authorization(&second, &token, RULE).await, Ok(Some(of_beta.clone())));
    assert_eq!(lookups(&second, "backend", "redis", "hit").await, 1);
    assert_eq!(authorization(&second, &token, OWN).await, Ok(Some(of_acme.clone())));
    assert_eq!(authorization(&second, &token, MODELS).await, Ok(Some(of_acme.clone())));
    // A replica that loads the change while it serves.
    let began = Instant::now();
    loop {
        let own = authorization(&first, &token, OWN).await;
        let rule = authorization(&first, &token, RULE).await;
        let response = first.check("GET", OWN, &[("authorization", &token.bearer())]).await;
        assert_eq!(outcome(&response).0, 200);
        if own == Ok(Some(of_acme.clone())) && rule == Ok(Some(of_beta.clone())) {
            break;
        }
        assert!(began.elapsed() < HEALED, "{own:?} {rule:?}");
        sleep(PAUSE).await;
    }
}
