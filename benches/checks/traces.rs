//! What tracing costs a check while the receiver is silent: its connections are made, and nothing is
//! ever read from them.

use std::net::TcpListener;

use crate::{
    bench::{Bench, HOT, MANY, ask_all, chats},
    grpc::Connection,
    servers,
};

/// The calls of an Envoy that does not record the trace, and of one that records every trace.
const CALLS: [(&str, &str); 2] = [
    ("not_recorded", "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-00"),
    ("all_recorded", "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"),
];

pub(crate) fn measure(bench: &mut Bench) {
    eprintln!("traces, with a receiver that is silent, and without one");
    let mut database = bench.site.database("traces", 1);
    bench.site.issue(&mut database, HOT, 1);
    let requests = chats(&database.tokens);
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let endpoint = format!("http://{}", silent.local_addr().unwrap());
    let settings = [("TELEMETRY_OTLP_ENDPOINT", &*endpoint)];
    let traced = servers::patgate(&bench.site, &bench.launcher, &database, &settings);
    let plain = servers::patgate(&bench.site, &bench.launcher, &database, &[]);
    let servers = [&traced, &plain];
    servers.iter().for_each(|server| ask_all(server, &requests));
    for (name, traceparent) in CALLS {
        let plan = bench.plan;
        let dice = &mut bench.dice;
        let rounds = plan.alternate(|side| {
            let before = servers[side].cpu();
            let connection = Connection::open(&servers[side].tcp()).unwrap();
            let mut connection = connection.in_trace(traceparent);
            let tally = connection.run_for(plan.time, &requests, MANY, dice).unwrap();
            let cpu = (servers[side].cpu() - before).as_secs_f64();
            (tally.rate(), cpu / tally.checks as f64)
        });
        let name = format!("traces_{name}_silent_vs_off");
        bench.report.ratio(&name, rounds.iter().map(|(ours, theirs)| (ours.0, theirs.0)));
        let cpu = rounds.iter().map(|(ours, theirs)| (ours.1, theirs.1));
        bench.report.ratio(&format!("{name}_cpu"), cpu);
    }
    let lost = |result| traced.metric(&format!("patgate_spans_total{{result=\"{result}\"}}"));
    assert_eq!(lost("exported"), 0.0);
    bench.report.value("traces_spans_dropped", lost("dropped"));
    traced.stop(&bench.site.stack);
    plain.stop(&bench.site.stack);
}
