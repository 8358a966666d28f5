//! Says what docs/performance.md measures in a few lines, from the table there.

use crate::chart::{digits, figures};

/// Where the document says it.
pub(crate) const BEGIN: &str = "<!-- short:begin -->\n";
pub(crate) const END: &str = "<!-- short:end -->\n";

/// What is asked, and the answer, with the names of figures in braces.
const LINES: [(&str, &str); 6] = [
    (
        "processor time of a check",
        "{cpu_per_check_patgate_us} µs of one core when checks come 100 at a time, \
         {cpu_per_check_1_stream_patgate_us} µs when they come one by one",
    ),
    (
        "time of a check, one at a time, without Envoy (median)",
        "{grpc_1_stream_patgate_p50_us} µs if memory has the token, {cold_redis_p50_us} µs if only Redis \
         has it, {cold_postgres_p50_us} µs if only Postgres has it",
    ),
    (
        "memory of a replica",
        "{rss_idle_mib} MiB after its start, {rss_100k_tokens_mib} MiB with 100,000 tokens in use",
    ),
    (
        "requests per second through Envoy, with both on one core that is fully used",
        "{envoy_patgate_uds_per_second}; {envoy_no_auth_per_second} without any check. Envoy's part in \
         asking is most of the difference, with any service: it serves \
         {envoy_allow_all_uds_per_second} with a server that allows everything",
    ),
    (
        "99th percentile of their time then, with 32 connections",
        "{envoy_patgate_uds_p99_us} µs; {envoy_no_auth_p99_us} µs without any check",
    ),
    ("from the start of a replica until it is ready", "{ready_ms} ms"),
];

/// Returns a table of the lines whose figures are all in `table`.
pub(crate) fn summary(table: &str) -> String {
    let figures = figures(table);
    let value = |name: &str| Some(digits(figures.get(name)?.median));
    let lines = LINES.iter().filter_map(|(question, answer)| {
        let mut said = String::new();
        let mut rest = *answer;
        while let Some((before, (name, after))) =
            rest.split_once('{').and_then(|(before, named)| Some((before, named.split_once('}')?)))
        {
            said = said + before + &value(name)?;
            rest = after;
        }
        Some(format!("| {question} | {said}{rest} |\n"))
    });
    format!("| | |\n| --- | --- |\n{}", lines.collect::<String>())
}
