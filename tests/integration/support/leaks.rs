//! After a run: no token, no backend's credential, no secret of the gRPC port and no private key that a
//! test made is written anywhere, except in the files that are meant to hold it.
//!
//! The search covers every log of every server and replica, a dump of all of Postgres with its
//! statement log, a dump of all of Redis, and the file with every command that changed it. It looks
//! for the last 50 characters of each secret, which are a token's secret part, as they are and
//! inside base64; for a credential also in hexadecimal, as bytes are dumped. For a private key it looks
//! for a part of its PEM, and for a part in hexadecimal. The secret of a session or an invitation is
//! shorter: it is looked for as a whole, as it is and in hexadecimal.

use std::{
    collections::HashSet,
    fs,
    path::{Path, PathBuf},
    process::Command,
    sync::LazyLock,
};

use base64::{
    Engine,
    prelude::{BASE64_STANDARD, BASE64_URL_SAFE_NO_PAD},
};
use memchr::memmem;
use patgate_testing::stack::Server;

use crate::support::{
    Suite,
    secrets::{self, KEY_PART, Made},
    suite::is_of_secret,
};

/// The minimum number of consecutive letters and digits at the end of each secret.
const TAIL: usize = 50;
/// The length of the secret of a session or an invitation, and of its bytes in hexadecimal.
const SESSION: usize = 43;
const SESSION_HEX: usize = 64;
/// Written to Redis at the end, and must be found in the file with all commands.
const MARK: &str = "the search for leaks";

/// Ends the servers, and returns where secrets were found.
pub(crate) fn search(suite: Suite) -> Vec<String> {
    let minted = suite.minted.into_inner().unwrap();
    let credentials = suite.credentials.into_inner().unwrap();
    let sessions = suite.sessions.into_inner().unwrap();
    let postgres = LazyLock::get(&suite.postgres).map(dump_postgres);
    let redis = LazyLock::get(&suite.valkey).map(dump_redis);
    // A search that could not have found anything proves nothing.
    let sought = [
        postgres.is_some().then_some(("a dump of Postgres", "patgate.pats")),
        redis.is_some().then_some((".aof", MARK)),
    ];
    let mut places: Vec<(String, Vec<u8>)> = postgres.into_iter().chain(redis).collect();
    // The servers' logs and access logs, Envoy's configurations, Redis's file.
    for file in files(&suite.stack.dir()).into_iter().chain(files(suite.dir.path())) {
        places.push((file.display().to_string(), fs::read(&file).unwrap()));
    }
    let bytes: usize = places.iter().map(|(_, content)| content.len()).sum();
    let Made { calls, keys } = secrets::take();
    println!(
        "looked for {} tokens, {} credentials, {} sessions and invitations, {} secrets of calls and {} keys \
         in {} places, {} MiB",
        minted.len(),
        credentials.len(),
        sessions.len(),
        calls.len(),
        keys.len(),
        places.len(),
        bytes >> 20
    );
    for (place, text) in sought.into_iter().flatten() {
        let in_place = places
            .iter()
            .any(|(name, content)| name.ends_with(place) && contains(content, text.as_bytes()));
        assert!(in_place, "{place} does not hold {text}");
    }
    let mut secrets = Vec::new();
    for tail in minted.iter().chain(&credentials).map(|text| &text[text.len() - TAIL..]) {
        secrets.push(tail.to_owned());
        secrets.extend(in_base64(tail));
    }
    let hex = |text: &str| text.bytes().map(|byte| format!("{byte:02x}")).collect::<String>();
    secrets.extend(credentials.iter().map(|text| hex(&text[text.len() - TAIL / 2..])));
    let of_calls = calls.iter().map(|text| &text[text.len() - TAIL..]);
    let of_calls = of_calls.flat_map(|tail| [&[tail.to_owned()][..], &in_base64(tail)].concat());
    let all = Secrets::new(secrets.iter().cloned().chain(of_calls), TAIL);
    let secrets = Secrets::new(secrets, TAIL);
    let private_keys = Secrets::new(keys.iter().flatten().cloned(), KEY_PART);
    let bytes_of_sessions = sessions.iter().map(|text| hex_of_base64(text));
    let bytes_of_sessions = Secrets::new(bytes_of_sessions, SESSION_HEX);
    let sessions = Secrets::of(sessions, SESSION, |byte| is_of_secret(char::from(*byte)));
    let of_sessions =
        |content: &[u8]| sessions.stand_in(content) || bytes_of_sessions.stand_in(content);
    for secret in sessions.whole.iter().take(1000) {
        let text = String::from_utf8(secret.clone()).unwrap();
        assert!(of_sessions(format!("a-session={text};").as_bytes()), "not found");
        assert!(of_sessions(format!("\\x{}", hex_of_base64(&text)).as_bytes()), "not found");
    }
    let is_found = |secrets: &Secrets, text: &str| {
        assert!(secrets.stand_in(format!("{{\"it\":\"{text}\"}}").as_bytes()), "not found");
    };
    let tokens = minted.iter().chain(&credentials).take(1000);
    tokens.for_each(|text| is_found(&secrets, text));
    calls.iter().for_each(|text| is_found(&all, text));
    keys.iter().flatten().for_each(|text| is_found(&private_keys, text));
    let mut own_files = 0;
    let found = places.into_iter().filter(|(name, content)| {
        if of_sessions(content) {
            return true;
        }
        let of_the_operator = all.stand_in(content) || private_keys.stand_in(content);
        if is_the_operators(name) {
            own_files += usize::from(of_the_operator);
            return secrets.stand_in(content);
        }
        of_the_operator
    });
    let found = found.map(|(name, _)| name).collect();
    println!("{own_files} files hold the secrets of an operator, as they are meant to");
    suite.stack.shut_down();
    found
}

/// Whether a file is one that holds secrets for Envoy or patgate to read: a private key, a value of
/// `grpc.secret`, or the configuration of Envoy.
fn is_the_operators(file: &str) -> bool {
    [".key", ".secret", "/envoy.yaml"].iter().any(|name| file.ends_with(name))
}

fn contains(content: &[u8], text: &[u8]) -> bool {
    memmem::find(content, text).is_some()
}

/// The base64 encodings of a text's inner part, for each offset in groups of three bytes. Letters
/// and digits are never encoded otherwise.
fn in_base64(tail: &str) -> [String; 3] {
    const GROUPS: usize = TAIL.div_ceil(4);
    [0, 1, 2].map(|from| {
        let written = BASE64_STANDARD.encode(&tail[from..from + 3 * GROUPS]);
        written[..TAIL].to_owned()
    })
}

/// The bytes that a secret of a session stands for.
fn hex_of_base64(text: &str) -> String {
    let bytes = BASE64_URL_SAFE_NO_PAD.decode(text).unwrap();
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Searches for all secrets at once, in a time that does not depend on their number. A build
/// without optimization must read hundreds of megabytes.
struct Secrets {
    whole: HashSet<Vec<u8>>,
    /// Of each of them.
    length: usize,
    /// Whether a secret may begin with eight bytes of that hash; this excludes most places.
    beginnings: Vec<bool>,
    /// Whether a byte may be one of a secret.
    alphabet: fn(&u8) -> bool,
}

impl Secrets {
    /// Each secret has so many letters and digits, and nothing else.
    fn new(secrets: impl IntoIterator<Item = String>, length: usize) -> Self {
        Self::of(secrets, length, u8::is_ascii_alphanumeric)
    }

    /// Each secret has so many characters of this alphabet.
    fn of(
        secrets: impl IntoIterator<Item = String>,
        length: usize,
        alphabet: fn(&u8) -> bool,
    ) -> Self {
        let whole: HashSet<_> = secrets.into_iter().map(String::into_bytes).collect();
        let mut beginnings = vec![false; (32 * whole.len()).next_power_of_two()];
        for secret in &whole {
            assert!(secret.len() == length && secret.iter().all(alphabet));
            let at = Self::hash(secret, beginnings.len());
            beginnings[at] = true;
        }
        Self { whole, length, beginnings, alphabet }
    }

    /// Hashes the beginning of a window: after the multiplication, the upper bits depend on all
    /// others.
    fn hash(window: &[u8], below: usize) -> usize {
        let beginning = u64::from_le_bytes(window[..8].try_into().unwrap());
        (beginning.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 32) as usize & (below - 1)
    }

    /// Returns whether one of them occurs in `content`.
    fn stand_in(&self, content: &[u8]) -> bool {
        let other = |byte: &u8| !(self.alphabet)(byte);
        let mut from = 0;
        let length = self.length;
        while let Some(window) = content.get(from..from + length) {
            // No secret can begin before it.
            if let Some(last) = window.iter().rposition(other) {
                from += last + 1;
                continue;
            }
            let rest = &content[from + length..];
            let run =
                &content[from..][..length + rest.iter().position(other).unwrap_or(rest.len())];
            if run.windows(length).any(|window| self.holds(window)) {
                return true;
            }
            from += run.len();
        }
        false
    }

    fn holds(&self, window: &[u8]) -> bool {
        self.beginnings[Self::hash(window, self.beginnings.len())] && self.whole.contains(window)
    }
}

/// Returns whether one of these credentials occurs in `text`, as it is.
pub(crate) fn mentions(text: &str, credentials: &[&str]) -> bool {
    let secrets = credentials.iter().map(|text| text[text.len() - TAIL..].to_owned());
    Secrets::new(secrets, TAIL).stand_in(text.as_bytes())
}

fn files(below: &Path) -> Vec<PathBuf> {
    let Ok(entries) = fs::read_dir(below) else { return Vec::new() };
    let mut found = Vec::new();
    for entry in entries.flatten() {
        match entry.file_type() {
            // The contents of Postgres are dumped.
            Ok(kind) if kind.is_dir() && entry.file_name() != "data" => {
                found.extend(files(&entry.path()));
            }
            Ok(kind) if kind.is_file() => found.push(entry.path()),
            _ => {}
        }
    }
    found
}

fn dump_postgres(server: &Server) -> (String, Vec<u8>) {
    let output = Command::new(format!("{}/pg_dumpall", server.bin))
        .args(["--no-sync", "--dbname", &server.url])
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    ("a dump of Postgres".to_owned(), output.stdout)
}

/// Returns every key and value of every database.
fn dump_redis(server: &Server) -> (String, Vec<u8>) {
    let mut connection =
        redis::Client::open(server.url.as_str()).unwrap().get_connection().unwrap();
    let () = redis::cmd("SET").arg(MARK).arg(1).query(&mut connection).unwrap();
    let keyspace: String = redis::cmd("INFO").arg("keyspace").query(&mut connection).unwrap();
    let mut dump = keyspace.clone().into_bytes();
    for line in keyspace.lines() {
        let Some((database, _)) = line.strip_prefix("db").and_then(|l| l.split_once(':')) else {
            continue;
        };
        let () = redis::cmd("SELECT").arg(database).query(&mut connection).unwrap();
        let keys: Vec<Vec<u8>> = redis::cmd("KEYS").arg("*").query(&mut connection).unwrap();
        for key in keys {
            let kind: String = redis::cmd("TYPE").arg(&key).query(&mut connection).unwrap();
            let mut read = match kind.as_str() {
                // It has expired since.
                "none" => continue,
                "string" => redis::cmd("GET"),
                "hash" => redis::cmd("HGETALL"),
                "stream" => redis::cmd("XRANGE"),
                other => panic!("patgate keeps no {other} in Redis"),
            };
            read.arg(&key);
            if kind == "stream" {
                read.arg("-").arg("+");
            }
            dump.extend(key);
            dump_value(read.query(&mut connection).unwrap(), &mut dump);
        }
    }
    ("a dump of Redis".to_owned(), dump)
}

fn dump_value(value: redis::Value, to: &mut Vec<u8>) {
    match value {
        redis::Value::BulkString(bytes) => {
            to.push(b'\n');
            to.extend(bytes);
        }
        redis::Value::Array(values) => values.into_iter().for_each(|value| dump_value(value, to)),
        _ => {}
    }
}
