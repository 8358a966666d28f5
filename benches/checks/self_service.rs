//! The latency and the processor time of checks while `patgate admin` is flooded on the same machine:
//! sign-ins with wrong passwords, long lists and malformed requests.

use std::{
    io::{Read as _, Write as _},
    net::{SocketAddr, TcpStream},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed},
    },
    thread,
    time::Duration,
};

use serde_json::{Map, Value, json};

use crate::{
    bench::{Bench, ask_all, chats},
    neighbours::{paced, yield_to_others},
    servers::{self, Launcher},
    statistics::quantile,
};

const TOKENS: usize = 1000;
/// Clients that each send one request after another.
const CLIENTS: usize = 16;
/// Time between two checks: long enough that they never use up the machine, of whatever build they are.
const EVERY: Duration = Duration::from_millis(5);
const START: Duration = Duration::from_secs(20);

pub(crate) fn measure(bench: &mut Bench) {
    eprintln!("checks while self-service is flooded");
    let mut database = bench.site.database("self_service", 1);
    bench.site.issue(&mut database, TOKENS, 1);
    // On all cores, as the other process: the measurement is about how they share them.
    let running = servers::patgate(&bench.site, &Launcher::default(), &database, &[]);
    let requests = chats(&database.tokens);
    ask_all(&running, &requests);
    let (login, session) = database.self_service(&bench.site.runtime);
    let address = SocketAddr::from(([127, 0, 0, 1], bench.site.stack.free_port()));
    let settings = [
        ("KEYRING_FILE", bench.site.keyring_path()),
        ("WEB_POSTGRES_URL", login),
        ("WEB_LISTEN", address.to_string()),
        ("WEB_REQUESTS_PER_SECOND", "100000".to_owned()),
        ("WEB_SIGN_INS_PER_MINUTE", "100000".to_owned()),
    ];
    let env: Map<String, Value> =
        settings.into_iter().map(|(key, value)| (format!("PATGATE_{key}"), value.into())).collect();
    let arguments = json!({ "argv": [servers::program(), "admin"], "name": "admin", "env": env });
    let admin = bench.site.stack.start("process", arguments);
    servers::until(START, "patgate admin to be ready", || {
        servers::get(address, "/readyz").is_some()
    });
    let flood: Arc<[_]> = flood(&address, &session).into();

    let plan = bench.plan;
    let dice = &mut bench.dice;
    let answered = Arc::new(AtomicUsize::new(0));
    let rounds = plan.alternate(|side| {
        let stop = Arc::new(AtomicBool::new(false));
        let clients = if side == 0 { CLIENTS } else { 0 };
        let floods: Vec<_> = (0..clients)
            .map(|client| {
                let (stop, answered) = (Arc::clone(&stop), Arc::clone(&answered));
                let flood = Arc::clone(&flood);
                thread::spawn(move || {
                    // Sending also takes time. This must not delay the client whose checks are timed.
                    yield_to_others();
                    for request in flood.iter().cycle().skip(client) {
                        if stop.load(Relaxed) {
                            break;
                        }
                        send(&address, request);
                        answered.fetch_add(1, Relaxed);
                    }
                })
            })
            .collect();
        let before = running.cpu();
        let mut latencies = paced(&running, &requests, EVERY, 4 * plan.time, dice);
        let cpu = (running.cpu() - before).as_secs_f64() * 1e6 / latencies.len() as f64;
        stop.store(true, Relaxed);
        floods.into_iter().for_each(|flood| flood.join().expect("a client of the flood"));
        [quantile(&mut latencies, 0.5) / 1e3, quantile(&mut latencies, 0.99) / 1e3, cpu]
    });
    bench.report.value("self_service_flood_requests", answered.load(Relaxed) as f64);
    for (place, name) in ["p50", "p99", "cpu"].into_iter().enumerate() {
        let pairs = || rounds.iter().map(|(with, without)| (with[place], without[place]));
        bench.report.ratio(ratio_of(name), pairs());
        let (with, without): (Vec<_>, Vec<_>) = pairs().unzip();
        bench.report.rounds(format!("self_service_flooded_{name}_us"), &with);
        bench.report.rounds(format!("self_service_quiet_{name}_us"), &without);
    }
    bench.site.stack.signal(&admin, "KILL");
    bench.site.stack.stop(&admin);
    running.stop(&bench.site.stack);
}

fn ratio_of(name: &str) -> &'static str {
    match name {
        "p50" => "self_service_flooded_vs_quiet_p50",
        "p99" => "self_service_flooded_vs_quiet_p99",
        _ => "self_service_flooded_vs_quiet_cpu",
    }
}

/// The requests of the flood, as they are sent. Half of them are hashed.
fn flood(address: &SocketAddr, session: &str) -> Vec<String> {
    let request = |method: &str, path: &str, headers: &str, body: &str| {
        let length = body.len();
        format!(
            "{method} {path} HTTP/1.1\r\nhost: {address}\r\nconnection: close\r\n{headers}\
             content-type: application/json\r\ncontent-length: {length}\r\n\r\n{body}"
        )
    };
    let authorization = format!("authorization: Bearer {session}\r\n");
    let wrong = |user| json!({ "email": format!("user-{user}@example.com"), "password": "a wrong password" });
    let sign_in = |user| request("POST", "/api/sessions", "", &wrong(user).to_string());
    let list = request("GET", "/api/pats?limit=100&status=all", &authorization, "");
    let malformed = request("POST", "/api/pats", &authorization, "{\"name\": [");
    vec![sign_in(0), list, sign_in(1), malformed]
}

/// Sends a request, and reads the answer, whatever it is.
fn send(address: &SocketAddr, request: &str) {
    let Ok(mut stream) = TcpStream::connect(address) else { return };
    let _ = stream.write_all(request.as_bytes());
    let _ = stream.read_to_end(&mut Vec::new());
}
