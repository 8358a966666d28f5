//! Sign-ins by a real provider of OpenID Connect.

mod provider;

use std::{env, fs, process::Stdio, sync::Arc};

use patgate::config::{Config, ConfigPurpose, ConfigSources};
use patgate_testing::{eventually, http::Reply, stack::project};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::io::AsyncWriteExt as _;

use self::provider::{Departure, Provider, bring, depart, is_installed, session, sign_in};
use super::{
    AdminSite,
    guards::{is, password},
};
use crate::{
    clients::chromium,
    support::{Suite, authority::Authority, value},
};

const JSON: (&str, &str) = ("content-type", "application/json");

/// A sign-in that has failed: nobody has a session, and the browser learns why.
#[track_caller]
fn stopped(reply: &Reply, status: u16, words: &str) {
    assert_eq!(reply.status, status, "{reply:?}");
    assert!(reply.body.contains(words), "{words}: {reply:?}");
    assert_eq!(reply.header("content-type"), Some("text/html; charset=utf-8"));
    let gives = |(name, line): &(String, String)| name == "set-cookie" && line.contains("session=");
    assert!(!reply.headers.iter().any(gives), "{reply:?}");
}

const NOT_BEGUN: &str = "not begun in this browser";
const NOT_ACCEPTED: &str = "answer is not accepted";
const UNKNOWN: &str = "belongs to no user here";

async fn email(site: &AdminSite<'_, '_>, session: &str) -> Value {
    let reply = site.send("GET", "/api/session", &[("cookie", session)], "").await;
    if reply.status == 200 { reply.json()["email"].clone() } else { Value::Null }
}

pub(crate) async fn a_linked_user_signs_in_and_out(suite: Arc<Suite>) {
    if !is_installed() {
        return;
    }
    let world = suite.world().await;
    let mut provider = Provider::new(&world);
    let site = provider.site(&world).await;
    provider.start(&site).await;
    provider.link(&world, "s-ann", "ann").await;
    provider.link(&world, "s-root", "root").await;

    let page = site.send("GET", "/sign-in", &[], "").await.body;
    let host = provider.issuer.strip_prefix("http://").unwrap();
    assert!(page.contains(&format!("href=\"/sign-in/provider\">Sign in with {host}")), "{page}");
    let begun = site.send("GET", "/sign-in/provider?next=https://evil.example", &[], "").await;
    let given = begun.header("set-cookie").unwrap();
    assert!(given.starts_with("patgate-sign-in="), "{given}");
    assert!(given.contains("; HttpOnly; SameSite=Lax; Max-Age=600"), "{given}");
    let to = begun.header("location").unwrap();
    for part in ["code_challenge_method=S256", "response_type=code", "scope=openid%20email"] {
        assert!(to.contains(part), "{to}");
    }
    assert!(!to.contains("evil"), "{to}");
    let cookie = super::cookie(&begun);
    let back = provider.visit(&site, to, Some("s-ann")).await;
    // What others add leads nowhere.
    let back = format!("{back}&next=https://evil.example&redirect_uri=//evil.example");
    let reply = bring(&site, &back, &cookie).await;
    let ann = session(&reply);
    assert_eq!(reply.header("refresh"), Some("0;url=/tokens"));
    assert!(reply.body.contains("href=\"/tokens\"") && !reply.body.contains("evil"));
    assert_eq!(reply.header("location"), None);
    assert_eq!(reply.header("referrer-policy"), Some("no-referrer"));
    let taken = |(name, line): &(String, String)| {
        name == "set-cookie" && line.starts_with("patgate-sign-in=;") && line.contains("Max-Age=0")
    };
    assert!(reply.headers.iter().any(taken), "{reply:?}");
    let shown = site.send("GET", "/api/session", &[("cookie", &ann)], "").await.json();
    assert_eq!((&shown["email"], &shown["method"]), (&"ann@example.com".into(), &"oidc".into()));

    // No password makes a platform administrator of such a session.
    let secret = password(&site, "root").await;
    let root = session(&sign_in(&site, &provider, "s-root").await);
    let origin = site.origin();
    let own = [("cookie", &*root), ("origin", &*origin), JSON];
    let body = json!({ "password": secret }).to_string();
    let proven = site.send("POST", "/api/session/elevation", &own, &body).await;
    is(&proven, 403, "not-permitted");

    stopped(&sign_in(&site, &provider, "s-nobody").await, 403, UNKNOWN);
    let own = [("cookie", &*ann), ("origin", &*origin)];
    assert_eq!(site.send("DELETE", "/api/session", &own, "").await.status, 204);
    assert_eq!(email(&site, &ann).await, Value::Null);

    // A user who is disabled loses the sessions, and gets no new one.
    let ann = session(&sign_in(&site, &provider, "s-ann").await);
    world.sql("UPDATE patgate.users SET enabled = false WHERE email = 'ann@example.com'").await;
    assert_eq!(email(&site, &ann).await, Value::Null);
    stopped(&sign_in(&site, &provider, "s-ann").await, 403, UNKNOWN);
    world.sql("UPDATE patgate.users SET enabled = true WHERE email = 'ann@example.com'").await;
    assert_eq!(email(&site, &ann).await, Value::Null);
}

/// Also the kinds of clients: with a secret in a header, in the form, and without one.
pub(crate) async fn each_algorithm_and_kind_of_client_is_used(suite: Arc<Suite>) {
    if !is_installed() {
        return;
    }
    for (auth, algorithms) in [
        ("client_secret_basic", &["RS256", "PS256", "EdDSA"][..]),
        ("client_secret_post", &["ES384"]),
        ("none", &["ES256"]),
    ] {
        let world = suite.world().await;
        let settings = json!({ "auth": auth, "alg": algorithms[0] });
        let mut provider = Provider::new(&world).with(settings);
        let site = provider.site(&world).await;
        provider.start(&site).await;
        provider.link(&world, "s-ann", "ann").await;
        session(&sign_in(&site, &provider, "s-ann").await);
        for algorithm in &algorithms[1..] {
            provider.change(json!({ "alg": algorithm })).await;
            // Unknown keys are asked for at most once in a few seconds.
            eventually(algorithm, async || sign_in(&site, &provider, "s-ann").await.status == 200)
                .await;
        }
    }
}

/// Both as a provider says it in the ID token, and where it must be asked.
pub(crate) async fn a_verified_address_links_a_user(suite: Arc<Suite>) {
    if !is_installed() {
        return;
    }
    for in_id_token in [false, true] {
        let world = suite.world().await;
        let mut provider = Provider::new(&world).with(json!({ "email_in_id_token": in_id_token }));
        let site = provider.site(&world).await;
        provider.start(&site).await;
        let issuer = &provider.issuer;
        world.sql(&format!("INSERT INTO patgate.issuers (issuer) VALUES ('{issuer}')")).await;
        stopped(&sign_in(&site, &provider, "s-bob").await, 403, UNKNOWN);
        world.sql("UPDATE patgate.issuers SET trusts_email = true").await;
        for refused in ["s-liar", "s-root", "s-nobody"] {
            stopped(&sign_in(&site, &provider, refused).await, 403, UNKNOWN);
        }
        let bob = session(&sign_in(&site, &provider, "s-bob").await);
        assert_eq!(email(&site, &bob).await, "bob@example.com");
        let linked = "SELECT count(*) FROM patgate.audit_log WHERE action = 'identity.link'";
        assert_eq!(value::<i64>(&world, linked).await, 1);
    }
}

/// An answer of the provider belongs to the browser that asked, and counts once.
pub(crate) async fn an_answer_is_for_one_browser_once(suite: Arc<Suite>) {
    if !is_installed() {
        return;
    }
    let world = suite.world().await;
    let mut provider = Provider::new(&world);
    let site = provider.site(&world).await;
    provider.start(&site).await;
    provider.link(&world, "s-ann", "ann").await;
    let Departure { to, cookie } = depart(&site).await;
    let other = depart(&site).await;
    let back = provider.visit(&site, &to, Some("s-ann")).await;
    let code =
        |path: &str| path.split("code=").nth(1).unwrap().split('&').next().unwrap().to_owned();
    let state =
        |path: &str| path.split("state=").nth(1).unwrap().split('&').next().unwrap().to_owned();

    // Without the cookie, with that of another browser, with two, with a changed one.
    stopped(&site.send("GET", &back, &[], "").await, 400, NOT_BEGUN);
    let changed = format!("{}A", &cookie[..cookie.len() - 1]);
    let changed =
        if changed == cookie { format!("{}B", &cookie[..cookie.len() - 1]) } else { changed };
    let session_name = cookie.replace("patgate-sign-in", "patgate-session");
    for wrong in [&other.cookie, &format!("{cookie}; {cookie}"), &changed, &session_name] {
        stopped(&bring(&site, &back, wrong).await, 400, NOT_BEGUN);
    }
    // A stolen state is worth nothing without its cookie, and a cookie nothing without its state.
    let stolen = back.replace(&state(&back), &state(&other.to));
    stopped(&bring(&site, &stolen, &cookie).await, 400, NOT_BEGUN);
    // A code that another browser got is redeemed by nobody else: the provider knows the verifier.
    stopped(&bring(&site, &stolen, &other.cookie).await, 400, NOT_BEGUN);
    for path in [
        "/sign-in/callback".to_owned(),
        back.replace(&state(&back), ""),
        format!("{back}&state={}", state(&back)),
        format!("{back}&code=x"),
        back.replace("state=", "State="),
    ] {
        stopped(&bring(&site, &path, &cookie).await, 400, NOT_BEGUN);
    }

    let Departure { to, cookie } = depart(&site).await;
    let back = provider.visit(&site, &to, Some("s-ann")).await;
    // The issuer in the answer is that of another provider, or is missing (RFC 9207).
    let (start, _) = back.split_once("&iss=").unwrap();
    for wrong in ["", "&iss=", "&iss=https%3A%2F%2Fevil.example"] {
        stopped(&bring(&site, &format!("{start}{wrong}"), &cookie).await, 502, NOT_ACCEPTED);
    }
    let without = back.replace(&format!("code={}", code(&back)), "code=");
    stopped(&bring(&site, &without, &cookie).await, 502, NOT_ACCEPTED);
    session(&bring(&site, &back, &cookie).await);
    // A cookie cannot be taken from a thief, but the provider takes a code once.
    stopped(&bring(&site, &back, &cookie).await, 400, NOT_BEGUN);

    // The provider says no, in words that are not shown.
    let Departure { to, cookie } = depart(&site).await;
    let back = provider.visit(&site, &to, None).await;
    assert!(back.contains("not%20shown") || back.contains("not+shown"), "{back}");
    let declined = bring(&site, &back, &cookie).await;
    stopped(&declined, 403, "has not signed you in");
    assert!(!declined.body.contains("not shown") && !declined.body.contains("access_denied"));
}

/// What the provider's answer must be, beyond that it comes from the provider's address.
pub(crate) async fn an_id_token_that_is_not_genuine_signs_nobody_in(suite: Arc<Suite>) {
    if !is_installed() {
        return;
    }
    let world = suite.world().await;
    let mut provider = Provider::new(&world);
    let site = provider.site(&world).await;
    provider.start(&site).await;
    provider.link(&world, "s-ann", "ann").await;
    session(&sign_in(&site, &provider, "s-ann").await);
    for forgery in [
        json!({ "replay": true }),
        json!({ "claims": { "nonce": "n" } }),
        json!({ "claims": { "nonce": null } }),
        json!({ "claims": { "iss": "https://evil.example" } }),
        json!({ "claims": { "iss": format!("{}/", provider.issuer) } }),
        json!({ "claims": { "aud": "other" } }),
        json!({ "claims": { "aud": ["patgate", "other"] } }),
        json!({ "claims": { "exp": 1_000_000_000 } }),
        json!({ "claims": { "iat": 4_000_000_000_u64 } }),
        json!({ "header": { "typ": "at+jwt" } }),
        json!({ "header": { "kid": "other" } }),
        json!({ "by": "nobody" }),
        json!({ "by": "public key" }),
        json!({ "by": "stranger" }),
    ] {
        provider.change(json!({ "forge": forgery })).await;
        stopped(&sign_in(&site, &provider, "s-ann").await, 502, NOT_ACCEPTED);
    }
    // Signed again, it is accepted: it was not refused for that.
    provider.change(json!({ "forge": { "claims": { "more": 1 } } })).await;
    session(&sign_in(&site, &provider, "s-ann").await);
}

pub(crate) async fn an_access_token_begins_a_session(suite: Arc<Suite>) {
    if !is_installed() {
        return;
    }
    let world = suite.world().await;
    let mut provider = Provider::new(&world);
    let site = provider.site(&world).await;
    provider.start(&site).await;
    let begin = async |token: &str, body: &str| {
        let bearer = format!("Bearer {token}");
        site.send("POST", "/api/sessions", &[("authorization", &bearer)], body).await
    };
    let token = provider.access_token().await;
    is(&begin(&token, "").await, 401, "sign-in-failed");
    provider.link(&world, "s-robot", "ann").await;
    let begun = begin(&token, "").await;
    assert_eq!(begun.status, 201, "{begun:?}");
    assert_eq!(begun.header("set-cookie"), None);
    let secret = begun.json()["secret"].as_str().unwrap().to_owned();
    let get = async |bearer: &str| {
        let bearer = format!("Bearer {bearer}");
        site.send("GET", "/api/session", &[("authorization", &bearer)], "").await
    };
    let shown = get(&secret).await.json();
    assert_eq!((&shown["email"], &shown["method"]), (&"ann@example.com".into(), &"oidc".into()));
    // The token itself proves no session, and is not taken beside a password.
    let refused = get(&token).await;
    is(&refused, 401, "not-signed-in");
    assert!(refused.json()["detail"].as_str().unwrap().contains("POST /api/sessions"));
    is(&begin(&token, "{}").await, 400, "invalid");

    for forgery in [
        json!({ "claims": { "aud": "https://other.example.com" } }),
        json!({ "claims": { "iss": "https://evil.example" } }),
        json!({ "claims": { "exp": 1_000_000_000 } }),
        json!({ "claims": { "cnf": { "jkt": "x" } } }),
        json!({ "claims": { "sub": "s-nobody" } }),
        // An ID token, even for this audience.
        json!({ "header": { "typ": "JWT" } }),
        json!({ "header": { "kid": "other" } }),
        json!({ "by": "nobody" }),
        json!({ "by": "public key" }),
        json!({ "by": "stranger" }),
    ] {
        let mut wanted = forgery.clone();
        wanted["token"] = token.clone().into();
        let forged = provider.change(wanted).await["token"].as_str().unwrap().to_owned();
        let refused = begin(&forged, "").await;
        is(&refused, 401, "sign-in-failed");
    }
    // An address in it links nobody: no user has signed in here.
    world.sql("UPDATE patgate.issuers SET trusts_email = true").await;
    let claims = json!({ "sub": "s-new", "email": "bob@example.com", "email_verified": true });
    let forged = provider.change(json!({ "token": token, "claims": claims })).await;
    is(&begin(forged["token"].as_str().unwrap(), "").await, 401, "sign-in-failed");
    assert_eq!(begin(&token, "").await.status, 201);

    // With new keys at the provider, tokens of the old ones are refused, and new ones accepted.
    provider.change(json!({ "keys": true })).await;
    let new = provider.access_token().await;
    eventually("the new keys", async || begin(&new, "").await.status == 201).await;
    is(&begin(&token, "").await, 401, "sign-in-failed");
}

/// Without an audience, no token of the provider begins a session in this way.
pub(crate) async fn access_tokens_are_taken_only_if_an_operator_wants(suite: Arc<Suite>) {
    if !is_installed() {
        return;
    }
    let world = suite.world().await;
    let mut provider = Provider::new(&world);
    let known = provider.known();
    let known: Vec<&str> = known.iter().map(String::as_str).collect();
    let known = known.iter().copied().filter(|setting| !setting.contains("api_audience"));
    let site = AdminSite::with(&world, &known.collect::<Vec<_>>()).await;
    provider.start(&site).await;
    provider.link(&world, "s-robot", "ann").await;
    let bearer = format!("Bearer {}", provider.access_token().await);
    let headers = [("authorization", &*bearer)];
    is(&site.send("POST", "/api/sessions", &headers, "").await, 401, "not-signed-in");
    is(&site.send("GET", "/api/session", &headers, "").await, 401, "not-signed-in");
}

pub(crate) async fn while_the_provider_is_away_passwords_work(suite: Arc<Suite>) {
    if !is_installed() {
        return;
    }
    let world = suite.world().await;
    let mut provider = Provider::new(&world);
    let site = provider.site(&world).await;
    provider.link(&world, "s-ann", "ann").await;
    let away = "cannot be used now";
    stopped(&site.send("GET", "/sign-in/provider", &[], "").await, 503, away);
    let secret = password(&site, "ann").await;
    let body = super::credentials("ann", &secret);
    assert_eq!(site.send("POST", "/api/sessions", &[JSON], &body).await.status, 201);

    provider.start(&site).await;
    eventually("the provider", async || {
        site.send("GET", "/sign-in/provider", &[], "").await.status == 302
    })
    .await;
    // It goes away while a user signs in there.
    let Departure { to, cookie } = depart(&site).await;
    let back = provider.visit(&site, &to, Some("s-ann")).await;
    let token = provider.access_token().await;
    provider.stop().await;
    stopped(&bring(&site, &back, &cookie).await, 503, away);
    // Perhaps it has new keys, which cannot be known now.
    let bearer = format!("Bearer {token}A");
    let refused = site.send("POST", "/api/sessions", &[("authorization", &bearer)], "").await;
    is(&refused, 503, "provider-unavailable");
    // Another provider in its place is not the one that was meant.
    world.sql("UPDATE patgate.issuers SET enabled = false").await;
    let disabled = site.send("GET", "/sign-in/provider", &[], "").await;
    stopped(&disabled, 404, "has no provider");
    world.sql("UPDATE patgate.issuers SET enabled = true").await;
    provider = provider.with(json!({ "issuer": "http://127.0.0.1:1" }));
    provider.start(&site).await;
    let other = provider.known();
    let mut other: Vec<&str> = other.iter().map(String::as_str).collect();
    let issuer = format!("web.oidc.issuer={}", provider.issuer);
    other[0] = &issuer;
    let site = AdminSite::with(&world, &other).await;
    stopped(&site.send("GET", "/sign-in/provider", &[], "").await, 503, away);
}

/// A provider whose certificate a private authority has signed.
pub(crate) async fn a_provider_is_reached_by_tls(suite: Arc<Suite>) {
    if !is_installed() {
        return;
    }
    let world = suite.world().await;
    let dir = world.suite.dir.path().join(format!("{}.oidc.tls", world.database));
    fs::create_dir(&dir).unwrap();
    let authority = Authority::new();
    authority.certify(&["localhost"]).write(&dir, "id");
    fs::write(dir.join("ca.crt"), authority.pem()).unwrap();
    let mut provider = Provider::new(&world);
    let issuer = provider.issuer.replace("http://127.0.0.1", "https://localhost");
    provider = provider.with(json!({
        "issuer": issuer, "certificate": dir.join("id.crt"), "key": dir.join("id.key"),
    }));
    world.sql(&format!("INSERT INTO patgate.issuers (issuer) VALUES ('{issuer}')")).await;
    let mut known = provider.known();
    let untrusting: Vec<&str> = known.iter().map(String::as_str).collect();
    let stranger = AdminSite::with(&world, &untrusting).await;
    provider.start(&stranger).await;
    let reply = stranger.send("GET", "/sign-in/provider", &[], "").await;
    stopped(&reply, 503, "cannot be used now");
    known.push(format!("web.oidc.ca_file={}", dir.join("ca.crt").display()));
    let trusting: Vec<&str> = known.iter().map(String::as_str).collect();
    let site = AdminSite::with(&world, &trusting).await;
    assert!(depart(&site).await.to.starts_with(&format!("{issuer}/auth?")));
}

/// In Chromium, which decides itself which cookies it sends.
pub(crate) async fn a_browser_goes_to_the_provider_and_back(suite: Arc<Suite>) {
    if !is_installed() {
        return;
    }
    let Some(chromium) = chromium() else { return };
    let world = suite.world().await;
    let mut provider = Provider::new(&world);
    // Another site than that of patgate.
    provider.issuer = provider.issuer.replace("127.0.0.1", "localhost");
    let issuer = provider.issuer.clone();
    provider = provider.with(json!({ "issuer": issuer }));
    let site = provider.site(&world).await;
    provider.start(&site).await;
    provider.link(&world, "s-ann", "ann").await;
    let job = json!({
        "site": site.origin(), "issuer": provider.issuer, "chromium": chromium,
        "account": "s-ann", "email": "ann@example.com",
    });
    let home = TempDir::new().unwrap();
    let mut command = tokio::process::Command::new(project(".clients/node/bin/node"));
    command.arg(project("tests/clients/oidc_browser.mjs")).arg(project(".clients/pages-node"));
    command.env_clear().env("HOME", home.path()).env("PATH", env::var_os("PATH").unwrap());
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.kill_on_drop(true).spawn().unwrap();
    child.stdin.take().unwrap().write_all(job.to_string().as_bytes()).await.unwrap();
    let output = child.wait_with_output().await.unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    assert_eq!(said, "done\n", "{}", String::from_utf8_lossy(&output.stderr));
}

/// Needs no provider, so it runs wherever the others do not.
pub(crate) async fn without_a_provider_nothing_leads_there(suite: Arc<Suite>) {
    let world = suite.world().await;
    let site = AdminSite::of(&world).await;
    for path in ["/sign-in/provider", "/sign-in/callback?code=a&state=b"] {
        stopped(&site.send("GET", path, &[], "").await, 404, "has no provider");
    }
    assert!(!site.send("GET", "/sign-in", &[], "").await.body.contains("/sign-in/provider"));
    let bearer = ("authorization", "Bearer eyJhbGciOiJub25lIn0.e30.");
    is(&site.send("POST", "/api/sessions", &[bearer], "").await, 401, "not-signed-in");
    let dir = world.suite.dir.path().display().to_string();
    for (settings, expected) in [
        (&["web.oidc.client_id=a"][..], "web.oidc.client_id"),
        (&["web.oidc.issuer=http://id.example.org", "web.oidc.client_id=a"], "web.oidc.issuer"),
        (&["web.oidc.issuer=https://id.example.org"], "web.oidc.client_id"),
        (
            &[
                "web.oidc.issuer=https://id.example.org",
                "web.oidc.client_id=a",
                "web.oidc.api_audience=a",
            ],
            "web.oidc.api_audience",
        ),
        (
            &[
                "web.oidc.issuer=https://id.example.org",
                "web.oidc.client_id=a",
                &format!("web.oidc.client_secret_file={dir}/none"),
            ],
            "web.oidc.client_secret_file",
        ),
    ] {
        let login = format!("web.postgres.url={}", world.url("web", world.port));
        let sources = ConfigSources {
            file: None,
            env: world.environment(&[&[&*login], settings].concat()).into_iter().collect(),
            flags: Vec::new(),
            read: |path| fs::read_to_string(path),
        };
        let mistakes = Config::load(&sources, ConfigPurpose::SelfService).unwrap_err().to_string();
        assert!(mistakes.contains(expected), "{mistakes}");
    }
}
