//! What operators do for self-service: invitations, and the limits, which hold for commands as well.

use std::sync::Arc;

use patgate::admin::web::{Caller, InvitationSecret, Origin, Password, ProviderSignIn};
use sqlx::Connection as _;

use crate::{
    support::{Suite, World, cli::Cli, value},
    web::{Site, fails, not_found, not_signed_in, run, sign_in_failed},
};

const DAY: i64 = 24 * 60 * 60;
const LINK: &str = "https://tokens.example.org/invitation";

/// The code is printed once, beside the link and not in it, and sets a password.
pub(crate) async fn an_invitation_is_printed_once(suite: Arc<Suite>) {
    let world = suite.world().await;
    let site = Site::of(&world).await;
    let cli = Cli::of(&world);
    let json = cli.json("user invite ann@example.com --url https://Tokens.example.org/");
    assert_eq!((&json["link"], &json["email"]), (&LINK.into(), &"ann@example.com".into()));
    let first = InvitationSecret::parse(json["code"].as_str().unwrap()).unwrap();
    assert_eq!(&*site.service.invitation(&first).await.unwrap().email, "ann@example.com");

    // The setting is the default of the option. A second invitation replaces the first.
    let ran = cli
        .with("web.url", "https://tokens.example.org")
        .run(&format!("user invite {} --expires-in 2h", world.id("ann")));
    assert_eq!(ran.code, 0, "{ran:#?}");
    let [link, code] = ran.stdout.lines().collect::<Vec<_>>()[..] else { panic!("{ran:#?}") };
    assert_eq!(link, LINK);
    assert!(!ran.stderr.contains(code), "{ran:#?}");
    let left = "SELECT round(extract(epoch FROM expires_at - created_at))::int8
                FROM patgate.invitations";
    assert_eq!(value::<i64>(&world, left).await, 2 * 60 * 60);
    fails(site.service.invitation(&first).await, not_found);
    let second = InvitationSecret::parse(code).unwrap();
    let password: Password = "a password of an invited user".parse().unwrap();
    site.service.accept_invitation(&Origin::default(), &second, &password).await.unwrap();
    site.sign_in("ann", &password).await.unwrap();
    let log = "SELECT string_agg(a::text, ' ') FROM patgate.audit_log a";
    assert!(!value::<String>(&world, log).await.contains(code));

    // Without a URL, that of a listener which only this machine reaches; of another one, it is not known,
    // and the earlier invitation is not spent.
    let ran = cli.run("user invite ann@example.com");
    assert!(ran.stdout.starts_with("http://127.0.0.1:9193/invitation\n"), "{ran:#?}");
    for said in ["this machine only", "patgate sends no mail", "works once, until 2"] {
        assert!(ran.stderr.contains(said), "{said}: {ran:#?}");
    }
    let third = InvitationSecret::parse(ran.stdout.lines().nth(1).unwrap()).unwrap();
    let elsewhere = cli.with("web.listen", "0.0.0.0:9193");
    elsewhere.refused("user invite ann@example.com", 2, "set web.url, or give --url");
    site.service.invitation(&third).await.unwrap();
    let ran = elsewhere.run("user invite ann@example.com --url https://tokens.example.org");
    assert_eq!((ran.code, ran.stdout.lines().next()), (0, Some(LINK)), "{ran:#?}");
    cli.refused("user invite gone@example.com", 1, "is disabled");
    cli.with("web.url", "tokens").refused("user invite ann@example.com", 2, "web.url");
}

/// An operator sees the sessions that count, and ends them all.
pub(crate) async fn an_operator_signs_a_user_out(suite: Arc<Suite>) {
    let world = suite.world().await;
    let site = Site::of(&world).await;
    let cli = Cli::of(&world);
    assert_eq!(cli.json("user sessions ann@example.com"), serde_json::json!([]));
    let password = site.account("ann").await;
    let early = site.sign_in("ann", &password).await.unwrap();
    let late = site.sign_in("ann", &password).await.unwrap();
    let bob = site.signed_in("bob").await;
    // One that has ended is not shown.
    let ended = site.sign_in("ann", &password).await.unwrap();
    site.service.sign_out(&ended).await.unwrap();
    world
        .sql(
            "INSERT INTO patgate.sessions (proof_hash, user_id, epoch, method, used_at)
             SELECT sha256('idle'), id, session_epoch, 'local', now() - interval '1 hour'
             FROM patgate.users WHERE name = 'ann'",
        )
        .await;
    let shown = cli.json("user sessions ann@example.com");
    let ids: Vec<&str> =
        shown.as_array().unwrap().iter().map(|session| session["id"].as_str().unwrap()).collect();
    let mut expected = Vec::new();
    for caller in [&late, &early] {
        expected.push(site.service.session(caller).await.unwrap().session.to_string());
    }
    assert_eq!(ids, expected);
    let members = "address begun_at elevated ends_at id issuer last_used_at login method";
    let first = shown[0].as_object().unwrap();
    assert_eq!(first.keys().map(String::as_str).collect::<Vec<_>>().join(" "), members);
    assert_eq!((&shown[0]["address"], &shown[0]["login"]), (&"192.0.2.7".into(), &"web".into()));
    assert_eq!(cli.ok("user sessions ann@example.com").lines().count(), 3);

    let ran = cli.run("user sign-out ann@example.com");
    assert_eq!(ran.code, 0, "{ran:#?}");
    let said = format!("{}{}", ran.stdout, ran.stderr);
    assert!(said.contains("signed out user ann@example.com; sessions ended: 2"), "{said}");
    for caller in [&early, &late] {
        fails(site.service.session(caller).await, not_signed_in);
    }
    site.service.session(&bob).await.unwrap();
    assert_eq!(cli.json("user sessions ann@example.com"), serde_json::json!([]));
    let line = &cli.json("audit list --limit 1")[0];
    assert_eq!(
        (&line["action"], &line["object"], &line["details"]["sessions"]),
        (&"session.end_all".into(), &world.id("ann").to_string().into(), &2.into())
    );
    // The password stays.
    let again = site.sign_in("ann", &password).await.unwrap();
    site.service.session(&again).await.unwrap();
}

async fn life(world: &World<'_>, id: impl ToString) -> i64 {
    let id = id.to_string();
    let sql = format!(
        "SELECT round(extract(epoch FROM expires_at - issued_at))::int8 FROM patgate.pats
         WHERE id = '{id}'"
    );
    value(world, &sql).await
}

/// What the commands set is what holds: for tokens by commands, and for sessions.
pub(crate) async fn limits_hold_for_commands(suite: Arc<Suite>) {
    let world = suite.world().await;
    let cli = Cli::of(&world);
    let create = |name: &str, more: &str| {
        cli.mint(&format!("token create {name} --user ann@example.com {more}"))
    };
    let unlimited = create("unlimited", "--expires-in 400d");
    assert_eq!(life(&world, create("usual", "").id).await, 30 * DAY);

    // Every limit has an option, and one that is not named stays.
    let shown = cli.json("policy show");
    assert!(shown["token_longest_seconds"].is_null(), "{shown}");
    let mut expected = shown.clone();
    for (option, given, member, stored) in [
        ("token-default", "7d", "token_default_seconds", 7 * DAY),
        ("token-longest", "90d", "token_longest_seconds", 90 * DAY),
        ("tokens-per-user", "12", "tokens_per_user", 12),
        ("session-idle", "10m", "session_idle_seconds", 600),
        ("session-longest", "8h", "session_longest_seconds", 8 * 3600),
        ("elevation", "5m", "elevation_seconds", 300),
        ("failed-attempts", "5", "failed_attempts", 5),
        ("failed-within", "1h", "failed_within_seconds", 3600),
        ("attempts-per-minute", "60", "attempts_per_minute", 60),
        ("oidc-per-minute", "0", "oidc_per_minute", 0),
        ("oidc-sessions", "50", "oidc_sessions", 50),
    ] {
        let set = cli.json(&format!("policy set --{option} {given}"));
        expected[member] = stored.into();
        assert_eq!(set, expected, "{option}");
        let table = cli.ok("policy show");
        let line = table.lines().find(|line| line.starts_with(&format!("{option}:"))).unwrap();
        assert!(line.ends_with(&format!(" {given}")), "{line}");
    }
    assert_eq!(expected.as_object().unwrap().len(), 11, "{expected}");
    assert_eq!(cli.json("policy show"), expected);

    // They hold for tokens that commands make, with words that say what to do.
    assert_eq!(life(&world, create("default", "").id).await, 7 * DAY);
    assert_eq!(life(&world, create("longest", "--expires-in 90d").id).await, 90 * DAY);
    let too_long = "must expire within 90d, which is token_longest of `patgate policy show`";
    for command in [
        "token create t --user ann@example.com --expires-in 91d".to_owned(),
        "token create t --user ann@example.com --expires-at 2199-01-31T00:00:00Z".to_owned(),
        format!("token rotate {} --expires-in 91d", unlimited.id),
    ] {
        cli.refused(&command, 1, too_long);
    }
    // A token that was made before gets a successor that lives as long as it may.
    let rotated = cli.mint(&format!("token rotate {}", unlimited.id));
    assert_eq!(life(&world, rotated.id).await, 90 * DAY);

    // No default is longer than the longest; none is set by half.
    let longer = "token_default 7d is longer than token_longest 1d";
    cli.refused("policy set --token-longest 1d --tokens-per-user 99", 1, longer);
    let longer = "token_default 91d is longer than token_longest 90d";
    cli.refused("policy set --token-default 91d", 1, longer);
    assert_eq!(cli.json("policy show"), expected);
    cli.ok("policy set --token-longest 1d --token-default 1d");
    assert_eq!(life(&world, create("short", "").id).await, DAY);
    cli.ok("policy set --token-longest none");
    assert_eq!(life(&world, create("long", "--expires-in 91d").id).await, 91 * DAY);
}

const ISSUER: &str = "https://id.example.com/realms/main";

/// Signs a subject in, by the word of the process.
async fn enter(
    site: &Site<'_, '_>,
    subject: &str,
    email: Option<&str>,
) -> Result<Caller, patgate::admin::web::Error> {
    let by = ProviderSignIn {
        issuer: ISSUER.to_owned(),
        subject: subject.to_owned(),
        verified_email: email.map(str::to_owned),
    };
    let signed_in = site.service.sign_in_by_provider(&Origin::default(), &by).await?;
    Ok(Caller { session: signed_in.secret, origin: Origin::default() })
}

/// What the commands say about providers is who may sign in.
pub(crate) async fn providers_and_links_are_managed(suite: Arc<Suite>) {
    let world = suite.world().await;
    let site = Site::of(&world).await;
    let cli = Cli::of(&world);
    fails(enter(&site, "s-ann", None).await, sign_in_failed);
    cli.ok(&format!("provider add {ISSUER}"));
    fails(enter(&site, "s-ann", Some("ann@example.com")).await, sign_in_failed);
    cli.ok(&format!("provider link {ISSUER} s-ann ann@example.com"));
    let ann = enter(&site, "s-ann", None).await.unwrap();
    assert_eq!(site.service.session(&ann).await.unwrap().email, "ann@example.com");

    // An address finds a user only of a provider that is trusted for that.
    fails(enter(&site, "s-bob", Some("bob@example.com")).await, sign_in_failed);
    cli.ok(&format!("provider set-trusts-email {ISSUER} true"));
    let bob = enter(&site, "s-bob", Some("bob@example.com")).await.unwrap();
    let shown = cli.json(&format!("provider show {ISSUER}"));
    let links: Vec<_> = shown["identities"].as_array().unwrap().iter().collect();
    let pairs: Vec<_> = links.iter().map(|link| (&link["user"], &link["subject"])).collect();
    let pair = |user: &str, subject: &str| (user.into(), subject.into());
    let expected = [pair("ann@example.com", "s-ann"), pair("bob@example.com", "s-bob")];
    assert!(pairs.iter().copied().eq(expected.iter().map(|(u, s)| (u, s))), "{shown}");
    let table = cli.ok("provider list");
    assert!(table.contains(&format!("{ISSUER}  true     true          2")), "{table}");

    // A link that is removed ends the sessions of its subject, also if it is made again.
    cli.ok(&format!("provider unlink {ISSUER} s-ann ann@example.com"));
    cli.refused(&format!("provider unlink {ISSUER} s-ann ann@example.com"), 3, "does not exist");
    fails(site.service.session(&ann).await, not_signed_in);
    site.service.session(&bob).await.unwrap();
    cli.ok(&format!("provider link {ISSUER} s-ann {}", world.id("ann")));
    fails(site.service.session(&ann).await, not_signed_in);
    let ann = enter(&site, "s-ann", None).await.unwrap();

    // So does a provider that is disabled, for good, whatever a client of the database holds open.
    let url = world.url("web", world.port);
    let mut open = sqlx::PgConnection::connect(&url).await.unwrap();
    let begin = format!(
        "BEGIN; SELECT patgate.web_begin_oidc_session(NULL, NULL, '{ISSUER}', 's-ann', NULL,
             sha256('a proof'))"
    );
    run(&mut open, &begin).await.unwrap();
    cli.ok(&format!("provider disable {ISSUER}"));
    fails(site.service.session(&ann).await, not_signed_in);
    fails(enter(&site, "s-bob", None).await, sign_in_failed);
    cli.ok(&format!("provider enable {ISSUER}"));
    run(&mut open, "COMMIT").await.unwrap();
    let reads = "SELECT patgate.web_session(sha256('a proof'))";
    assert_eq!(run(&mut open, reads).await, crate::web::refused("PW001"));
    for ended in [&ann, &bob] {
        fails(site.service.session(ended).await, not_signed_in);
    }
    let bob = enter(&site, "s-bob", None).await.unwrap();
    site.service.session(&bob).await.unwrap();

    // A provider that is removed takes its links along.
    cli.refused(&format!("provider remove {ISSUER}"), 2, "the links of 2 users");
    cli.ok(&format!("provider remove {ISSUER} --yes"));
    fails(site.service.session(&bob).await, not_signed_in);
    cli.ok(&format!("provider add {ISSUER}"));
    fails(enter(&site, "s-bob", None).await, sign_in_failed);
    assert_eq!(cli.json("provider list")[0]["users"], 0);
    cli.ok(&format!("provider link {ISSUER} s-bob bob@example.com"));
    fails(site.service.session(&bob).await, not_signed_in);
}
