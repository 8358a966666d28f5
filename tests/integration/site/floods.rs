//! A flood of `patgate admin`, on the same machine, fails no check; nor does its death.

use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed},
    },
};

use futures_util::future::join_all;
use patgate_testing::eventually;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
};

use super::{credentials, process::AdminProcess};
use crate::{
    support::{Suite, fleet::MODELS, front::Front, load::WELL},
    web::Site,
};

const JSON: (&str, &str) = ("content-type", "application/json");
const CLIENTS: usize = 24;
/// Answers to the flood, before and after which the checks are looked at.
const ENOUGH: usize = 100;

/// The status of the answer; `None` if there is none, as from a dead process, or one that closes the
/// connection before it has read a body that is too long.
async fn status(
    address: &str,
    method: &str,
    path: &str,
    headers: &[(&str, &str)],
    body: &str,
) -> Option<u16> {
    let mut stream = TcpStream::connect(address).await.ok()?;
    let headers: String =
        headers.iter().map(|(name, value)| format!("{name}: {value}\r\n")).collect();
    let length = body.len();
    let request = format!(
        "{method} {path} HTTP/1.1\r\nhost: {address}\r\nconnection: close\r\n{headers}\
         content-length: {length}\r\n\r\n{body}"
    );
    let _ = stream.write_all(request.as_bytes()).await;
    let mut reply = Vec::new();
    let _ = stream.read_to_end(&mut reply).await;
    String::from_utf8_lossy(&reply).split(' ').nth(1)?.parse().ok()
}

pub(crate) async fn a_flood_fails_no_check(suite: Arc<Suite>) {
    let world = suite.world().await;
    let process = AdminProcess::start(&world, &["web.sign_ins_per_minute=100000"]);
    // So that each attempt is hashed.
    world
        .sql("UPDATE patgate.policy SET failed_attempts = 1000000, attempts_per_minute = 1000000")
        .await;
    let ann = Site::of(&world).await.signed_in("ann").await;
    let bearer = format!("Bearer {}", &*ann.session.expose());
    let front = Front::of(&world, &[]).await;
    let load = front.load(&world).await;
    let token = crate::support::tokens::reader(&world).await;
    load.bear(front.fleet.all_answer(&token, MODELS, 200)).await;

    let stop = AtomicBool::new(false);
    let answered = AtomicUsize::new(0);
    let long = "x".repeat(100_000);
    let address = process.address.to_string();
    let flood = join_all((0..CLIENTS).map(async |client| {
        let mut statuses = BTreeMap::new();
        let wrong = credentials(&format!("user{client}"), "a wrong password");
        let authorization = [("authorization", &*bearer), JSON];
        for number in 0.. {
            if stop.load(Relaxed) {
                break;
            }
            let (method, path, headers, body) = match number % 5 {
                0..3 => ("POST", "/api/sessions", &[JSON][..], &*wrong),
                3 => ("GET", "/api/pats?limit=1000&status=all", &authorization[..], ""),
                _ if client % 2 == 0 => ("POST", "/api/pats", &authorization[..], "{\"name\": ["),
                _ => ("POST", "/api/pats", &authorization[..], &*long),
            };
            let status = status(&address, method, path, headers, body).await;
            *statuses.entry(status).or_insert(0) += 1;
            answered.fetch_add(usize::from(status.is_some()), Relaxed);
            if status.is_none() {
                tokio::time::sleep(patgate_testing::PAUSE).await;
            }
        }
        statuses
    }));
    let checks = async {
        eventually("the flood to come", async || answered.load(Relaxed) >= ENOUGH).await;
        let hashed = process.metric("patgate_web_password_wait_seconds_count").await;
        assert!(hashed > 5.0, "{hashed} passwords were hashed");
        load.bear(load.more(WELL, 50)).await;
        load.bear(front.fleet.all_answer(&token, MODELS, 200)).await;
        suite.stack.signal(&process.server, "KILL");
        load.bear(load.more(WELL, 50)).await;
        load.bear(front.fleet.all_answer(&token, MODELS, 200)).await;
        // A new token is looked up as ever.
        let next = crate::support::tokens::reader(&world).await;
        load.bear(front.fleet.all_answer(&next, MODELS, 200)).await;
        stop.store(true, Relaxed);
    };
    let (statuses, ()) = tokio::join!(flood, checks);
    let mut all = BTreeMap::new();
    for (status, count) in statuses.into_iter().flatten() {
        *all.entry(status).or_insert(0) += count;
    }
    println!("the flood was answered {all:?}");
    for expected in [401, 200, 400] {
        assert!(all.contains_key(&Some(expected)), "no {expected}: {all:?}");
    }
    load.end("a flood of self-service, and its death").await;
}
