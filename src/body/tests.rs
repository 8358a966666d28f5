use std::fmt;

use proptest::prelude::*;
use serde::de::{Deserializer, IgnoredAny, MapAccess, Visitor};

use super::*;

fn json(text: &str) -> Result<String, NoModel> {
    let body = Body {
        bytes: text.as_bytes(),
        partial: Some("false"),
        media_type: Some("application/json"),
        ..Default::default()
    };
    body.model(Form::Json).map(|name| name.as_str().to_owned())
}

fn check(cases: &[(&str, Result<&str, NoModel>)]) {
    for (text, expected) in cases {
        assert_eq!(json(text), expected.map(str::to_owned), "{text:.80}");
    }
}

#[test]
fn where_the_model_stands() {
    check(&[
        (r#"{"model":"m"}"#, Ok("m")),
        (" {\t\"model\"\r\n: \"m\" } \n", Ok("m")),
        (r#"{"model":"m","messages":[]}"#, Ok("m")),
        (r#"{"messages":[{"role":"user","content":"x"}],"model":"m"}"#, Ok("m")),
        (r#"{"a":{"model":"n"},"b":["model","n"],"model":"m","c":"\"model\":\"n\""}"#, Ok("m")),
        (r#"{"model ":"n"," model":"n","model1":"n","mode":"n","":"n","model":"m"}"#, Ok("m")),
        (r#"{"\u006dod\u0065l":"m"}"#, Ok("m")),
        (r#"{"a":{"b":{"c":[[],{},[{}]]}},"model":"m"}"#, Ok("m")),
        ("{}", Err(NoModel::Absent)),
        (r#"{"a":{"model":"m"}}"#, Err(NoModel::Absent)),
        (r#"{"models":["m"]}"#, Err(NoModel::Absent)),
    ]);
}

#[test]
fn one_model_and_one_spelling() {
    let repeated = Err(NoModel::Repeated);
    check(&[
        (r#"{"model":"m","model":"m"}"#, repeated),
        (r#"{"model":"m","a":1,"model":"n"}"#, repeated),
        (r#"{"model":"m","mod\u0065l":"n"}"#, repeated),
        (r#"{"mod\u0065l":"m","model":"n"}"#, repeated),
        (r#"{"Model":"m"}"#, repeated),
        (r#"{"MODEL":"m","model":"n"}"#, repeated),
        (r#"{"model":"m","mOdEl":"n"}"#, repeated),
        (r#"{"model":"m","\u004dodel":"n"}"#, repeated),
        (r#"{"model":"m","model\u0000":"n"}"#, repeated),
        (r#"{"model\u0000x":"n"}"#, repeated),
        // Neither of these is folded to a letter of ours.
        ("{\"model\":\"m\",\"ｍodel\":\"n\",\"mοdel\":\"n\"}", Ok("m")),
    ]);
}

#[test]
fn what_can_be_a_name() {
    let no = Err(NoModel::NotAName);
    let (long, longer) = ("x".repeat(256), "x".repeat(257));
    let wide = "𝔪".repeat(256);
    for (name, fits) in [(&long, true), (&longer, false), (&wide, true)] {
        let expected = if fits { Ok(name.as_str()) } else { no };
        check(&[(&format!(r#"{{"model":"{name}"}}"#), expected)]);
    }
    check(&[
        (r#"{"model":"org\/m-7b"}"#, Ok("org/m-7b")),
        (r#"{"model":"\"\\\u00e9\ud835\udd2a"}"#, Ok("\"\\é𝔪")),
        (r#"{"model":""}"#, no),
        (r#"{"model":null}"#, no),
        (r#"{"model":1}"#, no),
        (r#"{"model":true}"#, no),
        (r#"{"model":["m"]}"#, no),
        (r#"{"model":{"model":"m"}}"#, no),
        (r#"{"model":"a\nb"}"#, no),
        (r#"{"model":"a\u0000"}"#, no),
        (r#"{"model":"a\u007f"}"#, no),
        (r#"{"model":"a\u0085"}"#, no),
    ]);
}

#[test]
fn what_is_not_well_formed() {
    let model = r#""model":"m""#;
    for rest in [
        "NaN",
        "Infinity",
        "-Infinity",
        "nul",
        "nulll",
        "True",
        "undefined",
        "01",
        "1.",
        ".1",
        "-",
        "+1",
        "1e",
        "1e+",
        "0x1",
        "1_0",
        "-01",
        "1.e1",
        "'a'",
        "\"a",
        "\"\t\"",
        "\"\u{1}\"",
        "\"\\x\"",
        "\"\\u12\"",
        "\"\\u12g4\"",
        "\"\\ud800\"",
        "\"\\udc00\"",
        "\"\\ud800\\u0041\"",
        "\"\\ud800x\"",
        "\"\\\"",
        "[",
        "[1",
        "[1,",
        "[1,]",
        "[,1]",
        "[1 2]",
        "[1}",
        "{",
        "{\"a\"}",
        "{\"a\":}",
        "{\"a\":1,}",
        "{,}",
        "{a:1}",
        "{1:1}",
        "{\"a\":1]",
        "{\"a\" 1}",
        "",
        "/**/1",
        "1 //",
        "1,",
        "1}{",
        "1},",
    ] {
        for text in [format!(r#"{{{model},"x":{rest}}}"#), format!(r#"{{"x":{rest},{model}}}"#)] {
            assert_eq!(json(&text), Err(NoModel::MalformedJson), "{text}");
        }
    }
    let whole = r#"{"a":[1,{"b":"\u00e9"}],"model":"m"}"#;
    for end in 1..whole.len() {
        assert!(json(&whole[..end]).is_err(), "{}", &whole[..end]);
    }
    for odd in ["", "x", "{}", ",", "]", "\0", "\u{a0}", "\u{feff}", "\u{c}", "#", "//"] {
        let text = format!("{whole}{odd}");
        let expected =
            if odd.is_empty() { Ok("m".to_owned()) } else { Err(NoModel::MalformedJson) };
        assert_eq!(json(&text), expected, "{text}");
        if !odd.is_empty() {
            let before = format!("{odd}{whole}");
            assert!(json(&before).is_err(), "{before}");
        }
    }
    for text in ["[]", r#"[{"model":"m"}]"#, r#""model""#, "null", "1", " "] {
        assert_eq!(json(text), Err(NoModel::MalformedJson), "{text}");
    }
}

#[test]
fn numbers_are_passed_over() {
    for number in ["0", "-0", "1", "10", "-1.5", "0.0", "1e5", "1E-5", "1.5e+300", "1e999999"] {
        assert_eq!(json(&format!(r#"{{"x":{number},"model":"m"}}"#)).as_deref(), Ok("m"));
    }
}

#[test]
fn depth_is_bounded() {
    for (open, close) in [("[", "]"), (r#"{"a":"#, "}")] {
        let nested = |depth: usize| {
            let inner = format!("{}1{}", open.repeat(depth), close.repeat(depth));
            json(&format!(r#"{{"a":{inner},"model":"m"}}"#))
        };
        assert_eq!(nested(99).as_deref(), Ok("m"));
        assert_eq!(nested(100), Err(NoModel::TooDeep));
        assert_eq!(nested(100_000), Err(NoModel::TooDeep));
    }
}

#[test]
fn what_a_body_says_about_itself() {
    let good = Body {
        bytes: br#"{"model":"m"}"#,
        partial: Some("false"),
        length: Some("13"),
        encoding: None,
        media_type: Some("application/json"),
    };
    let with = |change: &dyn Fn(&mut Body<'static>)| {
        let mut body = good;
        change(&mut body);
        body.model(Form::Json).map(|name| name.as_str().to_owned())
    };
    assert_eq!(good.model(Form::Json).unwrap().as_str(), "m");
    assert_eq!(good.model(Form::Other), Err(NoModel::Elsewhere));
    assert_eq!(good.model(Form::Multipart), Err(NoModel::NotForm));
    for partial in [None, Some(""), Some("False"), Some("false,false"), Some("true,false")] {
        assert_eq!(with(&|body| body.partial = partial), Err(NoModel::NotShown));
    }
    assert_eq!(with(&|body| body.partial = Some("true")), Err(NoModel::Cut));
    assert_eq!(with(&|body| body.bytes = b""), Err(NoModel::NotShown));
    assert_eq!(with(&|body| body.length = None).as_deref(), Ok("m"));
    for length in ["14", "12", "0", "", "x", "13,13"] {
        assert_eq!(with(&|body| body.length = Some(length)), Err(NoModel::Cut), "{length}");
    }
    for (encoding, fits) in [
        ("identity", true),
        ("Identity", true),
        ("gzip", false),
        ("", false),
        ("identity,gzip", false),
    ] {
        assert_eq!(with(&|body| body.encoding = Some(encoding)).is_ok(), fits, "{encoding}");
    }
    for media_type in [
        "application/json",
        "Application/JSON",
        "application/json; charset=utf-8",
        "application/json;charset=\"UTF-8\"",
    ] {
        assert_eq!(with(&|body| body.media_type = Some(media_type)).as_deref(), Ok("m"));
    }
    for media_type in [
        "",
        "text/plain",
        "application/jsonx",
        "application/json,application/json",
        "application/json; charset=utf-16",
        "application/json; charset=utf-8; charset=utf-16",
        "application/json; x=y",
        "application/json;",
        "application/vnd.api+json",
        "application/x-www-form-urlencoded",
        "multipart/form-data; boundary=b",
    ] {
        assert_eq!(
            with(&|body| body.media_type = Some(media_type)),
            Err(NoModel::NotJson),
            "{media_type}"
        );
    }
    assert_eq!(with(&|body| body.media_type = None), Err(NoModel::NotJson));
    for bytes in [
        &b"{\"model\":\"m\xff\"}"[..],
        b"{\"model\":\"m\",\"\xed\xa0\x80\":1}",
        b"\xef\xbb\xbf{\"model\":\"m\"}",
        b"{\0\"\0m\0",
    ] {
        let body = Body { bytes, length: None, ..good };
        assert_eq!(body.model(Form::Json), Err(NoModel::MalformedJson), "{bytes:?}");
    }
}

const FORM: &str = "multipart/form-data; boundary=b-1";
const FILE: &str = "Content-Disposition: form-data; name=\"file\"; filename=\"a.wav\"\r\nContent-Type: audio/wav\r\n\r\nRIFF\0\r\n--b\r\n--b-";
const MODEL: &str = "Content-Disposition: form-data; name=\"model\"\r\n\r\nm";

fn form(parts: &[&str]) -> String {
    let parts: String = parts.iter().map(|part| format!("--b-1\r\n{part}\r\n")).collect();
    format!("{parts}--b-1--\r\n")
}

fn read(media_type: &str, text: &str) -> Result<String, NoModel> {
    let (partial, media_type) = (Some("false"), Some(media_type));
    let body = Body { bytes: text.as_bytes(), partial, media_type, ..Default::default() };
    body.model(Form::Multipart).map(|name| name.as_str().to_owned())
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
    ] {
        assert_eq!(read(FORM, &form(parts)), ok, "{parts:?}");
    }
    for name in
        ["name=\"Model\"", "name=MODEL", "name=\"model[]\"", "name=\"model.x\"", "name=\"model\""]
    {
        assert_eq!(read(FORM, &form(&[MODEL, &named(name)])), Err(NoModel::Repeated), "{name}");
    }
    assert_eq!(read(FORM, &form(&[&named("name=\"Model\"")])), Err(NoModel::Repeated));
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
        assert_eq!(
            read(FORM, &form(&[MODEL, &named(name)])),
            Err(NoModel::MalformedForm),
            "{name}"
        );
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
        assert_eq!(read(FORM, &form(&[MODEL, odd])), Err(NoModel::MalformedForm), "{odd:?}");
    }
    let good = form(&[FILE, MODEL]);
    for end in 1..good.len() - 2 {
        assert_eq!(read(FORM, &good[..end]), Err(NoModel::MalformedForm), "{end}");
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

/// What serde_json makes of an object: every member whose key is `model`, whatever its case.
struct Models(Vec<(String, serde_json::Value)>);

impl<'de> serde::Deserialize<'de> for Models {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Members;
        impl<'de> Visitor<'de> for Members {
            type Value = Models;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }
            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Models, A::Error> {
                let mut models = Vec::new();
                while let Some(key) = map.next_key::<String>()? {
                    if key.split('\0').next().unwrap().eq_ignore_ascii_case("model") {
                        models.push((key, map.next_value()?));
                    } else {
                        map.next_value::<IgnoredAny>()?;
                    }
                }
                Ok(Models(models))
            }
        }
        deserializer.deserialize_map(Members)
    }
}

/// Pieces of JSON, whole and broken, in any order.
fn any_body() -> impl Strategy<Value = String> {
    let piece = prop::sample::select(vec![
        "{",
        "}",
        "[",
        "]",
        ",",
        ":",
        "\"",
        "\\",
        " ",
        "\"model\"",
        "\"Model\"",
        "\"mod\\u0065l\"",
        "\"model\":",
        "\"m\"",
        "\"a\":1,",
        "\"a\":",
        ",\"model\":\"n\"",
        "\\u0000",
        "\\ud83d\\ude00",
        "\\ud83d",
        "null",
        "true",
        "-1.5e3",
        "0",
        "é",
        "NaN",
        "\u{1}",
        "\u{feff}",
        "[[]]",
        "{\"a\":{}}",
    ]);
    prop::collection::vec(piece, 0..12).prop_flat_map(|pieces| {
        let text: String = pieces.concat();
        prop_oneof![
            Just(text.clone()),
            Just(format!("{{{text}}}")),
            Just(format!("{{\"model\":\"m\",\"x\":{text}}}"))
        ]
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 4096, ..ProptestConfig::default() })]

    /// Whatever model is read, serde_json reads, and no other; and it reads no text that we refuse
    /// for its form.
    #[test]
    fn serde_json_agrees(text in any_body()) {
        let theirs = serde_json::from_str::<Models>(&text).map(|Models(models)| models);
        match (json(&text), theirs) {
            (Ok(model), Ok(theirs)) => prop_assert_eq!(theirs, [("model".to_owned(), model.into())]),
            (Ok(_), Err(error)) => prop_assert!(false, "{}", error),
            // Passing over a value, serde_json does not look at surrogates; keeping it, it does.
            (Err(NoModel::MalformedJson), _) => {
                let object = serde_json::from_str::<serde_json::Map<_, serde_json::Value>>(&text);
                prop_assert!(object.is_err());
            }
            (Err(NoModel::Absent), theirs) => prop_assert!(theirs.unwrap().is_empty()),
            (Err(_), _) => {}
        }
    }

    #[test]
    fn no_bytes_are_too_odd(bytes: Vec<u8>) {
        let body = |media_type| Body { bytes: &bytes, partial: Some("false"), media_type: Some(media_type), ..Default::default() };
        prop_assert!(body("application/json").model(Form::Json).is_err());
        prop_assert!(body(FORM).model(Form::Multipart).is_err());
    }
}
