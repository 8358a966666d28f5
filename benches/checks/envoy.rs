//! Measures the cost of a check for a client, through a real Envoy.

use serde_json::{Value, json};

use crate::{
    bench::Bench,
    gateway::{self, Authz, Gateway},
    grpc::Target,
    http1,
    servers::{Running, cpu},
    site::Issued,
    statistics::quantile,
};

/// Connections of clients, each with one request at a time.
const CONNECTIONS: u64 = 32;

/// The filters between client and backend, in the order of measurement.
const WAYS: [&str; 12] = [
    "no_auth",
    "api_key_auth",
    "allow_all_uds",
    "allow_all_tcp",
    "patgate_uds",
    "patgate_tcp",
    "patgate_uds_guard",
    "patgate_uds_two_steps",
    "patgate_uds_few_headers",
    "patgate_uds_body",
    "patgate_uds_many_connections",
    "patgate_uds_small_windows",
];

struct Seen {
    rate: f64,
    p99: f64,
}

pub(crate) fn measure(
    bench: &mut Bench,
    patgate: &Running,
    allow_all: &Running,
    tokens: &[Issued],
) {
    eprintln!("through Envoy, {CONNECTIONS} connections");
    let backend = http1::backend();
    let asks = |target: Target, more, http2| {
        (vec![gateway::ext_authz(more)], Some(Authz { target, http2 }))
    };
    let guarded = |(mut filters, authz): (Vec<Value>, _)| {
        filters.push(gateway::guard());
        (filters, authz)
    };
    let none = || json!({});
    let uds = |server: &Running| Target::Unix(server.socket.clone());
    let ways: [(Vec<Value>, Option<Authz>); WAYS.len()] = [
        (Vec::new(), None),
        (vec![gateway::api_keys(tokens.iter().map(|token| &*token.text))], None),
        asks(uds(allow_all), none(), none()),
        asks(allow_all.tcp(), none(), none()),
        asks(uds(patgate), none(), none()),
        asks(patgate.tcp(), none(), none()),
        guarded(asks(uds(patgate), none(), none())),
        (gateway::two_steps(), Some(Authz { target: uds(patgate), http2: none() })),
        asks(uds(patgate), gateway::few_headers(), none()),
        asks(uds(patgate), gateway::with_body(), none()),
        asks(uds(patgate), none(), gateway::one_check_a_connection()),
        asks(uds(patgate), none(), gateway::small_windows()),
    ];
    let gateways = ways.map(|(filters, authz)| {
        gateway::start(&bench.site, &bench.launcher, backend, filters, authz)
    });
    let requests: Vec<_> = tokens.iter().map(http1::request).collect();
    let visit = |gateway: &Gateway| {
        let mut tally = http1::load(gateway.port, bench.plan.time, &requests, CONNECTIONS);
        Seen { rate: tally.rate(), p99: quantile(&mut tally.latencies, 0.99) / 1e3 }
    };
    // The first requests make connections to backend and server.
    for gateway in &gateways {
        visit(gateway);
    }
    let rounds: Vec<Vec<Seen>> = bench.plan.rounds(|round| {
        // Back again in the next round.
        if round.is_multiple_of(2) {
            return gateways.iter().map(visit).collect();
        }
        let mut seen: Vec<_> = gateways.iter().rev().map(visit).collect();
        seen.reverse();
        seen
    });

    let each = |name: &str, of: fn(&Seen) -> f64| -> Vec<f64> {
        let way = WAYS.iter().position(|way| *way == name).unwrap();
        rounds.iter().map(|round| of(&round[way])).collect()
    };
    let mut compare = |name: &str, ours: &str, theirs: &str, of: fn(&Seen) -> f64| {
        bench.report.ratio(name, each(ours, of).into_iter().zip(each(theirs, of)));
    };
    let rate = |seen: &Seen| seen.rate;
    let p99 = |seen: &Seen| seen.p99;
    compare("envoy_uds_vs_allow_all", "patgate_uds", "allow_all_uds", rate);
    compare("envoy_uds_p99_vs_allow_all", "patgate_uds", "allow_all_uds", p99);
    compare("envoy_tcp_vs_allow_all", "patgate_tcp", "allow_all_tcp", rate);
    compare("envoy_tcp_p99_vs_allow_all", "patgate_tcp", "allow_all_tcp", p99);
    compare("envoy_uds_vs_no_auth", "patgate_uds", "no_auth", rate);
    compare("envoy_tcp_vs_no_auth", "patgate_tcp", "no_auth", rate);
    compare("envoy_api_key_auth_vs_no_auth", "api_key_auth", "no_auth", rate);
    compare("envoy_uds_vs_tcp", "patgate_uds", "patgate_tcp", rate);
    compare("envoy_guard_vs_none", "patgate_uds_guard", "patgate_uds", rate);
    // These requests need no body: the second filter does nothing.
    compare("envoy_two_steps_vs_one", "patgate_uds_two_steps", "patgate_uds", rate);
    compare("envoy_few_headers_vs_all", "patgate_uds_few_headers", "patgate_uds", rate);
    compare("envoy_body_vs_none", "patgate_uds_body", "patgate_uds", rate);
    compare("envoy_many_connections_vs_one", "patgate_uds_many_connections", "patgate_uds", rate);
    compare("envoy_small_windows_vs_default", "patgate_uds_small_windows", "patgate_uds", rate);
    for way in WAYS {
        bench.report.rounds(format!("envoy_{way}_per_second"), &each(way, rate));
        bench.report.rounds(format!("envoy_{way}_p99_us"), &each(way, p99));
    }
    what_is_busy(bench, &gateways[0], &requests);
    for gateway in gateways {
        bench.site.stack.stop(&gateway.server);
    }
}

/// Without a filter, Envoy is fastest. If Envoy is still the busy part then, the client never is.
fn what_is_busy(bench: &mut Bench, gateway: &Gateway, requests: &[Vec<u8>]) {
    let before = cpu(gateway.server.pid);
    let tally = http1::load(gateway.port, bench.plan.time, requests, CONNECTIONS);
    let busy = (cpu(gateway.server.pid) - before).as_secs_f64() / tally.took.as_secs_f64();
    bench.report.value("envoy_no_auth_cores_busy", busy);
}
