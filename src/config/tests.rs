//! What the sources yield together.

use std::{collections::BTreeMap, io, path::Path};

use secrecy::ExposeSecret as _;

use super::*;

fn sources(env: &[(&str, &str)], flags: &[&str]) -> ConfigSources {
    let env: BTreeMap<String, String> =
        env.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
    let flags = flags.iter().map(|flag| (*flag).to_owned()).collect();
    ConfigSources { file: None, env, flags, read: |_| Err(io::ErrorKind::NotFound.into()) }
}

fn file(read: fn(&Path) -> io::Result<String>) -> ConfigSources {
    ConfigSources { file: Some("p.yaml".into()), read, ..sources(&[], &[]) }
}

const URL: (&str, &str) = ("PATGATE_POSTGRES_URL", "postgres://u:hunter2@h/db");

fn check_mistakes(sources: &ConfigSources, expected: &[&str]) {
    let mistakes = Config::load(sources, ConfigPurpose::Serve).unwrap_err().to_string();
    let lines: Vec<_> = mistakes.lines().collect();
    assert_eq!(lines.len(), expected.len(), "{mistakes}");
    for beginning in expected {
        assert!(lines.iter().any(|line| line.starts_with(beginning)), "{beginning}\n{mistakes}");
    }
    assert!(!mistakes.contains("hunter2"), "{mistakes}");
}

#[test]
fn defaults() {
    let config = Config::load(&sources(&[URL], &[]), ConfigPurpose::Admin).unwrap();
    assert_eq!(config.listen.grpc, Some("127.0.0.1:9191".parse().unwrap()));
    assert_eq!((config.listen.uds, config.listen.uds_mode), (None, 0o660));
    assert!(config.redis.is_none() && config.keyring_file.is_none());
    assert_eq!(config.max_staleness, Duration::from_secs(30));
    assert_eq!(config.deadline, Duration::from_millis(100));
    assert_eq!(config.memory.principals, 64 << 20);
    assert_eq!(config.headers_prefix, "x-");
    // The same word as in the files of envoy/.
    assert_eq!(config.guard_word.expose_secret(), "patgate");
    assert_eq!(config.log.format, LogFormat::Json);
}

#[test]
fn later_sources_win() {
    let mut sources = file(|_| Ok("{max_staleness: 1m, deadline: 1s, log: {format: text}}".into()));
    sources.env = [URL, ("PATGATE_MAX_STALENESS", "2m"), ("PATGATE_DEADLINE", "2s")]
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .into();
    sources.flags = vec!["deadline=3s".to_owned()];
    let config = Config::load(&sources, ConfigPurpose::Admin).unwrap();
    assert_eq!(config.log.format, LogFormat::Text);
    assert_eq!(config.max_staleness, Duration::from_secs(120));
    assert_eq!(config.deadline, Duration::from_secs(3));
    let effective = Config::effective(&sources);
    let source = |key| &effective.iter().find(|entry| entry.key == key).unwrap().source;
    assert_eq!(source("log.format"), "p.yaml");
    assert_eq!(source("max_staleness"), "PATGATE_MAX_STALENESS");
    assert_eq!(source("deadline"), "--set");
    assert_eq!(source("negative_ttl"), "default");
}

#[test]
fn yaml_keeps_the_text_of_values() {
    let sources = file(|_| {
        Ok("postgres.url: postgres://h/db\n\
            listen: {uds: /run/p.sock, uds_mode: 0600, http: }\n\
            token: {prefixes: [acme, pat]}\n\
            apis: [/etc/apis, own.yaml]\n\
            memory: {negatives: 10}\n\
            redis:\n"
            .into())
    });
    let config = Config::load(&sources, ConfigPurpose::Admin).unwrap();
    assert_eq!((config.listen.uds_mode, config.listen.http), (0o600, None));
    assert_eq!(format!("{:?}", config.token_prefixes), r#"Prefixes(["acme", "pat"])"#);
    assert_eq!(config.memory.negatives, 10);
    assert_eq!(config.apis, ["/etc/apis", "own.yaml"].map(std::path::PathBuf::from));
}

#[test]
fn every_mistake_at_once() {
    let mut sources = file(|_| {
        Ok("postgres: {ulr: 'postgres://u:hunter2@h'}\n\
            listen: {uds_mode: 0o660, grpc: '', http: [1, 2]}\n\
            redis: here\n\
            max_staleness: 1s\n\
            colour: red\n"
            .into())
    });
    sources.env = [
        ("PATGATE_REDIS_URL", "hunter2"),
        ("PATGATE_LOG_FROMAT", "text"),
        ("PATGATE_POSTGRES_URL_FILE", "p.yaml"),
        ("PATGATE_PORT", "tcp://10.0.0.1:9191"),
    ]
    .map(|(name, value)| (name.to_owned(), value.to_owned()))
    .into();
    sources.flags = ["postgres.url=hunter2", "hunter2", "deadline=soon", "log.fliter=info"]
        .map(str::to_owned)
        .into();
    check_mistakes(
        &sources,
        &[
            "postgres.ulr (p.yaml): expected a key that exists; did you mean `postgres.url`?",
            "listen.uds_mode (p.yaml): expected permissions as four octal digits, such as `0660`; found `432`",
            "listen.http (p.yaml): expected a single value",
            "redis (p.yaml): expected a map of keys",
            "colour (p.yaml): expected a key that exists; `patgate",
            "redis.url (PATGATE_REDIS_URL): expected a URL",
            "PATGATE_LOG_FROMAT (environment): expected a variable that exists; did you mean PATGATE_LOG_FORMAT?",
            "postgres.url (PATGATE_POSTGRES_URL_FILE): expected a URL",
            "postgres.url (--set): expected a secret from PATGATE_POSTGRES_URL",
            "--set (flag): expected `key=value`",
            "deadline (--set): expected a duration such as `20ms`, `30s` or `10m`; found `soon`",
            "log.fliter (--set): expected a key that exists; did you mean `log.filter`?",
            "negative_ttl (default): expected a duration of at most max_staleness",
            "keyring_file (not set): expected the path of a key ring",
            "listen.grpc (p.yaml): expected an address here",
        ],
    );
}

#[test]
fn a_login_in_an_address_is_not_shown() {
    let mut sources = sources(&[URL, ("PATGATE_KEYRING_FILE", "ring")], &[]);
    sources.flags =
        ["telemetry.otlp.endpoint=https://us@er:hunter2@collector:4317".to_owned()].into();
    let found = "telemetry.otlp.endpoint (--set): expected the address of an OTLP receiver";
    check_mistakes(&sources, &[found]);
    let mistakes = Config::load(&sources, ConfigPurpose::Serve).unwrap_err().to_string();
    assert!(mistakes.ends_with("found `…@collector:4317`"), "{mistakes}");
}

#[test]
fn keys_stand_once() {
    let twice: fn(&Path) -> io::Result<String> = |_| Ok("deadline: 1s\ndeadline: 1s\n".into());
    let in_two_forms: fn(&Path) -> io::Result<String> =
        |_| Ok("log.format: json\nlog: {format: json}\n".into());
    for read in [twice, in_two_forms] {
        let mistakes = Config::load(&file(read), ConfigPurpose::Admin).unwrap_err().to_string();
        assert!(mistakes.contains("expected each key once"), "{mistakes}");
    }
}

#[test]
fn what_is_not_yaml_is_said_without_quoting_it() {
    let sources = file(|_| Ok("postgres: {url: hunter2\n".into()));
    check_mistakes(
        &sources,
        &[
            "--config (p.yaml): expected well-formed YAML (line 1, column 11)",
            "postgres.url (not set)",
            "keyring_file (not set)",
        ],
    );
}

#[test]
fn secrets_by_file() {
    let mut sources = sources(&[("PATGATE_POSTGRES_URL_FILE", "/run/url")], &[]);
    sources.read = |_| Ok("postgres://u:hunter2@h/db\n".into());
    let config = Config::load(&sources, ConfigPurpose::Admin).unwrap();
    assert!(config.postgres.address.reads().is_some(), "the file can be read again");
    assert!(!format!("{config:?}{sources:?}").contains("hunter2"));
    let shown = serde_json::to_string(&Config::effective(&sources)).unwrap();
    assert!(shown.contains("(set)") && !shown.contains("hunter2"), "{shown}");
    sources.env.insert(URL.0.to_owned(), URL.1.to_owned());
    check_mistakes(
        &sources,
        &[
            "postgres.url (PATGATE_POSTGRES_URL_FILE): expected only one of",
            "postgres.url (not set)",
            "keyring_file (not set)",
        ],
    );
}

#[test]
fn settings_of_redis_fit_together() {
    let load = |settings: &[(&str, &str)]| {
        let mut sources = sources(&[URL, ("PATGATE_REDIS_URL", "rediss://u@a:1,b:2")], &[]);
        for (key, value) in settings {
            let name = format!("PATGATE_{}", key.replace('.', "_").to_uppercase());
            sources.env.insert(name, (*value).to_owned());
        }
        Config::load(&sources, ConfigPurpose::Admin).map(|config| config.redis)
    };
    let cluster = ("redis.topology", "cluster");
    let sentinel = ("redis.topology", "sentinel");
    let master = ("redis.sentinel.master", "mymaster");
    let one = ("redis.url", "redis://u@a:1");
    let key = ("redis.tls.private_key_file", "/key");
    let certificate = ("redis.tls.certificate_file", "/crt");
    let password = ("redis.password_file", "/password");
    for good in [
        &[cluster][..],
        &[cluster, key, certificate, password, ("redis.tls.ca_file", "/ca")],
        &[sentinel, master, ("redis.sentinel.username", "u")],
        &[sentinel, master, ("redis.sentinel.password_file", "/sentinels"), password],
        &[one, password],
        &[("redis.url", "unix:///run/redis.sock")],
    ] {
        let redis = load(good).unwrap_or_else(|mistakes| panic!("{mistakes}: {good:?}"));
        let is_single = redis.as_ref().is_some_and(|redis| redis.topology == RedisTopology::Single);
        assert_eq!(redis.unwrap().urls.len(), if is_single { 1 } else { 2 }, "{good:?}");
    }
    assert!(load(&[("redis.url", ""), password]).unwrap().is_none());
    for (bad, mistake) in [
        (&[][..], "redis.url (PATGATE_REDIS_URL): expected one host"),
        (
            &[("redis.topology", "clustered")],
            "redis.topology (PATGATE_REDIS_TOPOLOGY): expected `s",
        ),
        (&[sentinel], "redis.sentinel.master (not set): expected the name of the master"),
        (&[cluster, master], "redis.sentinel.master (PATGATE_REDIS_SENTINEL_MASTER): expected no"),
        (&[cluster, ("redis.sentinel.username", "u")], "redis.sentinel.username (PATGATE_RE"),
        (&[one, ("redis.sentinel.password_file", "/p")], "redis.sentinel.password_file (PAT"),
        (&[cluster, key], "redis.tls.certificate_file (not set): expected the path"),
        (&[cluster, certificate], "redis.tls.private_key_file (not set): expected the path"),
        (&[one, key, certificate], "redis.url (PATGATE_REDIS_URL): expected a `rediss://` URL"),
        (&[cluster, ("redis.url", "redis://a/1")], "redis.url (PATGATE_REDIS_URL): expected no da"),
        (&[cluster, ("redis.url", "unix:///a")], "redis.url (PATGATE_REDIS_URL): expected hosts"),
        (
            &[password, ("redis.url", "redis://u:hunter2@a")],
            "redis.password_file (PATGATE_REDIS_PASSWORD_FILE): expected no file",
        ),
    ] {
        let mistakes = load(bad).unwrap_err().to_string();
        assert!(mistakes.starts_with(mistake) && !mistakes.contains('\n'), "{bad:?}: {mistakes}");
        assert!(!mistakes.contains("hunter2"), "{mistakes}");
    }
}

/// Whoever names a file wants what is in it: an empty one does not switch a secret off.
#[test]
fn an_empty_secret_file_is_a_mistake() {
    for (variable, key) in
        [("PATGATE_GRPC_SECRET_FILE", "grpc.secret"), ("PATGATE_REDIS_URL_FILE", "redis.url")]
    {
        let mut sources = sources(&[URL, (variable, "/run/secret")], &[]);
        sources.read = |_| Ok(" \n".into());
        check_mistakes(
            &sources,
            &[
                &format!("{key} ({variable}): expected a value in `/run/secret`, which is empty"),
                "keyring_file (not set)",
            ],
        );
    }
}

/// A team that knows the word, and has an authorization service on the same Envoy, could open the guard.
#[test]
fn the_word_of_the_guard_is_not_shown() {
    let shown = |sources: &ConfigSources| {
        let all = Config::effective(sources);
        assert!(!serde_json::to_string(&all).unwrap().contains("gateway-7"));
        all.into_iter().find(|setting| setting.key == "guard.word").unwrap().value
    };
    let secret = sources(&[URL, ("PATGATE_GUARD_WORD", "gateway-7")], &[]);
    assert_eq!(shown(&secret), "(set)");
    assert_eq!(shown(&sources(&[URL], &["guard.word=gateway-7"])), "(set)");
    // Everybody knows the default.
    assert_eq!(shown(&sources(&[URL], &[])), "patgate");
    let config = Config::load(&secret, ConfigPurpose::Admin).unwrap();
    assert_eq!(config.guard_word.expose_secret(), "gateway-7");
    let answers = crate::answer::AnswerSettings::new("x-", config.guard_word.expose_secret());
    for text in [format!("{config:?}"), format!("{answers:?}")] {
        assert!(!text.contains("gateway-7"), "{text}");
    }
    // Nor does an error repeat it.
    let wrong = sources(&[URL, ("PATGATE_GUARD_WORD", "gateway-7!")], &[]);
    let told = Config::load(&wrong, ConfigPurpose::Admin).unwrap_err().to_string();
    assert!(told.contains("guard.word") && !told.contains("gateway-7"), "{told}");
}
