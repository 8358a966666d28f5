//! What operators do for self-service: invitations, and the limits, which hold for commands as well.

use std::sync::Arc;

use patgate::admin::web::{InvitationSecret, Origin, Password};

use crate::{
    support::{Suite, World, cli::Cli, value},
    web::{Site, fails, not_found},
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

    // Without a URL, the path alone, and a hint.
    let ran = cli.run("user invite ann@example.com");
    assert!(ran.stdout.starts_with("/invitation\n"), "{ran:#?}");
    assert!(ran.stderr.contains("web.url"), "{ran:#?}");
    cli.refused("user invite gone@example.com", 1, "is disabled");
    cli.with("web.url", "tokens").refused("user invite ann@example.com", 2, "web.url");
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
    let longer = "token_default would be longer than token_longest";
    cli.refused("policy set --token-longest 1d --tokens-per-user 99", 1, longer);
    cli.refused("policy set --token-default 91d", 1, longer);
    assert_eq!(cli.json("policy show"), expected);
    cli.ok("policy set --token-longest 1d --token-default 1d");
    assert_eq!(life(&world, create("short", "").id).await, DAY);
    cli.ok("policy set --token-longest none");
    assert_eq!(life(&world, create("long", "--expires-in 91d").id).await, 91 * DAY);
}
