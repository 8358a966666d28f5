//! The output of commands: JSON for programs, tables for people.

use std::sync::Arc;

use serde_json::Value;

use crate::support::{Suite, cli::Cli};

const USER: &str = "created_at email enabled id name platform_admin";
const DOMAIN: &str = "all_models created_at enabled enforced_share id mode name slug upstream";
const ROLE: &str = "members name operations";
const SCOPE: &str = "domain entity_id entity_type operation permitted";
const TOKEN: &str =
    "description expires_at id issued_at key_id last_used_at name owner revoked_at status";
const AUDIT: &str = "action actor address at details id login method object request_id session";

const POLICY: &str = "attempts_per_minute elevation_seconds failed_attempts failed_within_seconds \
    oidc_per_minute oidc_sessions session_idle_seconds session_longest_seconds \
    token_default_seconds token_longest_seconds tokens_per_user";

const PROVIDER: &str = "enabled issuer trusts_email users";

/// A command, a JSON pointer into its output, and the members there.
const SHAPES: &[(&str, &str, &[&str])] = &[
    ("user create new@example.com --name New", "", &[USER]),
    ("user list", "/0", &[USER]),
    ("user show ann@example.com", "", &[USER, "live_tokens roles"]),
    ("user show ann@example.com", "/roles/0", &["domain role"]),
    ("user invite ann@example.com", "", &["code email expires_at link"]),
    ("policy show", "", &[POLICY]),
    ("policy set --tokens-per-user 9", "", &[POLICY]),
    ("provider add https://id.example.com --trusts-email", "", &[PROVIDER]),
    ("provider list", "/0", &[PROVIDER]),
    ("provider link https://id.example.com s-ann ann@example.com", "", &[PROVIDER, "identities"]),
    ("provider show https://id.example.com", "", &[PROVIDER, "identities"]),
    ("provider show https://id.example.com", "/identities/0", &["linked_at subject user"]),
    ("domain create new --name New --upstream model-acme --all-models", "", &[DOMAIN]),
    ("domain list", "/0", &[DOMAIN]),
    ("domain show picky", "", &[DOMAIN, "models roles"]),
    ("domain show picky", "/models/0", &["model upstream"]),
    ("domain show picky", "/roles/0", &[ROLE]),
    ("backend list", "/0", &["credential domains kind name url"]),
    ("backend show model-acme", "", &["credential domains kind name url"]),
    ("role list acme", "/0", &[ROLE]),
    ("role show acme admin", "", &[ROLE]),
    ("token list", "/0", &[TOKEN]),
    ("token show {token}", "", &[TOKEN, "scopes"]),
    ("token show {token}", "/scopes/0", &[SCOPE]),
    ("token scope add {token} acme:models:m:llm_read", "", &[TOKEN, "scopes"]),
    ("token scope remove {token} acme:models:m:llm_read", "/scopes/0", &[SCOPE]),
    (
        "token create t --user ann@example.com --expires-in 1h --scope acme:models:m:llm_read",
        "",
        &[TOKEN, "scopes token"],
    ),
    (
        "token create u --user ann@example.com --expires-in 1h --scope acme:models:m:llm_read",
        "/scopes/0",
        &[SCOPE],
    ),
    ("token rotate {token}", "", &[TOKEN, "scopes token"]),
    ("token revoke {token}", "/0", &["id name owner revoked_at"]),
    ("token revoke --user ann@example.com --yes", "/0", &["id name owner revoked_at"]),
    ("token delete {token}", "", &["message"]),
    ("domain update acme --mode shadow", "", &[DOMAIN, "models roles"]),
    ("domain disable acme", "", &[DOMAIN, "models roles"]),
    ("audit list", "/0", &[AUDIT]),
    ("keyring list", "/0", &["id in_file mints"]),
    ("keyring list --count", "/0", &["credentials id in_file live_tokens mints"]),
    ("keyring add --id k2", "", &["message"]),
    ("config check", "/0", &["key source value"]),
];

pub(crate) async fn json_has_its_members(suite: Arc<Suite>) {
    let world = suite.world().await;
    let cli = Cli::of(&world);
    let token = world.token(&[("acme", "models", "*", "llm_read")]).await;
    for (command, at, members) in SHAPES {
        let command = command.replace("{token}", &token.id.to_string());
        let printed = cli.json(&command);
        let place = printed.pointer(at).unwrap_or_else(|| panic!("{command}: {printed}"));
        let mut expected: Vec<&str> = members.iter().flat_map(|m| m.split(' ')).collect();
        expected.sort_unstable();
        let found: Vec<&String> = place.as_object().unwrap().keys().collect();
        assert_eq!(found, expected, "{command}");
        check_moments(&command, &printed);
    }
}

/// Checks that moments are RFC 3339, in UTC.
fn check_moments(command: &str, printed: &Value) {
    match printed {
        Value::Array(items) => items.iter().for_each(|item| check_moments(command, item)),
        Value::Object(members) => {
            for (name, value) in members {
                if let (true, Some(moment)) = (name.ends_with("_at"), value.as_str()) {
                    let parsed: Result<jiff::Timestamp, _> = moment.parse();
                    assert!(parsed.is_ok() && moment.ends_with('Z'), "{command}: {name} {moment}");
                }
                check_moments(command, value);
            }
        }
        _ => {}
    }
}

pub(crate) async fn tables_are_for_people(suite: Arc<Suite>) {
    let world = suite.world().await;
    let cli = Cli::of(&world);
    let live = world.token(&[("acme", "models", "*", "llm_read")]).await;
    let expired = world.token_for("ann", "-1 hour", &[]).await;
    let disabled = world.token_for("gone", "1 hour", &[]).await;
    let revoked = world.token(&[]).await;
    cli.ok(&format!("token revoke {}", revoked.id));

    let table = cli.ok("token list");
    assert!(table.starts_with("ID "), "{table}");
    for (token, status) in [
        (&live, "live"),
        (&expired, "expired"),
        (&disabled, "owner_disabled"),
        (&revoked, "revoked"),
    ] {
        let id = token.id.to_string();
        let line = table.lines().find(|line| line.starts_with(&id)).unwrap();
        assert!(line.contains(&format!(" {status} ")), "{line}");
    }
    let listed = |filter: &str| cli.ok(&format!("token list {filter}")).lines().count() - 1;
    assert_eq!((listed(""), listed("--live"), listed("--user ann@example.com")), (4, 2, 3));
    assert_eq!((listed("--domain acme"), listed("--domain beta")), (1, 0));

    let table = cli.ok("backend list");
    let cells: Vec<Vec<&str>> =
        table.lines().map(|line| line.split_whitespace().collect()).collect();
    assert_eq!(
        cells,
        [
            vec!["NAME", "KIND", "URL", "CREDENTIAL", "DOMAINS"],
            vec!["model-acme", "vllm", "http://127.0.0.1:8001", "-", "acme", "closed", "picky"],
            vec!["model-beta", "ollama", "http://127.0.0.1:8002", "-", "beta", "picky"],
        ]
    );
    assert!(cli.ok("domain show picky").contains("org/listed (model-beta), other (model-acme)"));
    assert!(cli.ok("role list beta").contains("admin  all         bob@example.com"));
    assert_eq!(cli.ok("audit list --by nobody").lines().count(), 1, "the headings");

    // The owner of the tables may store text that controls a terminal; no terminal obeys it.
    world
        .sql(
            "ALTER TABLE patgate.pats DROP CONSTRAINT pats_description_check;
             UPDATE patgate.pats SET description = E'\\x1b[31m\\nred'",
        )
        .await;
    let shown = cli.ok(&format!("token show {}", live.id));
    assert!(shown.contains("\\u{1b}[31m\\nred") && !shown.contains('\u{1b}'), "{shown:?}");
    let printed = cli.ok("--version");
    assert_eq!(printed, concat!("patgate ", env!("CARGO_PKG_VERSION"), "\n"));
}

/// A text in the database is shown as it is, whatever wrote it.
pub(crate) async fn no_text_shows_as_another(suite: Arc<Suite>) {
    let world = suite.world().await;
    let cli = Cli::of(&world);
    let name = "nn\u{202e}A\u{2066}\u{200f}";
    world
        .sql(&format!("UPDATE patgate.users SET name = '{name}' WHERE email = 'ann@example.com'"))
        .await;
    let table = cli.ok("user list");
    assert!(table.contains(r"nn\u{202e}A\u{2066}\u{200f}"), "{table}");
    let json = cli.ok("user list --output json");
    assert!(json.contains(r#""name": "nn\u202eA\u2066\u200f""#), "{json}");
    assert!(cli.json("user show ann@example.com").to_string().contains(name));
    for text in [&table, &json] {
        assert!(!text.contains(['\u{202e}', '\u{2066}', '\u{200f}']), "{text}");
    }
    for command in
        ["user create new@example.com --name", "domain create new --upstream model-acme --name"]
    {
        let words: Vec<_> = command.split(' ').chain([name]).collect();
        let ran = cli.feed_words(&words, "");
        assert!(ran.code == 2 && ran.stderr.contains("bidirectional characters"), "{ran:#?}");
        assert!(!ran.stderr.contains('\u{202e}'), "{ran:#?}");
    }
}
