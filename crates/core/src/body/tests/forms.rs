use std::cell::Cell;

use proptest::{
    prelude::*,
    sample::select,
    test_runner::{Config, TestRunner},
};

use super::{Body, BodyForm, NoModel, told};

pub(super) const BAD_FORM: NoModel = NoModel::MalformedForm { part: 0 };
pub(super) const FORM: &str = "multipart/form-data; boundary=b-1";
const FILE: &str = "Content-Disposition: form-data; name=\"file\"; filename=\"a.wav\"\r\nContent-Type: audio/wav\r\n\r\nRIFF\0\r\n--b\r\n--b-";
const MODEL: &str = "Content-Disposition: form-data; name=\"model\"\r\n\r\nm";

fn form(parts: &[&str]) -> String {
    let parts: String = parts.iter().map(|part| format!("--b-1\r\n{part}\r\n")).collect();
    format!("{parts}--b-1--\r\n")
}

fn read(media_type: &str, text: &str) -> Result<String, NoModel> {
    let partial = Some("false");
    let media_type = Some(media_type);
    let body = Body { bytes: text.as_bytes(), partial, media_type, ..Default::default() };
    told(body.model(BodyForm::Multipart))
}

#[test]
fn forms() {
    let part = |head: &str, content: &str| format!("{head}\r\n\r\n{content}");
    let named = |name: &str| part(&format!("Content-Disposition: form-data; {name}"), "m");
    let ok = Ok("m".to_owned());
    for parts in [
        &[MODEL][..],
        &[FILE, MODEL],
        &[MODEL, FILE],
        &[&named("name=model"), FILE],
        &[
            "content-disposition:Form-Data;name=\"model\"\r\ncontent-type: text/plain; charset=UTF-8\r\n\r\nm",
        ],
        &[&part(
            "Content-Disposition: form-data; name=\"model\"\r\nContent-Length: 1\r\nContent-Transfer-Encoding: 8bit",
            "m",
        )],
        &[
            &part(
                "Content-Disposition: form-data; name=\"file\"; filename=\"é.wav\"; filename*=utf-8''%c3%a9.wav",
                "x",
            ),
            MODEL,
        ],
        &[
            &named("name=\"timestamp_granularities[]\""),
            &named("name=\"timestamp_granularities[]\""),
            MODEL,
        ],
        &[&named("name=\"model_name\""), MODEL],
        &[&named("name=\"a\"; filename=\"x;y.wav\""), MODEL],
        &[&named("name=\"a\"; filename=\"x; y\\\"z\\\".wav\""), MODEL],
        &[&named("name=\"a\"; filename=\"x\"y\".wav\""), MODEL],
        &[&named("name=\"a\"; filename=\"C:\\x\\y.wav\""), MODEL],
        &[&named("name=\"a\"; filename=\"x\\\\\""), MODEL],
        &[&named("name=\"a\"; filename=\"x;y\"; filename*=utf-8''x%3By"), MODEL],
        &[&named("name=\"a\"; filename*=utf-8''x%3By; filename=\"x;y\""), MODEL],
        &[&named("name=\"a\"; filename=\"x=y.wav\""), MODEL],
    ] {
        assert_eq!(read(FORM, &form(parts)), ok, "{parts:?}");
    }
    for name in
        ["name=\"Model\"", "name=MODEL", "name=\"model[]\"", "name=\"model.x\"", "name=\"model\""]
    {
        assert_eq!(read(FORM, &form(&[MODEL, &named(name)])), Err(NoModel::Repeated), "{name}");
    }
    assert_eq!(read(FORM, &form(&[&named("name=\"Model\"")])), Err(NoModel::Repeated));
    for name in ["name=\"models\"", "name=\"Models[]\"", "name=models"] {
        let rival = Err(NoModel::Rival("models"));
        assert_eq!(read(FORM, &form(&[MODEL, &named(name)])), rival, "{name}");
    }
    assert_eq!(read(FORM, &form(&[FILE])), Err(NoModel::Absent));
    assert_eq!(read(FORM, "--b-1--\r\n"), Err(NoModel::Absent));
    for odd in [
        part("Content-Disposition: form-data; name=\"model\"", ""),
        part("Content-Disposition: form-data; name=\"model\"", "m\r\n"),
        part("Content-Disposition: form-data; name=\"model\"; filename=\"m\"", "m"),
        part(
            "Content-Disposition: form-data; name=\"model\"\r\nContent-Type: text/plain; charset=utf-16",
            "m",
        ),
        part(
            "Content-Disposition: form-data; name=\"model\"\r\nContent-Type: application/json",
            "\"m\"",
        ),
    ] {
        assert_eq!(read(FORM, &form(&[&odd])), Err(NoModel::NotAName), "{odd}");
    }
    for name in [
        "name=\" model\"",
        "name=\"model \"",
        "name=\"mod%65l\"",
        "name=\"mo\\del\"",
        "name=\"\"",
        "name=",
        "name=\"model",
        "name=\"a\"; name=\"model\"",
        "name=\"model\"; name=\"a\"",
        "name*=utf-8''model",
        "name=\"a\"; name*=utf-8''model",
        "filename=\"model\"; name=\"a\"",
        "name=\"a\"; filename=\"x; name=model\"",
        "name=\"a\"; filename=\"x\\\"; name=\\\"model\"",
        "name=\"a\"; filename=\"x\"; filename=\"y\"",
        "name=\"a\"; filename=\"x;y=z\"",
        "name=\"a\"; filename=\"x\\\"y=z\"",
        "name=\"a\"; filename=\"x\"y=z\"",
        "name=\"a\"; filename=\"x;y\"; name=\"model\"",
        "name=\"a\"; filename=\"x;y",
        "name=\"a\"; filename=\"x\\\"",
        "name=\"a\"; filename=x;y",
        "name=\"a\"; filename*=\"x;y\"",
        "name=\"a\"; x=\"y\"",
        "NAME=\"model\"",
        "name =\"model\"",
        "name= \"model\"",
        "name=\"a\" name=\"model\"",
        "name=\"a\";",
        "name=\"[model]\"",
        "name=\"_charset_\"",
        "",
    ] {
        assert_eq!(read(FORM, &form(&[MODEL, &named(name)])), Err(BAD_FORM), "{name}");
    }
    for odd in [
        "Content-Disposition: form-data; name=\"a\"\r\nContent-Disposition: form-data; name=\"model\"\r\n\r\nm",
        "Content-Disposition: form-data;\r\n name=\"model\"\r\n\r\nm",
        "Content-Disposition : form-data; name=\"model\"\r\n\r\nm",
        "Content-Disposition: attachment; name=\"model\"\r\n\r\nm",
        "Content-Disposition: form-data; name=\"a\"\nX: y\r\n\r\nm",
        "Content-Disposition: form-data; name=\"a\"\rX: y\r\n\r\nm",
        "Content-Disposition: form-data; name=\"a\"\r\nX: \0\r\n\r\nm",
        "Content-Disposition: form-data; name=\"a\"\r\nContent-Transfer-Encoding: quoted-printable\r\n\r\nm",
        "Content-Disposition: form-data; name=\"a\"\r\nContent-Transfer-Encoding: base64\r\n\r\nbQ==",
        "Content-Disposition: form-data; name=\"a\"\r\nContent-Length: 7\r\n\r\nm",
        "Content-Disposition: form-data; name=\"a\"\r\nContent-Length: +1\r\n\r\nm",
        // What some reader understands, and others do not.
        "Content-Disposition: form-data; name=\"a\"\r\nX: y\r\n\r\nm",
        "Content-Disposition: form-data; name=\"a\"\r\nContent-Encoding: gzip\r\n\r\nm",
        "X-Content-Disposition: form-data; name=\"model\"\r\nContent-Disposition: form-data; name=\"a\"\r\n\r\nm",
        "Content-Disposition: form-data; name=\"a\"\r\nContent-Type: Multipart/mixed; boundary=c\r\n\r\nm",
        "Content-Disposition: form-data; name=\"a\"\r\nContent-Type: \u{a0}multipart/mixed; boundary=c\r\n\r\nm",
        "Content-Disposition: form-data; name=\"a\"\r\nContent-Type: text/plain\r\nContent-Type: text/html\r\n\r\nm",
        "Content-Disposition: form-data; name=\"a\"\r\nno colon\r\n\r\nm",
        "Content-Disposition: form-data; name=\"a\"\r\n",
        "Content-Disposition: form-data; name=\"a\"",
        "\r\nm",
        "X: y\r\n\r\nm",
        "",
        // A delimiter that some would see, others not.
        "Content-Disposition: form-data; name=\"a\"\r\n\r\nx\n--b-1\nContent-Disposition: form-data; name=\"model\"\n\nn",
        "Content-Disposition: form-data; name=\"a\"\r\n\r\nx\r\n--b-1x",
        "Content-Disposition: form-data; name=\"a\"\r\n\r\nx\r\n--b-1 \r\n",
        "Content-Disposition: form-data; name=\"a\"\r\n\r\nx--b-1",
        "Content-Disposition: form-data; name=\"a\"\r\n\r\nx\r\n--b-1--\r\nepilogue",
        "Content-Disposition: form-data; name=\"a\"\r\n\r\nx\r\n--b-1-\r\n",
    ] {
        assert_eq!(read(FORM, &form(&[MODEL, odd])), Err(BAD_FORM), "{odd:?}");
    }
    // As long as all readers keep, and a byte longer.
    for (length, expected) in [(4096, ok.clone()), (4097, Err(BAD_FORM))] {
        let head = "Content-Disposition: form-data;";
        let tail = "name=\"a\"\r\n\r\n";
        let spaces = " ".repeat(length - head.len() - tail.len());
        assert_eq!(read(FORM, &form(&[MODEL, &format!("{head}{spaces}{tail}x")])), expected);
    }
    let good = form(&[FILE, MODEL]);
    for end in 1..good.len() - 2 {
        assert_eq!(read(FORM, &good[..end]), Err(BAD_FORM), "{end}");
    }
    assert_eq!(read(FORM, &good[..good.len() - 2]), ok);
    for (before, after) in
        [("preamble\r\n", ""), ("\r\n", ""), ("\n", ""), ("", "x"), ("", "\r\n"), ("", "--b-1")]
    {
        assert!(read(FORM, &format!("{before}{good}{after}")).is_err(), "{before:?} {after:?}");
    }
    for (media_type, fits) in [
        (FORM, true),
        ("Multipart/Form-Data;Boundary=\"b-1\"", true),
        ("multipart/form-data", false),
        ("multipart/form-data; boundary=", false),
        ("multipart/form-data; boundary=\"b-1", false),
        ("multipart/form-data; boundary=b-1; boundary=c", false),
        ("multipart/form-data; boundary=b-1; charset=utf-16", false),
        ("multipart/form-data; charset=utf-8; boundary=b-1", false),
        ("multipart/form-data; boundary=b-1,multipart/form-data; boundary=c", false),
        ("multipart/form-data; boundary*=utf-8''b-1", false),
        ("multipart/mixed; boundary=b-1", false),
        ("application/x-www-form-urlencoded", false),
        ("application/json", false),
        ("", false),
    ] {
        let expected = if fits { ok.clone() } else { Err(NoModel::NotForm) };
        assert_eq!(read(media_type, &good), expected, "{media_type}");
    }
    let long = "b".repeat(70);
    let body = good.replace("b-1", &long);
    assert_eq!(read(&format!("multipart/form-data; boundary={long}"), &body), ok);
    assert_eq!(
        read(&format!("multipart/form-data; boundary={long}b"), &body),
        Err(NoModel::NotForm)
    );
}

/// If Envoy may have stopped showing a form, it may continue, and some readers would continue to
/// read.
#[test]
fn a_form_that_ends_where_showing_does_needs_its_length() {
    let padding = |length: usize| {
        let file = format!("{FILE}{}", "x".repeat(length - form(&[FILE, MODEL]).len()));
        form(&[&file, MODEL])
    };
    for (length, expected) in [(4095, Ok("m")), (4096, Err(NoModel::Endless)), (4097, Ok("m"))] {
        assert_eq!(read(FORM, &padding(length)), expected.map(str::to_owned), "{length}");
    }
    let text = padding(8192);
    let body = |length| Body {
        bytes: text.as_bytes(),
        partial: Some("false"),
        media_type: Some(FORM),
        length,
        ..Default::default()
    };
    assert_eq!(body(None).model(BodyForm::Multipart), Err(NoModel::Endless));
    assert_eq!(body(Some("8192")).model(BodyForm::Multipart).unwrap().as_str(), "m");
}

/// Forms of valid parts, and of typical errors in forms.
fn any_form() -> impl Strategy<Value = String> {
    let mostly = |right: &'static str, quirks: &'static [&'static str]| prop_oneof![19 => Just(right), 1 => select(quirks)];
    let disposition = prop_oneof![
        3 => Just("Content-Disposition: form-data; name=\"model\""),
        1 => Just("content-disposition:form-data;name=model"),
        4 => Just("Content-Disposition: form-data; name=\"file\"; filename=\"model\""),
        1 => Just("Content-Disposition: form-data; name=\"a.model\""),
        1 => select(vec![
            "Content-Disposition: form-data; name=\"Model\"",
            "Content-Disposition: form-data; name=\"model[]\"",
            "Content-Disposition: form-data; name=\" model\"",
            "Content-Disposition: form-data; name=\"a\"; name=\"model\"",
            "Content-Disposition: form-data; name=\"a\"; filename=\"x; name=model\"",
        ]),
    ];
    let more = mostly(
        "",
        &[
            "\r\nContent-Type: text/plain",
            "\r\nContent-Type: text/plain; charset=utf-8",
            "\r\nContent-Transfer-Encoding: binary",
            "\r\nContent-Length: 1",
            "\r\nX: y",
            "\r\n name=\"model\"",
            "\r\nX-Content-Disposition: form-data; name=\"model\"",
            "\r\nContent-Disposition: form-data; name=\"model\"",
            "\nContent-Disposition: form-data; name=\"model\"",
        ],
    );
    let empty_line = mostly("\r\n\r\n", &["\n\n", "\r\n", "\r\n \r\n"]);
    let content = prop_oneof![
        9 => select(vec!["m", "n", "o", "", "m\r\n", "\r\n--b-", "a\r\n\r\nname=model"]),
        1 => select(vec![
            "m\n--b-1\nContent-Disposition: form-data; name=\"model\"\n\nn",
            "m\r\n--b-1x\r\nContent-Disposition: form-data; name=\"model\"\r\n\r\nn",
            "m--b-1",
        ]),
    ];
    let line = mostly("\r\n", &["\n", " \r\n", "", "--\r\n"]);
    let part = (line, disposition, more, empty_line, content).prop_map(
        |(line, name, more, empty, content)| format!("--b-1{line}{name}{more}{empty}{content}\r\n"),
    );
    let end = mostly("--b-1--\r\n", &["--b-1--", "--b-1--\r\nx", "--b-1", "--b-1\r\n", ""]);
    let start = mostly("", &["x\r\n", "\r\n"]);
    (start, prop::collection::vec(part, 0..4), end)
        .prop_map(|(start, parts, end)| [start, &parts.concat(), end].concat())
}

/// What a careless reader finds: a part wherever a delimiter stands, and any `model` in it.
fn careless(form: &str) -> Vec<&str> {
    let mut models = Vec::new();
    for part in form.split("--b-1") {
        let ends = ["\r\n\r\n", "\n\n"].map(|end| Some((part.find(end)?, end.len())));
        let Some((end, length)) = ends.into_iter().flatten().min() else { continue };
        let named = |line: &str| {
            let mut pieces = line.split(';').filter_map(|piece| piece.trim().strip_prefix("name="));
            pieces.any(|name| name.trim_matches(['"', ' ']).starts_with("model"))
        };
        let head = part[..end].to_ascii_lowercase();
        if head.split(['\r', '\n']).any(|line| line.contains("disposition") && named(line)) {
            let content = &part[end + length..];
            models.push(content.strip_suffix("\r\n").unwrap_or(content));
        }
    }
    models
}

#[test]
fn a_careless_reader_agrees() {
    let allowed = Cell::new(0);
    let all = 4096;
    let config = Config { cases: all, source_file: Some(file!()), ..Config::default() };
    let outcome = TestRunner::new(config).run(&any_form(), |form| {
        if let Ok(model) = read(FORM, &form) {
            allowed.set(allowed.get() + 1);
            prop_assert_eq!(careless(&form), [model]);
        }
        Ok(())
    });
    outcome.unwrap();
    println!("a model in {} of {all} forms", allowed.get());
    assert!(allowed.get() > 100, "only {}", allowed.get());
}
