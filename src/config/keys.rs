//! The one table of keys. Everything that reads, checks or documents the configuration starts here.

use std::fmt::Write as _;

/// One setting.
pub(super) struct Key {
    pub(super) name: &'static str,
    /// As one would write it. Empty where there is none, or where empty means off.
    pub(super) default: &'static str,
    /// Never shown, never taken from a flag, and readable from a file.
    pub(super) secret: bool,
    pub(super) help: &'static str,
}

/// Keys whose value may be written as a list in YAML.
pub(super) const LISTS: &[&str] = &["apis", "token.prefixes"];

const fn key(name: &'static str, default: &'static str, help: &'static str) -> Key {
    Key { name, default, secret: false, help }
}

const fn secret(name: &'static str, help: &'static str) -> Key {
    Key { name, default: "", secret: true, help }
}

pub(super) const KEYS: &[Key] = &[
    key("listen.grpc", "127.0.0.1:9191", "Address and port for Envoy's gRPC checks; empty = off."),
    key("listen.uds", "", "Path of a Unix socket for Envoy's gRPC checks; empty = off."),
    key("listen.uds_mode", "0660", "Permissions of that socket, octal."),
    key("listen.http", "127.0.0.1:9192", "Address and port for health and metrics; empty = off."),
    secret(
        "postgres.url",
        "Where the truth is: `postgres://user:password@host:port/database`. Required.",
    ),
    key("postgres.max_connections", "8", "Connections held at most."),
    key("postgres.query_timeout", "1s", "How long one statement may run."),
    key(
        "postgres.max_query_rate",
        "500",
        "Queries a second for look-ups, each of which answers up to 256 keys.",
    ),
    secret(
        "feed.url",
        "Where changes are read and listened for: a direct connection or a pooler in session \
         mode; empty = `postgres.url`, polled every 400 ms.",
    ),
    key(
        "feed.relay",
        "off",
        "`redis`: one replica reads the changes and relays them to the others through Redis, for \
         large fleets; needs `feed.url` and `redis.url`. `off`: each replica reads them.",
    ),
    secret("redis.url", "`redis://…`, or `rediss://…` for TLS; empty = no Redis."),
    key("redis.timeout", "20ms", "How long one round trip to Redis may take."),
    key("redis.max_connections", "4", "Connections held at most."),
    key(
        "keyring_file",
        "",
        "The key ring: lines `<key id>:<base64 of 32 bytes>`. Required to serve and to mint tokens.",
    ),
    key(
        "apis",
        "",
        "The tables of the protected APIs: files, or directories of `.yaml` files, separated by \
         commas; empty = Cube AI's, which the binary carries.",
    ),
    key(
        "model.read",
        "when-needed",
        "When the model of a call is read from its body. `when-needed`: where the token's scopes or \
         the domain admit some models only. `always`: so that each call can be limited and logged \
         by its model; one whose model cannot be read is refused.",
    ),
    key(
        "token.prefixes",
        "pat",
        "What tokens may begin with, separated by commas; the first one is minted.",
    ),
    key(
        "token.denials_per_second",
        "100",
        "How often one token that was proven is denied a second, ten seconds' worth at once; \
         beyond that it is answered 429, and no body is read for it. 0 = without a bound.",
    ),
    key("max_staleness", "30s", "No answer rests on knowledge older than this."),
    key(
        "negative_ttl",
        "5s",
        "How long it is remembered that a token or domain is unknown; at most `max_staleness`.",
    ),
    key(
        "deadline",
        "100ms",
        "How long resolving one request may take; keep it below Envoy's own timeout.",
    ),
    key(
        "canary.every",
        "",
        "How often this replica revokes, or issues again, a token of its own and measures how \
         long it takes to obey; empty = off.",
    ),
    key(
        "mode",
        "enforce",
        "`enforce`: denials are carried out. `shadow`: what would be a 401, 403 or 404, or a refusal \
         of a body or of several credentials that differ, is let through without an identity, and \
         recorded. `per-domain`: as each domain's own setting says.",
    ),
    key(
        "decision_log.to",
        "stdout",
        "Where decisions are logged, as JSON lines: `stdout`, the path of a file, or `none`.",
    ),
    key("decision_log.sample_allows", "1%", "Share of the allows that are logged."),
    key(
        "decision_log.denials_per_second",
        "100",
        "How many denials a second are logged of requests without a token that was proven; the \
         others are counted.",
    ),
    key(
        "decision_log.repeats_per_second",
        "1",
        "How many denials a second are logged of one proven token with the same code, operation \
         and domain; the others are counted, for each such group.",
    ),
    key("decision_log.queue", "8192", "Records that may wait to be written; more are dropped."),
    key(
        "bodies.per_token",
        "4096",
        "Where Envoy asks in two steps: how many bodies it may be asked to hold for one token at a \
         time; beyond that, 429.",
    ),
    key(
        "bodies.bytes_per_token",
        "256MiB",
        "The same in bytes, with what compressed bodies become while they are read. One body is \
         always admitted; one without a length counts as 32 MiB.",
    ),
    key(
        "bodies.timeout",
        "120s",
        "How long a body may take to arrive: Envoy's `request_timeout`. One that has not come by \
         then counts no more.",
    ),
    key("memory.principals", "64MiB", "Memory for what tokens resolve to."),
    key("memory.domains", "16MiB", "Memory for domains."),
    key("memory.negatives", "65536", "How many unknown token ids are remembered."),
    key("headers.prefix", "x-", "What the names of the headers added for the upstream begin with."),
    key(
        "guard.word",
        "patgate",
        "The dynamic metadatum `guard` of each answer that lets a request through: the guard in \
         Envoy wants to see it. No secret, but choose one per installation that no other \
         authorization service sends.",
    ),
    key(
        "drain.delay",
        "5s",
        "How long to keep accepting after SIGTERM, while reporting not ready.",
    ),
    key("drain.grace", "30s", "How long requests in flight may then take."),
    key(
        "grpc.max_connections",
        "4096",
        "How many connections each gRPC listener holds; others wait. Fewer where the limit on open \
         files is too low.",
    ),
    key(
        "grpc.max_connection_age",
        "10m",
        "When a connection is closed, so that new replicas receive load.",
    ),
    key("log.format", "json", "`json` or `text`."),
    key(
        "log.filter",
        "info",
        "What is logged: a level, or `target=level` pairs separated by commas.",
    ),
];

pub(super) fn find(name: &str) -> Option<&'static Key> {
    KEYS.iter().find(|key| key.name == name)
}

/// Whether keys of the form `group.…` exist.
pub(super) fn is_group(group: &str) -> bool {
    KEYS.iter().any(|key| key.name.strip_prefix(group).is_some_and(|rest| rest.starts_with('.')))
}

impl Key {
    /// `postgres.url` is `PATGATE_POSTGRES_URL`.
    pub(super) fn variable(&self) -> String {
        format!("{PREFIX}{}", self.name.replace('.', "_").to_ascii_uppercase())
    }
}

/// What the names of our environment variables begin with.
pub(super) const PREFIX: &str = "PATGATE_";

/// The known name closest to `name`, when one is close enough to have been meant.
pub(super) fn nearest(name: &str, known: impl Iterator<Item = String>) -> Option<String> {
    known
        .map(|candidate| (strsim::damerau_levenshtein(name, &candidate), candidate))
        .filter(|(distance, candidate)| *distance <= candidate.len() / 3)
        .min()
        .map(|(_, candidate)| candidate)
}

/// All keys as a Markdown table.
pub fn reference() -> String {
    let mut table =
        String::from("| Key | Environment | Default | Meaning |\n| --- | --- | --- | --- |\n");
    for key in KEYS {
        let file = if key.secret { format!(", `{}_FILE`", key.variable()) } else { String::new() };
        let default =
            if key.default.is_empty() { String::new() } else { format!("`{}`", key.default) };
        // Writing to a string does not fail.
        let _ = writeln!(
            table,
            "| `{}` | `{}`{file} | {default} | {} |",
            key.name,
            key.variable(),
            key.help
        );
    }
    table
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn suggests_what_was_meant_and_nothing_else() {
        let names = || KEYS.iter().map(|key| key.name.to_owned());
        for (typed, meant) in [
            ("postgres.ulr", Some("postgres.url")),
            ("listen.gprc", Some("listen.grpc")),
            ("max_stalenes", Some("max_staleness")),
            ("memory.negative", Some("memory.negatives")),
            ("colour", None),
        ] {
            assert_eq!(nearest(typed, names()).as_deref(), meant, "{typed}");
        }
    }

    #[test]
    fn names_are_unique_and_no_key_is_a_group() {
        for key in KEYS {
            assert_eq!(KEYS.iter().filter(|other| other.name == key.name).count(), 1);
            assert!(!is_group(key.name), "{}", key.name);
            assert!(key.help.ends_with('.') && !key.help.contains('|'), "{}", key.name);
        }
    }

    #[test]
    fn the_readme_holds_the_reference() {
        let readme = include_str!("../../README.md");
        let held = readme.split("<!-- configuration:").nth(1).unwrap();
        assert_eq!(held.split_once("-->").unwrap().1.trim(), reference().trim());
    }

    #[test]
    fn the_reference_has_a_row_for_every_key() {
        let reference = reference();
        assert_eq!(reference.lines().count(), KEYS.len() + 2);
        assert!(reference.contains("| `PATGATE_POSTGRES_URL`, `PATGATE_POSTGRES_URL_FILE` |"));
    }
}
