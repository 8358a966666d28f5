//! Exit codes: scripts depend on them, so each kind of refusal has its own.

use std::sync::Arc;

use uuid::Uuid;

use crate::support::{Suite, cli::Cli, value};

const FAILED: i32 = 1;
const USAGE: i32 = 2;
const NOT_FOUND: i32 = 3;
const DENIED: i32 = 4;

/// `{nobody}` is an id that does not exist, `{token}` a token of Ann's, `{revoked}` a revoked one.
const REFUSED: &[(i32, &str, &[&str])] = &[
    (
        NOT_FOUND,
        "`nowhere` does not exist",
        &[
            "domain show nowhere",
            "domain enable nowhere",
            "domain disable nowhere",
            "domain set-upstream nowhere model-acme",
            "domain set-upstream acme nowhere",
            "domain rename nowhere somewhere",
            "domain delete nowhere",
            "domain delete nowhere --yes",
            "domain model set nowhere m --upstream model-acme",
            "domain model set acme m --upstream nowhere",
            "domain model unset nowhere m",
            "domain model unset picky nowhere",
            "domain create new --name New --upstream nowhere --all-models",
            "backend update nowhere --kind vllm",
            "backend delete nowhere",
            "backend show nowhere",
            "backend credential remove nowhere",
            "role create nowhere r",
            "role list nowhere",
            "role delete nowhere admin",
            "role grant nowhere admin read",
            "role revoke nowhere admin read",
            "role member add nowhere admin ann@example.com",
            "role member remove nowhere admin ann@example.com",
            "token create t --user ann@example.com --expires-in 1h --scope nowhere:models:*:llm_read",
            "token list --domain nowhere",
            "token scope add {token} nowhere:models:*:llm_read",
            "token scope remove {token} nowhere:models:*:llm_read",
            "token revoke --domain nowhere",
            "token revoke --domain nowhere --yes",
            "keyring promote nowhere",
            "keyring drop nowhere",
        ],
    ),
    (
        NOT_FOUND,
        "role `acme/nothing` does not exist",
        &[
            "role delete acme nothing",
            "role grant acme nothing read",
            "role revoke acme nothing read",
            "role member add acme nothing ann@example.com",
            "role member remove acme nothing ann@example.com",
        ],
    ),
    (
        NOT_FOUND,
        "user `no@example.com` does not exist",
        &[
            "user show no@example.com",
            "user enable no@example.com",
            "user disable no@example.com",
            "user set-platform-admin no@example.com true",
            "user invite no@example.com",
            "user sessions no@example.com",
            "user sign-out no@example.com",
            "user delete no@example.com",
            "user delete no@example.com --yes",
            "role member add acme admin no@example.com",
            "role member remove acme admin no@example.com",
            "token create t --user no@example.com --expires-in 1h",
            "token list --user no@example.com",
            "token revoke --user no@example.com --yes",
            "provider link https://id.example.com s no@example.com",
        ],
    ),
    (
        NOT_FOUND,
        "provider `https://no.example.com` does not exist",
        &[
            "provider show https://no.example.com",
            "provider enable https://no.example.com",
            "provider disable https://no.example.com",
            "provider set-trusts-email https://no.example.com true",
            "provider remove https://no.example.com",
            "provider remove https://no.example.com --yes",
            "provider link https://no.example.com s ann@example.com",
            "provider unlink https://no.example.com s ann@example.com",
        ],
    ),
    (
        NOT_FOUND,
        "subject `s of ann@example.com` does not exist",
        &["provider unlink https://id.example.com s ann@example.com"],
    ),
    (NOT_FOUND, "credential of backend", &["backend credential remove model-acme"]),
    (NOT_FOUND, "member `bob@example.com`", &["role member remove acme admin bob@example.com"]),
    (
        NOT_FOUND,
        "scope `acme:models:m:llm_read` does not exist",
        &["token scope remove {token} acme:models:m:llm_read"],
    ),
    (
        NOT_FOUND,
        "`{nobody}` does not exist",
        &[
            "domain show {nobody}",
            "user show {nobody}",
            "token show {nobody}",
            "token scope add {nobody} acme:models:*:llm_read",
            "token scope remove {nobody} acme:models:*:llm_read",
            "token revoke {nobody}",
            "token rotate {nobody}",
            "token delete {nobody}",
        ],
    ),
    (
        FAILED,
        "already exists",
        &[
            "backend create model-acme --url http://127.0.0.1:1 --kind vllm",
            "domain create acme --name Acme --upstream model-acme --all-models",
            "domain rename acme beta",
            "user create ann@example.com --name Ann",
            "user create ANN@example.com --name Ann",
            "role create acme admin",
            "token create {token} --user ann@example.com --expires-in 1h",
            "provider add https://id.example.com",
        ],
    ),
    (
        FAILED,
        "is linked to another user",
        &["provider link https://id.example.com s-bob ann@example.com"],
    ),
    (
        FAILED,
        "user `bob@example.com` is linked to a subject",
        &[
            "provider link https://id.example.com s-bob bob@example.com",
            "provider link https://id.example.com s bob@example.com",
        ],
    ),
    (FAILED, "occurs twice", &["keyring add --id k1"]),
    // One uses it by default, and one for a model only.
    (FAILED, "`acme`, `closed`, `picky`", &["backend delete model-acme"]),
    (FAILED, "`beta`, `picky`", &["backend delete model-beta"]),
    (
        FAILED,
        "must expire in the future",
        &[
            "token create t --user ann@example.com --expires-in 0s",
            "token create t --user ann@example.com --expires-at 2020-01-31T00:00:00Z",
            "token rotate {token} --expires-in 0s",
            "token rotate {token} --expires-at 2020-01-31T00:00:00Z",
        ],
    ),
    (
        FAILED,
        "out of range",
        &[
            "token create t --user ann@example.com --expires-in 300000years",
            "token create t --user ann@example.com --expires-in 500000000years",
            "token rotate {token} --grace 500000000years",
        ],
    ),
    (
        FAILED,
        "token_default 9d is longer than token_longest 8d; set both",
        &["policy set --token-longest 8d --token-default 9d"],
    ),
    (FAILED, "is disabled", &["user invite gone@example.com"]),
    (FAILED, "is revoked", &["token rotate {revoked}"]),
    (
        FAILED,
        "on `domains`, the entity is `*` or the domain's own id",
        &["token scope add {token} acme:domains:beta:read"],
    ),
    (FAILED, "promote another key first", &["keyring drop k1"]),
    (
        USAGE,
        "add --yes",
        &[
            "user delete ann@example.com",
            "domain delete acme",
            "token revoke --user ann@example.com",
            "token revoke --domain acme",
            "provider remove https://id.example.com",
        ],
    ),
    (USAGE, "give at least one limit; see `patgate policy set --help`", &["policy set"]),
    (
        USAGE,
        "required",
        &[
            "domain create new --upstream model-acme --all-models",
            "backend create b --kind vllm",
            "backend update model-acme",
            "user create new@example.com",
            "role grant acme admin",
            "token create t --expires-in 1h",
            "token scope add {token}",
            "token revoke",
        ],
    ),
    // A new domain must state which models it sees.
    (
        USAGE,
        "--all-models|--model <MODEL>|--no-models",
        &["domain create new --name New --upstream model-acme"],
    ),
    (
        USAGE,
        "cannot be used with",
        &[
            "domain create new --name New --upstream model-acme --all-models --model m",
            "domain create new --name New --upstream model-acme --all-models --no-models",
            "token create t --user ann@example.com --expires-in 1h --expires-at 2030-01-31T00:00:00Z",
            "token revoke {token} --stdin",
            "token revoke --stdin --user ann@example.com",
            "token rotate {token} --expires-in 1h --expires-at 2030-01-31T00:00:00Z",
            "keyring add --id k2 --stdin",
        ],
    ),
    (
        USAGE,
        "invalid value",
        &[
            "domain create Acme --name Acme --upstream model-acme --all-models",
            "domain create {nobody} --name Acme --upstream model-acme --all-models",
            "domain show AAAAAAAA-BBBB-4CCC-8DDD-EEEEEEEEEEEE",
            "domain show acme/beta",
            "backend create b --url ftp://127.0.0.1 --kind vllm",
            "backend create b --url http://user:password@127.0.0.1 --kind vllm",
            "backend create b --url http://127.0.0.1 --kind gpt",
            "backend create --url http://127.0.0.1 --kind vllm -- -b",
            "user create ann --name Ann",
            "user set-platform-admin ann@example.com yes",
            "role create acme Admin",
            "role create acme r --operation llm",
            "role grant acme admin read,*",
            "token scope add {token} acme:models:*:read",
            "token scope add {token} acme:*:*:llm_read",
            "token scope add {token} acme:models::llm_read",
            "token scope add {token} models:*:llm_read",
            "audit list --limit 0",
            "keyring new --id K",
            "policy set --tokens-per-user 0",
            "policy set --oidc-per-minute=-1",
            "provider add id.example.com",
            "provider add https://user:password@id.example.com",
            "provider add https://id.example.com?realm=main",
            "provider link https://id.example.com s ann",
            "user list --output yaml",
            "user list --actor=",
        ],
    ),
    (
        USAGE,
        "expected a duration such as `90d`",
        &[
            "token create t --user ann@example.com --expires-in soon",
            "token rotate {token} --expires-in 90",
            "token rotate {token} --grace soon",
        ],
    ),
    (
        USAGE,
        "expected a time such as `2030-01-31T00:00:00Z`",
        &[
            "token create t --user ann@example.com --expires-at tomorrow",
            "token rotate {token} --expires-at 2030-01-31",
        ],
    ),
    (
        USAGE,
        "expected a domain's slug, which is 2 to 63 characters of a-z, 0-9 and -",
        &["domain show Acme", "token list --domain Acme"],
    ),
    (
        USAGE,
        "expected one of `account`, `account.invite`",
        &["audit list --action mint", "audit list --action token."],
    ),
    (
        USAGE,
        "expected a whole percentage",
        &[
            "domain update acme --enforced-share 30",
            "domain update acme --enforced-share 30.5%",
            "domain update acme --enforced-share 101%",
        ],
    ),
    (USAGE, "expected a credential on standard input", &["backend credential set model-acme"]),
    (USAGE, "expected `bearer`", &["backend credential set model-acme --scheme digest"]),
    (
        USAGE,
        "a pattern of letters, digits and `. _ - : / @ +`",
        &["domain model set acme a,* --upstream model-acme"],
    ),
    (
        USAGE,
        "expected a duration from `1s` to `7d`",
        &[
            "user invite ann@example.com --expires-in 8d",
            "user invite ann@example.com --expires-in 0s",
        ],
    ),
    (
        USAGE,
        "`https://` and a host",
        &[
            "user invite ann@example.com --url http://tokens.example.org",
            "user invite ann@example.com --url https://tokens.example.org/path",
        ],
    ),
    (
        USAGE,
        "expected a duration of whole seconds",
        &[
            "policy set --token-longest 0s",
            "policy set --session-idle 1500ms",
            "policy set --elevation none",
        ],
    ),
    (USAGE, "expected a token's id", &["token show 1", "token delete acme"]),
    (USAGE, "unrecognized subcommand", &["token mint", "users"]),
];

pub(crate) async fn every_refusal_has_its_exit_code(suite: Arc<Suite>) {
    let world = suite.world().await;
    let cli = Cli::of(&world);
    let token = world.token(&[]).await;
    let revoked = world.token(&[]).await;
    cli.ok(&format!("token revoke {}", revoked.id));
    cli.ok("provider add https://id.example.com");
    cli.ok("provider link https://id.example.com s-bob bob@example.com");
    let nobody = Uuid::now_v7().to_string();
    let fill = |text: &str| {
        text.replace("{nobody}", &nobody)
            .replace("{token}", &token.id.to_string())
            .replace("{revoked}", &revoked.id.to_string())
    };
    let changes = "SELECT count(*) FROM patgate.audit_log";
    let before: i64 = value(&world, changes).await;
    for (code, reason, commands) in REFUSED {
        for command in *commands {
            cli.refused(&fill(command), *code, &fill(reason));
        }
    }
    assert_eq!(value::<i64>(&world, changes).await, before, "a refusal changed something");

    // Standard output contains only results, also with JSON.
    cli.refused("token show 1 --output json", USAGE, "a token's id");
    cli.refused("domain show nowhere --output json", NOT_FOUND, "does not exist");
    cli.with("postgres.url", "").refused("user list", USAGE, "postgres.url");
    cli.with("keyring_file", "").refused(
        "token create t --user ann@example.com --expires-in 1h",
        USAGE,
        "PATGATE_KEYRING_FILE",
    );
}

/// The error names the setting and the address to which it led, never the credentials.
pub(crate) async fn what_cannot_be_reached_or_opened_is_named(suite: Arc<Suite>) {
    let world = suite.world().await;
    let cli = Cli::of(&world).login(&world, "server");
    let nobody = "postgres://a:correct-horse@127.0.0.1:1/b";
    // It would wait for Postgres otherwise.
    const SERVE: &str =
        "serve --set start.require=postgres --set listen.grpc=127.0.0.1:0 --set listen.http=";
    for (key, command) in [("postgres.url", "user list"), ("feed.url", SERVE)] {
        let unreachable = cli.with(key, nobody);
        unreachable.refused(command, FAILED, &format!("Postgres at 127.0.0.1, port 1 ({key}): "));
        assert!(!unreachable.run(command).stderr.contains("correct-horse"), "{command}");
    }
    let log = "/no/such/folder/decisions";
    let opening = format!("decision_log.to: cannot open {log}: No such file");
    cli.refused(&format!("{SERVE} --set decision_log.to={log}"), FAILED, &opening);
}

/// The replicas' login can read what it needs; a login without a role has no rights.
pub(crate) async fn a_login_without_the_privilege_is_denied(suite: Arc<Suite>) {
    let world = suite.world().await;
    // Logins belong to the cluster, so other worlds could have one with this name.
    let stranger = format!("stranger_{}", world.database);
    world.sql(&format!("CREATE ROLE {stranger} LOGIN")).await;
    let cli = Cli::of(&world);
    for command in ["user list", "domain list", "token list", "audit list", "keyring list --count"]
    {
        cli.login(&world, &stranger).refused(command, DENIED, "grant it patgate_");
    }
    let server = cli.login(&world, "server");
    server.ok("token list");
    server.refused("audit list", DENIED, "grant it patgate_admin");
    server.refused("migrate", DENIED, "patgate_migrate");
    cli.refused("migrate", DENIED, "patgate_migrate");
    // The table of changes in audit.rs has its other missing privileges.
}

/// A token, or a provider's key, in place of a name, an id or a setting.
pub(crate) async fn a_misplaced_secret_is_not_repeated(suite: Arc<Suite>) {
    let world = suite.world().await;
    let cli = Cli::of(&world);
    let token = world.token(&[]).await.text;
    let key = suite.provider_key();
    cli.ok("provider add https://id.example.com");
    let silent = |cli: &Cli<'_>, command: &str, secret: &str| {
        let ran = cli.run(command);
        assert!((1..=3).contains(&ran.code) && !ran.stderr.is_empty(), "{command}: {ran:#?}");
        let told = format!("{}{}", ran.stdout, ran.stderr);
        assert!(!told.contains(secret), "{command}: {told}");
    };
    for secret in [&*token, &*key] {
        for command in [
            "{}",
            "token {}",
            "token show {}",
            "token rotate {}",
            "token revoke {}",
            "token revoke --user {}",
            "token revoke --domain {}",
            "token list --user {}",
            "token create {} --user ann@example.com --expires-in 1h",
            "token create t --user {}@example.com --expires-in 1h",
            "token create t --user ann@example.com --expires-in {}",
            "token create t --user ann@example.com --expires-in 1h --scope {}",
            "token create t --user ann@example.com --expires-in 1h --scope acme:models:*:{}",
            "token create t --user ann@example.com --expires-in 1h --description {}",
            "user show {}",
            "provider show {}",
            "provider add https://{}",
            "provider unlink https://id.example.com {} ann@example.com",
            "user create {}@example.com --name Ann",
            "user create new@example.com --name {}",
            "domain show {}",
            "domain create new --name {} --upstream model-acme",
            "domain set-upstream acme {}",
            "backend show {}",
            "backend create {} --url http://127.0.0.1 --kind vllm",
            "backend create b --url {} --kind vllm",
            "backend credential set {}",
            "backend credential set model-acme {}",
            "role create acme {}",
            "role grant acme admin {}",
            "keyring promote {}",
            "audit list --action {}",
            "api check {}",
            "completions {}",
            "user list --actor {}",
            "user list --config {}",
            "user list --set {}",
            "user list --set {}=1",
            "user list --set log.format={}",
            "serve --set log.format={}",
            "serve --set apis={}",
            "user list --set max_staleness={}",
            "user list --set apis={} --{}",
            "config check --set apis={}",
            "config check --set keyring_file={}",
            "config {}",
            "check --method GET --path / --server {}",
            "check --method GET --path / --pat-id {}",
        ] {
            silent(&cli, &command.replace("{}", secret), secret);
        }
        for setting in
            ["max_staleness", "listen.grpc", "mode", "apis", "model.read", "token.prefixes"]
        {
            silent(&cli.with(setting, secret), "config check", secret);
        }
        silent(&cli.with(&format!("x{secret}"), "1"), "config check", secret);
    }
    let stored: String = value(
        &world,
        "SELECT concat((SELECT json_agg(u) FROM patgate.users u),
            (SELECT json_agg(d) FROM patgate.domains d), (SELECT json_agg(p) FROM patgate.pats p),
            (SELECT json_agg(a) FROM patgate.audit_log a))",
    )
    .await;
    assert!(stored.contains("ann@example.com") && !stored.contains(&token));
    assert!(!stored.contains(&key), "{stored}");
}
