//! Measures whether a check costs more with more scopes, domains or rules. (For more tokens, see
//! memory.rs and cold.rs.)

use std::{fmt::Write as _, fs};

use crate::{
    bench::{Bench, HOT, ask_all, chats},
    grpc::Requests,
    requests::Check,
    servers::{self, Running},
    site::{Database, Issued},
};

pub(crate) const DOMAINS: usize = 1000;
pub(crate) const RULES: usize = 10_000;
const FEW_RULES: usize = 10;
pub(crate) const SCOPES: usize = 1000;

pub(crate) fn measure(bench: &mut Bench) {
    eprintln!("more of everything");
    let mut one = bench.site.database("one_domain", 1);
    bench.site.issue(&mut one, HOT, 1);
    let plain = start(bench, &one, &[]);
    let plain_requests = chats(&one.tokens);
    ask_all(&plain, &plain_requests);

    let mut many = bench.site.database("many_domains", DOMAINS);
    bench.site.issue(&mut many, HOT, DOMAINS);
    let wide = start(bench, &many, &[]);
    let wide_requests = chats(&many.tokens);
    ask_all(&wide, &wide_requests);
    bench.throughput("domains_1000_vs_1", [(&wide, &wide_requests), (&plain, &plain_requests)]);
    wide.stop(&bench.site.stack);
    plain.stop(&bench.site.stack);

    let [(wide, wide_requests), (narrow, narrow_requests)] = [SCOPES, 1].map(|scopes| {
        let scoped = scoped(bench, &format!("scopes_{scopes}"), scopes);
        let running = start(bench, &scoped, &[]);
        let requests = model_calls(&scoped.tokens[0], scopes);
        ask_all(&running, &requests);
        (running, requests)
    });
    bench.throughput("scopes_1000_vs_1", [(&wide, &wide_requests), (&narrow, &narrow_requests)]);
    wide.stop(&bench.site.stack);
    narrow.stop(&bench.site.stack);

    let [(long, long_requests), (short, short_requests)] = [RULES, FEW_RULES].map(|rules| {
        let table = table(bench, rules);
        let running = start(bench, &one, &[("APIS", &table)]);
        let requests = tool_calls(&one.tokens, rules);
        ask_all(&running, &requests);
        (running, requests)
    });
    bench.throughput("rules_10000_vs_10", [(&long, &long_requests), (&short, &short_requests)]);
    // Without the cost of requesting 10,000 paths instead of ten.
    let same = "rules_10000_vs_10_same_paths";
    bench.throughput(same, [(&long, &short_requests), (&short, &short_requests)]);
    long.stop(&bench.site.stack);
    short.stop(&bench.site.stack);
}

fn start(bench: &Bench, database: &Database, settings: &[(&str, &str)]) -> Running {
    servers::patgate(&bench.site, &bench.launcher, database, settings)
}

/// Writes an API with this many rules; returns the path of its file.
pub(crate) fn table(bench: &Bench, rules: usize) -> String {
    let mut text = "name: tools\nmount: /proxy/{domain}\nerrors: openai\nrules:\n".to_owned();
    for rule in 0..rules {
        let _ = writeln!(
            text,
            "  - {{ methods: [POST], path: \"/v1/tool-{rule}/{{call}}\", \
             operation: llm_chat_completions, entity: models, id: body.model }}"
        );
    }
    let path = bench.site.dir.path().join(format!("rules-{rules}.yaml"));
    fs::write(&path, text).unwrap();
    path.display().to_string()
}

/// Returns one call per token, each of some rule.
pub(crate) fn tool_calls(tokens: &[Issued], rules: usize) -> Requests {
    Requests::new(tokens.iter().enumerate().map(|(n, token)| {
        let path = format!("/proxy/{}/v1/tool-{}/run", token.domain, n % rules);
        Check::post(path, &token.text).encode()
    }))
}

/// Creates a database with one token, which has scopes on this many models and no others.
pub(crate) fn scoped(bench: &Bench, name: &str, scopes: usize) -> Database {
    let mut database = bench.site.database(name, 1);
    bench.site.issue(&mut database, 1, 1);
    database.narrow(&bench.site.runtime, scopes);
    database
}

/// Returns the same number of requests, however many scopes there are, each for one of their
/// models.
pub(crate) fn model_calls(token: &Issued, scopes: usize) -> Requests {
    Requests::new((0..SCOPES).map(|n| {
        let path = format!("/proxy/{}/v1/models/org/model-{:04}", token.domain, n % scopes);
        Check { method: "GET", ..Check::post(path, &token.text) }.encode()
    }))
}
