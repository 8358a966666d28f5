//! A configuration with anything missing, or of another type, is read without a panic.

#![allow(missing_docs, clippy::unwrap_used, reason = "a test")]

#[path = "corpus/corpus.rs"]
mod corpus;

use patgate_doctor::{Hints, examine};
use serde_json::{Value, json};

use self::corpus::{base, dump};

/// Every pointer to a value in a document.
fn pointers(value: &Value, at: &str, found: &mut Vec<String>) {
    let children: Vec<(String, &Value)> = match value {
        Value::Object(fields) => fields.iter().map(|(key, value)| (key.clone(), value)).collect(),
        Value::Array(items) => {
            items.iter().enumerate().map(|(at, value)| (at.to_string(), value)).collect()
        }
        _ => Vec::new(),
    };
    for (key, child) in children {
        let pointer = format!("{at}/{}", key.replace('~', "~0").replace('/', "~1"));
        pointers(child, &pointer, found);
        found.push(pointer);
    }
}

#[test]
fn nothing_that_is_damaged_makes_it_panic() {
    for (name, every) in [("istio", 4), ("envoy-gateway", 4), ("single-step.yaml", 61)] {
        let whole = dump::of(&base(name));
        let mut places = Vec::new();
        pointers(&whole, "", &mut places);
        assert!(places.len() > 300, "{}", places.len());
        for (number, place) in places.iter().enumerate().step_by(every) {
            let others =
                [json!(null), json!("text"), json!(-1), json!([null]), json!({ "@type": 1 })];
            let mut damaged = whole.clone();
            *damaged.pointer_mut(place).unwrap() = others[number % others.len()].clone();
            if let Ok(report) = examine(&damaged, &Hints::default()) {
                let _ = (report.sarif("file", "0"), patgate_doctor::report::reported(&report));
            }
        }
    }
}
