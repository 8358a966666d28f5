//! The only table of keys. All code that reads, checks or documents the configuration uses it.

use std::fmt::Write as _;

/// One setting, with its default and its help text.
pub(super) struct Key {
    pub(super) name: &'static str,
    /// The default, as an operator would write it. Empty if there is none, or if empty means off.
    pub(super) default: &'static str,
    /// Whether the value is a secret: never shown, never taken from a flag, and readable from a
    /// file.
    pub(super) secret: bool,
    /// Whether the value is never shown, although it is set like any other one.
    pub(super) hidden: bool,
    pub(super) help: &'static str,
}

/// Keys whose value may be written as a list in YAML.
pub(super) const LISTS: &[&str] = &[
    "apis",
    "grpc.tls.client_names",
    "routes.hosts",
    "routes.listeners",
    "routes.networks",
    "routes.reserved",
    "token.prefixes",
];

/// Settings whose value is taken up while patgate serves, if a file holds it. What other settings name
/// may also be read again, as their help says.
pub(super) const LIVE: &[&str] = &["grpc.secret"];

/// Addresses that are read again where they are used, if a file holds them alone
/// (`postgres_address.rs`).
pub(super) const FOLLOWED: &[&str] = &["postgres.url", "feed.url"];

const fn key(name: &'static str, default: &'static str, help: &'static str) -> Key {
    Key { name, default, secret: false, hidden: false, help }
}

/// A value that only those who run the gateway may know. It also stands in Envoy's configuration.
const fn hidden(name: &'static str, default: &'static str, help: &'static str) -> Key {
    Key { name, default, secret: false, hidden: true, help }
}

const fn secret(name: &'static str, help: &'static str) -> Key {
    Key { name, default: "", secret: true, hidden: true, help }
}

pub(super) const KEYS: &[Key] = &[
    key("listen.grpc", "127.0.0.1:9191", "Address and port for Envoy's gRPC checks; empty = off."),
    key("listen.uds", "", "Path of a Unix socket for Envoy's gRPC checks; empty = off."),
    key("listen.uds_mode", "0660", "Permissions of that socket, octal."),
    key(
        "listen.uds_owner",
        "",
        "Ids of the user and the group that shall own that socket, such as `101:101` or `:101`; empty \
         = those of patgate.",
    ),
    key("listen.http", "127.0.0.1:9192", "Address and port for health and metrics; empty = off."),
    key(
        "start.require",
        "none",
        "Which stores must be in order when patgate starts; otherwise it ends with the error. `none`: it \
         listens, is not ready, answers 503, and tries again until all checks have passed. `postgres`: \
         Postgres, also at `feed.url`. `all`: Redis as well, if there is one.",
    ),
    secret(
        "postgres.url",
        "The Postgres server: `postgres://user:password@host:port/database`, or several as \
         `host1:port1,host2:port2`, among which patgate finds the primary. Required. If it is in a \
         file, patgate reads it again when the file changes, or when Postgres refuses the login.",
    ),
    key(
        "postgres.password_file",
        "",
        "The path of a file with only the password of `postgres.url`, and of `feed.url` if that has \
         none; read again in the same way.",
    ),
    key("postgres.max_connections", "8", "Most Postgres connections for lookups, per replica."),
    key("postgres.query_timeout", "1s", "Longest time that one statement may run."),
    key(
        "postgres.max_query_rate",
        "500",
        "Most lookup queries per second; each query answers up to 256 keys.",
    ),
    secret(
        "feed.url",
        "Where patgate reads changes and listens for notifications: a direct connection, or a \
         pooler in session mode; empty = `postgres.url`, polled every 400 ms.",
    ),
    key(
        "feed.relay",
        "off",
        "`off`: each replica reads the changes from Postgres. `redis`, for large fleets: one replica \
         reads them and relays them to the others through Redis; needs `feed.url` and `redis.url`.",
    ),
    secret(
        "redis.url",
        "`redis://user:password@host:port/database`, or `rediss://…` for TLS; empty = no Redis. \
         Several hosts of a cluster, or several Sentinels, are separated by commas.",
    ),
    key(
        "redis.topology",
        "single",
        "What `redis.url` leads to. `single`: one server. `sentinel`: Sentinels, which know the \
         current master; user, password and database of the URL are those of the master. \
         `cluster`: nodes of a Redis Cluster, which know the others.",
    ),
    key(
        "redis.password_file",
        "",
        "A file that holds the password for Redis, instead of `redis.url`. patgate reads it again \
         when it changes, and when Redis refuses the login.",
    ),
    key("redis.sentinel.master", "", "The name of the master that the Sentinels watch."),
    key(
        "redis.sentinel.username",
        "",
        "The user with which patgate logs in to the Sentinels, if they have users.",
    ),
    key(
        "redis.sentinel.password_file",
        "",
        "A file that holds the password for the Sentinels; empty = they need none.",
    ),
    key(
        "redis.tls.ca_file",
        "",
        "The authorities that sign the certificates of Redis and Sentinels, in PEM; empty = those \
         of the system, or of `SSL_CERT_FILE`. These files are read again when they change.",
    ),
    key(
        "redis.tls.certificate_file",
        "",
        "The certificate chain that patgate presents to Redis and Sentinels, in PEM; empty = none.",
    ),
    key("redis.tls.private_key_file", "", "The private key of that certificate, in PEM."),
    key("redis.timeout", "20ms", "Longest time that one round trip to Redis may take."),
    key(
        "redis.max_connections",
        "4",
        "Most Redis connections for lookups, per replica; in a cluster, to each node.",
    ),
    key(
        "keyring_file",
        "",
        "The key ring: lines `<key id>:<base64 of 32 bytes>`. Required to serve and to create tokens. \
         patgate reads it again when the file changes.",
    ),
    key(
        "apis",
        "",
        "The API tables: files, or directories of `.yaml` files, separated by commas; empty = the \
         Cube AI table that is part of the binary. patgate reads them again when the files change.",
    ),
    key(
        "model.read",
        "when-needed",
        "When patgate reads the model from the body. `when-needed`: if the token's scopes or the \
         domain permit only some models. `always`: for every call, so that calls can be limited and \
         logged by model; a call whose model cannot be read is refused.",
    ),
    key(
        "token.prefixes",
        "pat",
        "Prefixes that tokens may have, separated by commas; new tokens get the first one.",
    ),
    key(
        "token.denials_per_second",
        "100",
        "Most denials per second of one token whose secret was verified, with a burst of ten \
         seconds' worth; above that, patgate answers 429 and reads no body for it. 0 = no limit.",
    ),
    key("max_staleness", "30s", "No answer is based on data older than this."),
    key(
        "negative_ttl",
        "5s",
        "How long patgate remembers that a token or domain is unknown; at most `max_staleness`.",
    ),
    key(
        "deadline",
        "100ms",
        "Longest time for the lookups of one request; keep it below Envoy's own timeout.",
    ),
    key(
        "canary.every",
        "",
        "How often this replica revokes or reissues its own test token, and measures how long it \
         takes to apply the change; empty = off.",
    ),
    key(
        "mode",
        "enforce",
        "`enforce`: patgate denies. `shadow`: a request that would get 401, 403 or 404, or be refused \
         for its body or for several different credentials, passes without an identity and is \
         recorded. `per-domain`: each domain's own mode applies.",
    ),
    key(
        "decision_log.to",
        "stdout",
        "Where decisions are logged as JSON lines: `stdout`, the path of a file, or `none`.",
    ),
    key("decision_log.sample_allows", "1%", "Share of allows that are logged."),
    key(
        "decision_log.denials_per_second",
        "100",
        "Most denials per second that are logged for requests without a verified token; the others \
         are counted.",
    ),
    key(
        "decision_log.repeats_per_second",
        "1",
        "Most denials per second that are logged for one verified token with the same code, \
         domain, and operation or path; the others are counted per group.",
    ),
    key(
        "decision_log.queue",
        "8192",
        "Most records that wait to be written; patgate drops and counts the rest.",
    ),
    key(
        "bodies.per_token",
        "4096",
        "If Envoy asks in two steps: most bodies that Envoy holds for one token at a time; above that, \
         429.",
    ),
    key(
        "bodies.bytes_per_token",
        "256MiB",
        "The same limit in bytes, including the decompressed size of bodies while they are read. One \
         body is always accepted; a body without a length counts as 32 MiB.",
    ),
    key(
        "bodies.timeout",
        "120s",
        "Longest time for a body to arrive; set it to Envoy's `request_timeout`. A body that has not \
         arrived by then no longer counts.",
    ),
    key("memory.principals", "64MiB", "Memory for cached tokens, with their scopes and owners."),
    key("memory.domains", "16MiB", "Memory for cached domains."),
    key("memory.negatives", "65536", "Most unknown token ids that are remembered."),
    key("headers.prefix", "x-", "Prefix of the headers that patgate adds for the upstream."),
    hidden(
        "guard.word",
        "patgate",
        "Value of the dynamic metadata field `guard` in each answer that lets a request through; the \
         guard in Envoy requires it. Choose one per installation that no other authorization service \
         sends, and tell it only to those who run the gateway. `config check` shows only whether it is set.",
    ),
    key(
        "drain.delay",
        "5s",
        "How long patgate accepts requests after SIGTERM while it reports not ready.",
    ),
    key("drain.grace", "30s", "How long requests in progress may take after that."),
    secret(
        "grpc.secret",
        "The secret that Envoy sends in the gRPC metadata `patgate-secret`; two, separated by a comma, \
         while it is replaced. Checks without it are answered 503; empty = none is needed. patgate \
         takes up a new value from a file when the file changes.",
    ),
    key(
        "grpc.tls.certificate_file",
        "",
        "The certificate chain of `listen.grpc`, in PEM; empty = no TLS. Certificates, keys and \
         authorities are read again when the files change.",
    ),
    key("grpc.tls.private_key_file", "", "The private key of that certificate, in PEM."),
    key(
        "grpc.tls.client_ca_file",
        "",
        "The authorities that sign the clients' certificates, in PEM; empty = clients need none.",
    ),
    key(
        "grpc.tls.client_names",
        "",
        "DNS names and SPIFFE ids, separated by commas; a client's certificate must hold one of them.",
    ),
    key("http.tls.certificate_file", "", "The same of `listen.http`; empty = no TLS."),
    key("http.tls.private_key_file", "", "The private key of that certificate, in PEM."),
    key(
        "grpc.max_connections",
        "4096",
        "Most connections per gRPC listener; others wait. Fewer if the limit on open files is too \
         low.",
    ),
    key(
        "grpc.max_connection_age",
        "10m",
        "Age at which a connection is closed, so that new replicas receive load.",
    ),
    key("log.format", "json", "`json` or `text`."),
    key(
        "log.filter",
        "info",
        "Which log messages are written: a level, or `target=level` pairs separated by commas.",
    ),
    key(
        "log.filter_file",
        "",
        "A file with a filter that applies instead of `log.filter` while it exists. patgate reads it \
         every second, so that the level can be changed without a restart.",
    ),
    key(
        "telemetry.otlp.endpoint",
        "",
        "The receiver of traces, by OTLP over gRPC: `http://host:4317`, or `https://…` for TLS; empty \
         = no traces. patgate records a check only if Envoy records its trace.",
    ),
    secret(
        "telemetry.otlp.headers",
        "Headers for the receiver, such as `authorization=Bearer …`; several are separated by commas.",
    ),
    key(
        "telemetry.otlp.ca_file",
        "",
        "The authorities that sign the receiver's certificate, in PEM; empty = those of the system.",
    ),
    key(
        "telemetry.otlp.timeout",
        "5s",
        "Longest time to connect, and for one attempt to send a batch. No attempt begins later than that \
         after the first, so a batch takes up to twice as long.",
    ),
    key(
        "telemetry.service_name",
        "",
        "`service.name` of the spans; empty = `OTEL_SERVICE_NAME`, or `patgate`.",
    ),
    key(
        "web.listen",
        "127.0.0.1:9193",
        "Address and port of `patgate admin`, for people and API clients.",
    ),
    key(
        "web.metrics.listen",
        "",
        "Address and port where Prometheus reads the metrics of `patgate admin`, at `/metrics`; empty = \
         none.",
    ),
    key(
        "web.url",
        "",
        "The URL under which browsers reach `patgate admin`, such as `https://tokens.example.org`; empty \
         = `http://` and `web.listen`, if only this machine can reach that.",
    ),
    key(
        "web.gateway_url",
        "",
        "The URL under which clients reach the gateway, for the examples that people get with a token.",
    ),
    secret(
        "web.postgres.url",
        "The Postgres server, with a login of `patgate_web`. Required for `patgate admin`.",
    ),
    key("web.postgres.password_file", "", "The path of a file with only the password of that URL."),
    key("web.postgres.max_connections", "8", "Most Postgres connections of `patgate admin`."),
    key("web.postgres.query_timeout", "10s", "Longest time that one of its statements may run."),
    key(
        "web.proxies",
        "0",
        "How many trusted proxies in front of `patgate admin` append to `x-forwarded-for`; 0 = the \
         client is whoever connects.",
    ),
    key(
        "web.requests_per_second",
        "20",
        "Most requests of one client address to `patgate admin`, in the long run.",
    ),
    key(
        "web.sign_ins_per_minute",
        "10",
        "Most attempts of one client address to sign in, in the long run.",
    ),
    key(
        "web.oidc.issuer",
        "",
        "The provider of OpenID Connect that signs users in, exactly as it names itself; empty = none.",
    ),
    key("web.oidc.client_id", "", "What the provider calls patgate."),
    key(
        "web.oidc.client_secret_file",
        "",
        "The path of a file with only the client secret; empty for a public client.",
    ),
    key(
        "web.oidc.scopes",
        "openid email",
        "What patgate asks the provider for, separated by spaces.",
    ),
    key(
        "web.oidc.api_audience",
        "",
        "The audience of the provider's access tokens with which programs begin sessions; empty = they \
         cannot. It must not be the client id.",
    ),
    key(
        "web.oidc.ca_file",
        "",
        "The authorities that sign the provider's certificate, in PEM; empty = those of the system.",
    ),
    key(
        "routes.networks",
        "",
        "Networks where the IP addresses of backends may be, such as `10.20.0.0/16`, separated by commas; \
         empty = none. They admit http on all ports. `patgate export` and `patgate sync` leave out every other backend. Loopback, \
         link-local, multicast and metadata addresses need a network of their own.",
    ),
    key(
        "routes.hosts",
        "",
        "DNS names that backends may have, separated by commas: `api.example.org`, or `*.models.example` \
         for all names below one; empty = none. Each admits https on port 443; `:8443` names another port, \
         `:*` all. `http://` in front admits http in place of https, on port 80.",
    ),
    key(
        "routes.reserved",
        "",
        "More names that no backend may have, because the gateway has clusters of these names, besides \
         `otlp` and `patgate`, which are always reserved. `patgate backend create` and self-service refuse \
         them, and `patgate serve` answers requests for such a backend with 503.",
    ),
    key(
        "routes.authorities",
        "",
        "The authorities of backends with https, in place of those of the system: for Envoy the path of a \
         PEM file there, for Envoy Gateway a ConfigMap with `ca.crt`, for Istio a Secret with `cacert`.",
    ),
    key(
        "routes.namespace",
        "",
        "The namespace of the objects, which is that of the `Gateway`; empty = that of the pod, or of the \
         current context of the kubeconfig.",
    ),
    key(
        "routes.gateway",
        "",
        "The name of the `Gateway` there; empty = `gateway` for Envoy Gateway, `patgate` for Istio.",
    ),
    key(
        "routes.listeners",
        "http,https",
        "The listeners of an Envoy Gateway's `Gateway` that serve the routes; empty = all.",
    ),
    key(
        "routes.instance",
        "patgate",
        "What the objects belong to: a label, and the beginning of their names; a letter, then letters and \
         digits. Give each `patgate sync` that writes into the same namespace another one.",
    ),
    key(
        "routes.listen",
        "127.0.0.1:9195",
        "Address and port for health and metrics of `patgate sync`; empty = off.",
    ),
];

pub(super) fn find(name: &str) -> Option<&'static Key> {
    KEYS.iter().find(|key| key.name == name)
}

/// Returns whether there are keys of the form `group.…`.
pub(super) fn is_group(group: &str) -> bool {
    KEYS.iter().any(|key| key.name.strip_prefix(group).is_some_and(|rest| rest.starts_with('.')))
}

impl Key {
    /// Returns the name of the environment variable: for `postgres.url` it is
    /// `PATGATE_POSTGRES_URL`.
    pub(super) fn variable(&self) -> String {
        format!("{PREFIX}{}", self.name.replace('.', "_").to_ascii_uppercase())
    }
}

/// The prefix of patgate's environment variables.
pub(super) const PREFIX: &str = "PATGATE_";

/// Returns the known name closest to `name`, if one is close enough to be a likely misspelling.
pub(super) fn nearest(name: &str, known: impl Iterator<Item = String>) -> Option<String> {
    known
        .map(|candidate| (strsim::damerau_levenshtein(name, &candidate), candidate))
        .filter(|(distance, candidate)| *distance <= candidate.len() / 3)
        .min()
        .map(|(_, candidate)| candidate)
}

/// Returns all keys as a Markdown table.
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
    fn what_opens_something_is_not_shown() {
        for key in KEYS.iter().filter(|key| !key.name.ends_with("_file")) {
            let opens = ["secret", "password", "word"].iter().any(|part| key.name.contains(part));
            assert!(key.hidden || !(opens || key.secret), "{}", key.name);
        }
    }

    #[test]
    fn the_document_holds_the_reference() {
        let document = include_str!("../../docs/configuration.md");
        let held = document.split("<!-- configuration:").nth(1).unwrap();
        assert_eq!(held.split_once("-->").unwrap().1.trim(), reference().trim());
    }

    #[test]
    fn the_reference_has_a_row_for_every_key() {
        let reference = reference();
        assert_eq!(reference.lines().count(), KEYS.len() + 2);
        assert!(reference.contains("| `PATGATE_POSTGRES_URL`, `PATGATE_POSTGRES_URL_FILE` |"));
    }
}
