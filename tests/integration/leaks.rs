//! After a run: no token that a test made is written anywhere.
//!
//! Searched are every log of every server and replica, a dump of all of Postgres with its
//! statement log, and a dump of all of Redis. Of each token its whole text is looked for, and its
//! secret part alone.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use crate::{harness::Suite, stack::Server};

/// Where tokens were found.
pub(crate) fn search(suite: Suite) -> Vec<String> {
    let minted = suite.minted.into_inner().unwrap();
    let dumps = [dump_postgres(&suite.postgres), dump_redis(&suite.valkey)];
    // The servers' logs and access logs, Envoy's configurations, Redis's file.
    let servers = Path::new(&suite.valkey.log).ancestors().nth(2).unwrap().to_owned();
    let mut places: Vec<(String, Vec<u8>)> = dumps.into();
    for file in files(&servers).into_iter().chain(files(suite.dir.path())) {
        places.push((file.display().to_string(), fs::read(&file).unwrap()));
    }
    let bytes: usize = places.iter().map(|(_, content)| content.len()).sum();
    println!("looked for {} tokens in {} places, {} MiB", minted.len(), places.len(), bytes >> 20);
    // A search that could not have found anything proves nothing.
    let digests = places.iter().any(|(name, content)| {
        name == "a dump of Postgres" && content.windows(12).any(|w| w == b"patgate.pats")
    });
    assert!(digests, "the dump of Postgres holds no tokens' table");
    let secrets: Vec<&str> = minted.iter().map(|token| &token[token.len() - 50..]).collect();
    let found = places.into_iter().filter(|(_, content)| holds(content, &secrets));
    let found = found.map(|(name, _)| name).collect();
    suite.stack.shut_down();
    found
}

/// Whether one of the secrets stands in `content`. Every run of letters and digits is looked at
/// once, whatever the number of secrets.
fn holds(content: &[u8], secrets: &[&str]) -> bool {
    let secrets: std::collections::HashSet<&[u8]> =
        secrets.iter().map(|secret| secret.as_bytes()).collect();
    content
        .split(|byte| !byte.is_ascii_alphanumeric())
        .filter(|run| run.len() >= 50)
        .any(|run| run.windows(50).any(|window| secrets.contains(window)))
}

fn files(below: &Path) -> Vec<PathBuf> {
    let Ok(entries) = fs::read_dir(below) else { return Vec::new() };
    let mut found = Vec::new();
    for entry in entries.flatten() {
        match entry.file_type() {
            // What Postgres holds is dumped.
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

/// Every key and value of every database.
fn dump_redis(server: &Server) -> (String, Vec<u8>) {
    let mut connection =
        redis::Client::open(server.url.as_str()).unwrap().get_connection().unwrap();
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
                // Expired since.
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
