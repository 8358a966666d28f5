//! What answers do not tell: whether an address is a user's, and what becomes of the account.

use std::{fs, sync::Arc};

use patgate_testing::http::Reply;
use serde_json::json;

use super::{AdminSite, Client, credentials, process::AdminProcess};
use crate::{support::Suite, web::Site};

const JSON: (&str, &str) = ("content-type", "application/json");
const HASHES: &str = "patgate_web_password_wait_seconds_count";

/// All that a client sees of an answer, except what belongs to the moment and to the request.
fn seen(reply: &Reply) -> String {
    let own = ["date", "x-request-id"];
    let headers = reply.headers.iter().filter(|(name, _)| !own.contains(&name.as_str()));
    let headers: Vec<_> = headers.collect();
    format!("{} {headers:?} {}", reply.status, reply.body)
}

/// The functions of the database that were called since a place in its log, in order.
fn calls(suite: &Suite, database: &str, from: usize) -> Vec<String> {
    let log = fs::read(&suite.postgres.log).unwrap();
    let log = String::from_utf8_lossy(&log[from..]);
    let of_this = log.lines().filter(|line| line.starts_with(&format!("{database}|")));
    let called = of_this.filter(|line| line.contains("execute ") && !line.contains("web_status"));
    let function = |line: &str| {
        let (_, rest) = line.split_once("patgate.")?;
        Some(rest.split('(').next()?.to_owned())
    };
    called.filter_map(function).collect()
}

/// An answer, with how many passwords were hashed and which functions of the database were called for it.
type Found = (String, u64, Vec<String>);

/// The same answer, after the same number of hashes and the same calls of the database.
async fn alike<T>(
    suite: &Suite,
    process: &AdminProcess<'_, '_>,
    database: &str,
    cases: impl IntoIterator<Item = (&'static str, T)>,
    send: impl AsyncFn(T) -> Reply,
) -> Found {
    let mut first: Option<(&str, Found)> = None;
    for (name, case) in cases {
        let hashes = process.metric(HASHES).await;
        let from = fs::metadata(&suite.postgres.log).unwrap().len() as usize;
        let reply = seen(&send(case).await);
        let hashes = process.metric(HASHES).await - hashes;
        let found = (reply, hashes as u64, calls(suite, database, from));
        match &first {
            Some((as_for, expected)) => assert_eq!(&found, expected, "{name} and {as_for}"),
            None => first = Some((name, found)),
        }
    }
    first.unwrap().1
}

pub(crate) async fn a_sign_in_tells_nothing_about_an_account(suite: Arc<Suite>) {
    let world = suite.world().await;
    let process = AdminProcess::start(&world, &[]);
    let site = Site::of(&world).await;
    world.sql("UPDATE patgate.users SET enabled = true WHERE name = 'gone'").await;
    for user in ["ann", "gone", "root"] {
        site.account(user).await;
    }
    // Invited, and has set no password.
    site.invited("bob", "1 hour").await;
    world.sql("UPDATE patgate.users SET enabled = false WHERE name = 'gone'").await;
    let begin = async |user: &str| {
        let body = credentials(user, "a wrong password");
        process.send("POST", "/api/sessions", &[JSON], &body).await
    };
    let database = &*world.database;
    let cases = ["ann", "nobody", "gone", "bob", "root"].map(|user| (user, user));
    let (reply, hashes, made) = alike(&suite, &process, database, cases, &begin).await;
    assert!(reply.starts_with("401 ") && reply.contains("sign-in-failed"), "{reply}");
    assert_eq!(hashes, 1);
    assert_eq!(made, ["web_password_salt", "web_begin_attempt", "web_begin_local_session"]);

    // Locked, with one more attempt than is allowed: of a user, of nobody, of a disabled user.
    world.sql("UPDATE patgate.policy SET failed_attempts = 1").await;
    let cases = ["ann", "nobody", "gone", "bob"].map(|user| (user, user));
    let (reply, hashes, made) = alike(&suite, &process, database, cases, &begin).await;
    assert!(reply.starts_with("429 ") && reply.contains("too-many-attempts"), "{reply}");
    assert_eq!((hashes, made.len()), (1, 2), "{made:?}");

    // What cannot be a password, and what cannot be an address, are not tried at all.
    let short = async |user: &str| {
        process.send("POST", "/api/sessions", &[JSON], &credentials(user, "short")).await
    };
    let cases = ["ann", "nobody", "gone", "bob", "no address"].map(|user| (user, user));
    let (reply, hashes, made) = alike(&suite, &process, database, cases, &short).await;
    assert!(reply.starts_with("401 "), "{reply}");
    assert_eq!((hashes, made.len()), (0, 0), "{made:?}");
}

pub(crate) async fn a_code_tells_nothing_about_an_invitation(suite: Arc<Suite>) {
    let world = suite.world().await;
    let process = AdminProcess::start(&world, &[]);
    let site = Site::of(&world).await;
    let used = site.invited("ann", "1 hour").await;
    let password = suite.provider_key().parse().unwrap();
    site.service.accept_invitation(&Default::default(), &used, &password).await.unwrap();
    let late = site.invited("bob", "-1 second").await;
    // Gone is disabled.
    let disabled = site.invited("gone", "1 hour").await;
    let unknown = patgate::admin::web::InvitationSecret::random().unwrap();
    let accept = async |code: String| {
        let body = json!({ "code": code, "password": "a password of nobody" }).to_string();
        process.send("POST", "/api/invitation", &[JSON], &body).await
    };
    let cases = [("unknown", &unknown), ("used", &used), ("late", &late), ("disabled", &disabled)];
    let cases = cases.map(|(name, code)| (name, code.expose().to_string()));
    let (reply, hashes, made) = alike(&suite, &process, &world.database, cases, accept).await;
    assert!(reply.starts_with("404 "), "{reply}");
    assert_eq!((hashes, &*made), (0, &["web_invitation".to_owned()][..]));
}

/// A session tells no more about the password of its user than a sign-in does, and an ended one no more
/// than one that never was.
pub(crate) async fn a_wrong_password_is_answered_alike_in_a_session(suite: Arc<Suite>) {
    let world = suite.world().await;
    let site = AdminSite::of(&world).await;
    let (ann, bob) = (site.client("ann").await, site.client("bob").await);
    let body = |present: &str| json!({ "present": present, "password": "a new long password" });
    let change = async |client: &Client<'_>, present| {
        seen(&client.json("POST", "/api/session/password", body(present)).await)
    };
    let confirm = async |client: &Client<'_>| {
        let body = json!({ "password": "a wrong password" });
        seen(&client.json("POST", "/api/session/elevation", body).await)
    };
    let wrong = change(&ann, "a wrong password").await;
    assert!(wrong.starts_with("401 ") && wrong.contains("sign-in-failed"), "{wrong}");
    assert_eq!(change(&ann, "short").await, wrong);
    assert_eq!(confirm(&ann).await, wrong);
    world
        .sql(
            "DELETE FROM patgate.local_accounts a USING patgate.users u
             WHERE u.id = a.user_id AND u.name = 'bob'",
        )
        .await;
    let never = Client { site: &site, secret: "A".repeat(43) };
    let unknown = confirm(&never).await;
    assert!(unknown.starts_with("401 ") && unknown.contains("not-signed-in"), "{unknown}");
    assert_eq!(confirm(&bob).await, unknown);
    assert_eq!(change(&bob, "a wrong password").await, unknown);
    assert_eq!(seen(&bob.get("/api/session").await), unknown);
}
