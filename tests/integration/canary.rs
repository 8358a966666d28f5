//! The revocation canary: it measures, and is useless for anything else.

use std::sync::Arc;

use patgate::token::TokenId;
use patgate_testing::{
    eventually, http,
    proxy::{Mode, Proxy},
};
use uuid::Uuid;

use crate::support::{
    Replica, Suite, World,
    cli::Cli,
    fleet::{MODELS, answer},
    replica::lookups,
    settings::{PATIENT, PROMPT, feed_through},
    tokens::reader,
    value,
};

const KEEPER: &str = "ca4a4700-0000-8000-8000-000000000000";
const EVERY: &str = "canary.every=100ms";

async fn rounds(replica: &Replica, result: &str) -> u64 {
    replica.metric(&format!("patgate_revocation_canary_rounds_total{{result=\"{result}\"}}")).await
}

/// Returns the number of measured rounds, and their total time in seconds.
async fn measured(replica: &Replica) -> (u64, f64) {
    let page = http::send(replica.http.port(), "GET", "/metrics", &[], "").await.body;
    let line = |name: &str| {
        let name = format!("patgate_revocation_propagation_seconds_{name} ");
        page.lines().find_map(|line| line.strip_prefix(&name)).unwrap().to_owned()
    };
    (line("count").parse().unwrap(), line("sum").parse().unwrap())
}

async fn count(world: &World<'_>, what: &str) -> i64 {
    value(world, &format!("SELECT count(*) FROM patgate.{what} = '{KEEPER}'")).await
}

/// Each canary is alone and disturbs no other.
pub(crate) async fn measures_if_it_is_switched_on(suite: Arc<Suite>) {
    let world = suite.world().await;
    let quiet = world.serve(&PATIENT).await;
    let hot = reader(&world).await;
    for _ in 0..2 {
        assert_eq!(answer(&quiet, &hot, MODELS).await, 200);
    }
    assert_eq!(measured(&quiet).await, (0, 0.0));
    assert_eq!(
        (count(&world, "users WHERE id").await, count(&world, "pats WHERE user_id").await),
        (0, 0)
    );

    let tokens = Cli::of(&world).ok("token list");
    let feed = format!("feed.url={}", suite.postgres_url("server", &world.database));
    let [first, second] =
        [world.serve(&[EVERY, &feed, PATIENT[0]]).await, world.serve(&[EVERY, PATIENT[0]]).await];
    for replica in [&first, &second] {
        assert_eq!(answer(replica, &hot, MODELS).await, 200);
        eventually("rounds", async || rounds(replica, "seen").await >= 4).await;
        let (count, sum) = measured(replica).await;
        assert!(count >= 4 && sum / count as f64 <= 5.0, "{sum} s in {count} rounds");
        println!("{count} rounds, {:.1} ms on average", 1000.0 * sum / count as f64);
        assert_eq!(rounds(replica, "unseen").await, 0);
        assert_eq!(lookups(replica, "principal", "postgres", "unavailable").await, 0);
    }
    let read = world.statements_with(&hot.id.to_string());
    for replica in [&first, &second, &quiet] {
        assert_eq!(answer(replica, &hot, MODELS).await, 200);
    }
    assert_eq!(world.statements_with(&hot.id.to_string()), read, "it was read again");

    // Lists show people's tokens only.
    assert_eq!(count(&world, "pats WHERE user_id").await, 2);
    assert_eq!(Cli::of(&world).ok("token list").lines().count(), tokens.lines().count());
    assert!(!Cli::of(&world).ok("user list").contains("canary"));
    assert!(!Cli::of(&world).ok("keyring list --count").contains("canary"));

    // A replica that ends removes its canary; that of a killed one is left to the others.
    drop(first);
    eventually("its canary to be removed", async || count(&world, "pats WHERE user_id").await == 1)
        .await;
    world
        .sql(&format!(
            "INSERT INTO patgate.pats (id, user_id, name, digest, key_id, issued_at, expires_at)
             SELECT gen_random_uuid(), user_id, 'lost', digest, key_id, now() - interval '1 day',
                    now() - interval '1 s' FROM patgate.pats WHERE user_id = '{KEEPER}'"
        ))
        .await;
    eventually("a lost one to be removed", async || count(&world, "pats WHERE user_id").await == 1)
        .await;
}

/// It permits nothing, even with a tag that verifies; and its functions affect no other token.
pub(crate) async fn permits_nothing(suite: Arc<Suite>) {
    let world = suite.world().await;
    let replica = world.serve(&[EVERY, PATIENT[0]]).await;
    eventually("a canary", async || count(&world, "pats WHERE user_id").await == 1).await;
    let id: Uuid =
        value(&world, &format!("SELECT id FROM patgate.pats WHERE user_id = '{KEEPER}'")).await;
    let forged = world.unknown(TokenId(id));
    let before = rounds(&replica, "seen").await;
    eventually("two rounds", async || {
        let answer = replica.check("GET", MODELS, &[("authorization", &forged.bearer())]).await;
        assert_eq!(crate::support::outcome(&answer), (401, "invalid_token".to_owned()));
        rounds(&replica, "seen").await >= before + 2
    })
    .await;

    let real = reader(&world).await;
    let server =
        crate::support::connect(&world.suite.postgres_url("server", &world.database)).await;
    let call = |call: String| sqlx::raw_sql(sqlx::AssertSqlSafe(call)).execute(&server);
    let flip = format!("SELECT patgate.flip_canary('{}', '1 hour')", real.id);
    assert!(call(flip).await.is_err(), "a user's token");
    call(format!("SELECT patgate.remove_canary('{}')", real.id)).await.unwrap();
    assert_eq!(answer(&replica, &real, MODELS).await, 200);
    let untouched = "SELECT count(*) FROM patgate.pats WHERE id = ";
    let untouched = format!("{untouched}'{}' AND revoked_at IS NULL", real.id);
    assert_eq!(value::<i64>(&world, &untouched).await, 1);
    let anybody = "SELECT count(*) FROM pg_proc p, unnest(ARRAY['patgate_admin', 'public']) r
         WHERE p.proname LIKE '%\\_canary' AND has_function_privilege(r, p.oid, 'EXECUTE')";
    assert_eq!(value::<i64>(&world, anybody).await, 0);
}

/// Without the feed, the replica sees the change late; without Postgres, it cannot make the change.
pub(crate) async fn reports_slow_revocation(suite: Arc<Suite>) {
    let world = suite.world().await;
    let feed = Proxy::to(suite.postgres.port).await;
    let postgres = Proxy::to(suite.postgres.port).await;
    let url = format!("postgres.url={}", world.url("server", postgres.port));
    let settings = [
        EVERY,
        "deadline=2s",
        "max_staleness=3s",
        "negative_ttl=1s",
        "redis.url=",
        &url,
        PROMPT[0],
    ];
    let replica = world.serve(&[&settings[..], &[&feed_through(&world, &feed)]].concat()).await;
    eventually("a round", async || rounds(&replica, "seen").await >= 1).await;
    feed.set(Mode::BlackHole);
    // One round may have been in progress.
    let ended = async || rounds(&replica, "seen").await + rounds(&replica, "unseen").await;
    let before = ended().await;
    eventually("that to end", async || ended().await > before).await;
    let (count, sum) = measured(&replica).await;
    let unseen = rounds(&replica, "unseen").await;
    let before = ended().await;
    eventually("two late rounds", async || ended().await >= before + 2).await;
    let (late, slow) = measured(&replica).await;
    let late = late - count;
    let slow = slow - sum;
    assert!(
        rounds(&replica, "unseen").await > unseen || slow / late as f64 > 1.0,
        "{slow} s in {late}"
    );
    println!("without the feed: {late} rounds, {:.1} s on average", slow / late as f64);

    postgres.set(Mode::Refuse);
    eventually("a round that fails", async || rounds(&replica, "unavailable").await >= 1).await;
    feed.set(Mode::Pass);
    postgres.set(Mode::Pass);
    let before = rounds(&replica, "seen").await;
    eventually("rounds again", async || rounds(&replica, "seen").await > before + 2).await;
}
