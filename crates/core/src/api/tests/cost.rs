//! Finding a rule takes as long among many as among few.

use std::hint::black_box;

use rustix::time::{ClockId, clock_gettime};

use super::*;

/// This thread's own time, in nanoseconds: a busy machine disturbs it less.
fn now() -> i64 {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    time.tv_sec * 1_000_000_000 + time.tv_nsec
}

/// What finding costs, among as many rules: nanoseconds a request, the least of some rounds.
fn cost(apis: &Apis, rules: usize) -> f64 {
    let paths: Vec<_> =
        (0..256).map(|at| format!("/p/acme/things/kind-{}/7/parts/9", at * 31 % rules)).collect();
    let started = now();
    for path in &paths {
        let api = apis.find(black_box("gateway"), path).unwrap();
        black_box(api.rule("GET", path).unwrap());
    }
    (now() - started) as f64 / paths.len() as f64
}

fn table(count: usize) -> Apis {
    let rules: String = (0..count)
        .map(|at| {
            format!(
                "- {{ methods: [GET], path: \"/things/kind-{at}/{{id}}/parts/{{part}}\", \
                 operation: read, entity: scim, id: path.part }}\n"
            )
        })
        .collect();
    compile(&format!("{HEAD}rules:\n{rules}")).unwrap()
}

#[test]
fn ten_thousand_rules_cost_what_ten_do() {
    let few = table(10);
    let many = table(10_000);
    let least = |apis: &Apis, rules| (0..50).map(|_| cost(apis, rules)).fold(f64::MAX, f64::min);
    let few = least(&few, 10);
    let many = least(&many, 10_000);
    println!("10 rules {few:.0} ns, 10,000 rules {many:.0} ns, ratio {:.2}", many / few);
    // A thousandfold by a walk along the rules; memory that is not in a cache may cost a little.
    assert!(many / few < 5.0, "{few} ns, {many} ns");
}

/// The search for the nearest rule gives up, so a token that is denied costs no more where an API
/// has many rules. The paths are those that are compared for longest: many segments, each nearly
/// one that rules have; and the longest.
#[test]
fn the_nearest_of_ten_thousand_rules_costs_what_that_of_a_thousand_does() {
    let some = table(1_000);
    let many = table(10_000);
    for (name, below) in [
        ("misspelt", "/thingz/partz".repeat(20)),
        ("many segments", "/a".repeat(2000)),
        ("one long segment", format!("/{}", "a".repeat(4000))),
    ] {
        let path = format!("/p/acme{below}");
        let cost = |apis: &Apis| {
            let started = now();
            black_box(apis.nearest("gateway", black_box("GET"), &path, true));
            (now() - started) as f64
        };
        let least = |apis: &Apis| (0..50).map(|_| cost(apis)).fold(f64::MAX, f64::min);
        let some = least(&some);
        let many = least(&many);
        println!("{name}: 1,000 rules {some:.0} ns, 10,000 rules {many:.0} ns");
        assert!(many / some < 3.0, "{name}: {some} ns, {many} ns");
    }
}
