//! The cost of reading a body and a query: no allocation, a time proportional to the length, and at
//! most a fixed factor between contents.
//!
//! A separate program, because counting needs its own allocator.

mod search;

use std::hint::black_box;

use patgate::{
    body,
    request::{self, RequestParts},
};
use patgate_testing::costly_bodies::{Costly, Form, bodies, targets};
use rustix::time::{ClockId, clock_gettime};

fn read(form: Form, target: &str, bytes: &[u8], encoding: Option<&str>) -> bool {
    let header = |name: &str| match name {
        "content-type" => Some(form.media_type()),
        "content-encoding" => encoding,
        "x-envoy-auth-partial-body" => Some("false"),
        _ => None,
    };
    let parts = RequestParts {
        method: "POST",
        authority: "gateway",
        target,
        header,
        body: bytes,
        stream: b"",
    };
    let form = match form {
        Form::Json => body::BodyForm::Json,
        Form::Multipart => body::BodyForm::Multipart,
    };
    black_box(request::model(target, parts.shown(), form, &mut |_| Ok(()))).is_ok()
}

/// Nanoseconds of this thread, the minimum of a few runs: a busy machine affects both less.
fn fastest(runs: usize, mut work: impl FnMut()) -> i64 {
    let now = || {
        let time = clock_gettime(ClockId::ThreadCPUTime);
        time.tv_sec * 1_000_000_000 + time.tv_nsec
    };
    let run = |_| {
        let start = now();
        work();
        now() - start
    };
    (0..runs).map(run).min().unwrap_or_default()
}

#[test]
fn allocates_nothing() {
    for Costly { name, form, bytes, encoding, decoded, good } in bodies(100_000) {
        let mut read_it = false;
        let read = || read_it = read(form, "/a", &bytes, encoding);
        let counted = allocation_counter::measure(read);
        assert_eq!(read_it, good, "{name}");
        if encoding.is_none() {
            assert_eq!(counted.count_total, 0, "{name}");
            continue;
        }
        // The decoded body, at once, and the state of the decoder. zstd's own state is not counted
        // here. A frame that does not state its length gets the maximum.
        let said = good && name != "zstd, small blocks";
        let most = if said { decoded + 256 * 1024 } else { bytes.len() * 100 + 64 * 1024 };
        assert!(counted.count_total <= 3, "{name}: {}", counted.count_total);
        assert!(counted.bytes_max <= most as u64, "{name}: {}", counted.bytes_max);
    }
    for (name, target) in targets(30_000) {
        let counted = allocation_counter::measure(|| _ = read(Form::Json, &target, b"{}", None));
        assert_eq!(counted.count_total, 0, "{name}");
    }
}

#[test]
fn takes_time_in_proportion() {
    for (small, large) in bodies(100_000).into_iter().zip(bodies(1_000_000)) {
        let micros = |body: &Costly| {
            let read = || _ = read(body.form, "/a", &body.bytes, body.encoding);
            (fastest(5, read) / 1000).max(20)
        };
        let name = small.name;
        let small = micros(&small);
        let large = micros(&large);
        println!("{name}: 100 KB {small} µs, 1 MB {large} µs");
        // Ten times the work, with room for caches; quadratic time would be a hundred times.
        assert!(large < small * 30, "{name}: {small} µs, {large} µs");
    }
}

/// The limit, as a multiple of a loop over the bytes, in an unoptimised build, as tests are. The
/// costliest content takes half of that. If every name were compared with each important one, as in
/// an earlier release, it would be many hundred.
const MOST: f64 = 80.0;

/// The time of reading, as a multiple of a loop over as many bytes. Decoded bytes count also.
fn cost(target: &str, body: &Costly) -> f64 {
    let bytes = [target.as_bytes(), &body.bytes, &vec![0; body.decoded]].concat();
    let plain = || {
        let mut sum = 0_u64;
        for byte in &bytes {
            sum = sum.wrapping_mul(31).wrapping_add(u64::from(*byte));
        }
        black_box(sum);
    };
    let reading = fastest(5, || _ = read(body.form, target, &body.bytes, body.encoding));
    reading as f64 / fastest(5, plain) as f64
}

fn plain(form: Form, text: &str) -> Costly {
    let name = "plain";
    let bytes = text.as_bytes().to_vec();
    Costly { name, form, bytes, encoding: None, decoded: 0, good: true }
}

#[test]
fn no_content_costs_more_than_its_length() {
    let mut costs = Vec::new();
    for body in bodies(100_000) {
        costs.push((cost("/a", &body), body.name.to_owned()));
    }
    for (name, target) in targets(30_000) {
        costs.push((cost(&target, &plain(Form::Json, "")), format!("a query of {name}")));
    }
    costs.sort_by(|one, other| other.0.total_cmp(&one.0));
    for (cost, name) in &costs {
        println!("{cost:.1} {name}");
    }
    assert!(costs[0].0 < MOST, "{}: {:.1}", costs[0].1, costs[0].0);
}

#[test]
fn no_search_finds_a_costlier_one() {
    for kind in search::KINDS {
        let read_whole = std::cell::Cell::new(false);
        let (most, (target, body)) = kind.costliest(|target, body| {
            let whole = target.len() > 2 || read(kind.form, target, body.as_bytes(), None);
            read_whole.set(read_whole.get() || whole);
            cost(target, &plain(kind.form, body))
        });
        println!("{most:.1} {}: {target:.200} {body:.200}", kind.name);
        assert!(most < MOST, "{most:.1} {}: {target:.200} {body:.200}", kind.name);
        // A search among contents that are refused at once finds nothing.
        assert!(read_whole.get(), "{}", kind.name);
    }
}
