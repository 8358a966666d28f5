//! Bodies that clients send although a standard or some reader forbids them. patgate reads the
//! model if all readers that accept the body read the same one.

use super::table::{
    AUDIO, BAD_FORM, BAD_JSON, Case, Expected, M, MODEL, NO_NAME, REPEATED, UNSCOPED, json, parts,
};

pub(super) fn oddities() -> Vec<Case> {
    let mut cases = of_json();
    cases.extend(of_forms());
    cases.extend(of_types());
    cases
}

fn of_json() -> Vec<Case> {
    let mut cases = vec![
        json("a byte order mark", "\u{feff}{\"model\":\"m\"}", M),
        json("a byte order mark, in chunks", "\u{feff}{\"model\":\"m\"}", M).chunked(),
        json("two byte order marks", "\u{feff}\u{feff}{\"model\":\"m\"}", BAD_JSON),
        json("a byte order mark inside", "{\u{feff}\"model\":\"m\"}", BAD_JSON),
    ];
    for (body, expected) in [
        (r#"{"model":"m","a":NaN}"#, M),
        (r#"{"temperature":Infinity,"model":"m"}"#, M),
        (r#"{"model":"m","a":[-Infinity,NaN]}"#, M),
        (r#"{"model":"m","a":-NaN}"#, BAD_JSON),
        (r#"{"model":"m","a":nan}"#, BAD_JSON),
        (r#"{"model":NaN}"#, NO_NAME),
        (r#"{"model":"m","a":NaN,"model":"n"}"#, REPEATED),
        (r#"{"messages":[{"content":"cut \ud83d"}],"model":"m"}"#, M),
        (r#"{"messages":[{"content":"\ude00 cut"}],"model":"m"}"#, M),
        (r#"{"model":"m","a":"\ud83d\ud83d\ude00"}"#, M),
        (r#"{"model":"m","a":"\ud83d\u0022,\u0022model\u0022:\u0022n"}"#, M),
        (r#"{"model":"m","a":"\ud83d\\"}"#, M),
        (r#"{"model":"m","a":"\ud83d\",\"model\":\"n"}"#, M),
        (r#"{"model":"m","a":"\ud800","model":"n"}"#, REPEATED),
        (r#"{"model":"m","mod\ud800el":"n"}"#, BAD_JSON),
        (r#"{"model\ud800":"n","model":"m"}"#, BAD_JSON),
    ] {
        cases.push(json(&format!("odd {body}"), body, expected));
    }
    cases
}

/// File names, after a part's own name.
fn of_forms() -> Vec<Case> {
    let named = |parameters: &str, expected: Expected| {
        let part = format!("Content-Disposition: form-data; {parameters}\r\n\r\nn");
        Case::new(&format!("file: {parameters}"), AUDIO, parts(&[&part, MODEL]), expected)
            .header("content-type", "multipart/form-data; boundary=b1")
    };
    vec![
        named("name=\"file\"; filename=\"a;b.wav\"", M),
        named("name=\"file\"; filename=\"a; b; c.wav\"", M),
        named("name=\"file\"; filename=\"a \\\"b\\\".wav\"", M),
        named("name=\"file\"; filename=\"C:\\a\\b.wav\"", M),
        named("name=\"file\"; filename=\"a%22b;.wav\"", M),
        named("name=\"file\"; filename=\"a;b.wav\"; filename*=utf-8''a%3Bb.wav", M),
        named("name=\"file\"; filename=\"a=b.wav\"", M),
        named("name=\"file\"; filename=\"a;name=model.wav\"", BAD_FORM),
        named("name=\"file\"; filename=\"a;b=c.wav\"", BAD_FORM),
        named("name=\"file\"; filename=\"a\\\"; name=model; x=\\\".wav\"", BAD_FORM),
        named("name=\"file\"; filename=\"a\\\"", BAD_FORM),
        named("name=\"file\"; filename=\"a;b.wav", BAD_FORM),
        named("name=\"model\"; filename=\"a;b\"", NO_NAME),
    ]
}

/// Ollama reads JSON, whatever the declared type is.
fn of_types() -> Vec<Case> {
    let mut cases = Vec::new();
    for media_type in [
        "application/x-www-form-urlencoded",
        "text/plain",
        "text/plain;charset=UTF-8",
        "application/json; charset=utf-16",
        "multipart/form-data; boundary=b",
        "a/b, c/d",
    ] {
        let case = |body: &str, expected| {
            let name = format!("Ollama: {media_type}: {body}");
            Case::new(&name, "/proxy/acme/api/show", body, expected)
                .header("content-type", media_type)
        };
        cases.push(case(r#"{"model":"m"}"#, M));
        cases.push(case(r#"{"model":"n"}"#, UNSCOPED));
        cases.push(case("model=m", BAD_JSON));
    }
    let untyped = |path, expected| Case::new(path, path, r#"{"model":"m"}"#, expected);
    cases.push(untyped("/proxy/acme/api/show", M));
    cases.push(untyped("/proxy/acme/api/pull", M));
    cases
}
