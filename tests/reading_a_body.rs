//! What reading a body costs: no allocation, and time in proportion to its length.
//!
//! A program of its own, because counting needs an allocator of its own.

use std::hint::black_box;

use patgate::body::{Body, Form};
use rustix::time::{ClockId, clock_gettime};

/// Bodies of about `size` bytes, each the worst of its kind; all but the last three name a model.
fn bodies(size: usize) -> Vec<(&'static str, Form, String)> {
    let object = |member: &str| {
        let members = member.repeat(size / member.len());
        format!("{{{members}\"model\":\"org\\/m\"}}")
    };
    let string = |inside: &str| format!("{{\"a\":\"{inside}\",\"model\":\"m\"}}");
    let array = |element: &str| {
        let elements = element.repeat(size / element.len());
        format!("{{\"a\":[{elements}0],\"model\":\"m\"}}")
    };
    let part = |content: &str| {
        format!("--b\r\nContent-Disposition: form-data; name=\"file\"\r\n\r\n{content}\r\n")
    };
    let model = "--b\r\nContent-Disposition: form-data; name=\"model\"\r\n\r\nm\r\n--b--\r\n";
    let many = part("").repeat(size / part("").len());
    let deep = format!("{}{},", "[".repeat(98), "]".repeat(98));
    let spaced = |count: usize| part("").replace("; name", &format!(";{} name", " ".repeat(count)));
    vec![
        ("one string", Form::Json, string(&"x".repeat(size))),
        ("white space", Form::Json, object(&" ".repeat(size))),
        ("escapes", Form::Json, string(&"\\u00e9".repeat(size / 6))),
        ("small members", Form::Json, object("\"\":0,")),
        ("near misses", Form::Json, object("\"mode\\u006d\":0,")),
        ("numbers", Form::Json, array("1,")),
        ("a long number", Form::Json, format!("{{\"a\":{},\"model\":\"m\"}}", "1".repeat(size))),
        ("up and down", Form::Json, array(&deep)),
        ("many parts", Form::Multipart, format!("{many}{model}")),
        ("near delimiters", Form::Multipart, part(&"\r\n--\r\n-".repeat(size / 7)) + model),
        ("long headers", Form::Multipart, spaced(4000).repeat(size / spaced(4000).len()) + model),
        ("never closed", Form::Json, format!("{{\"a\":\"{}", "\\\\".repeat(size / 2))),
        ("too deep", Form::Json, format!("{{\"a\":{}", "[".repeat(size))),
        ("a header of spaces", Form::Multipart, spaced(size) + model),
    ]
}

fn read(form: Form, text: &str) -> bool {
    let media_type = match form {
        Form::Json => "application/json",
        _ => "multipart/form-data; boundary=b",
    };
    let (partial, media_type) = (Some("false"), Some(media_type));
    let body = Body { bytes: text.as_bytes(), partial, media_type, ..Body::default() };
    black_box(body.model(form)).is_ok()
}

#[test]
fn allocates_nothing() {
    for (name, form, text) in bodies(100_000) {
        let mut good = false;
        let counted = allocation_counter::measure(|| good = read(form, &text));
        assert_eq!(counted.count_total, 0, "{name}");
        let refused = matches!(name, "never closed" | "too deep" | "a header of spaces");
        assert_eq!(good, !refused, "{name}");
    }
}

#[test]
fn takes_time_in_proportion() {
    for ((name, form, small), (_, _, large)) in bodies(100_000).into_iter().zip(bodies(1_000_000)) {
        // The fastest of a few, in this thread's own time: a busy machine disturbs both less.
        let now = || {
            let time = clock_gettime(ClockId::ThreadCPUTime);
            time.tv_sec * 1_000_000_000 + time.tv_nsec
        };
        let fastest = |text: &str| {
            let run = |_| {
                let start = now();
                read(form, text);
                (now() - start) / 1000
            };
            (0..5).map(run).min().unwrap_or_default().max(20)
        };
        let (small, large) = (fastest(&small), fastest(&large));
        println!("{name}: 100 KB {small} µs, 1 MB {large} µs");
        // Ten times the work, with room for caches; a square would be a hundred.
        assert!(large < small * 30, "{name}: {small} µs, {large} µs");
    }
}
