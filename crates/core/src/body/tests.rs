use std::fmt;

use proptest::prelude::*;
use serde::de::{Deserializer, IgnoredAny, MapAccess, Visitor};

use super::*;
use crate::refusal::Excess;

mod compressed;
mod forms;

fn json(text: &str) -> Result<String, NoModel> {
    let body = Body {
        bytes: text.as_bytes(),
        partial: Some("false"),
        media_type: Some("application/json"),
        ..Default::default()
    };
    told(body.model(BodyForm::Json))
}

const BAD_JSON: NoModel = NoModel::MalformedJson { at: 0 };

/// Returns the result, without the position of an error.
fn told(read: Result<ModelName, NoModel>) -> Result<String, NoModel> {
    let somewhere = |why| match why {
        NoModel::MalformedJson { .. } => BAD_JSON,
        NoModel::MalformedForm { .. } => forms::BAD_FORM,
        why => why,
    };
    read.map(|name| name.as_str().to_owned()).map_err(somewhere)
}

fn check(cases: &[(&str, Result<&str, NoModel>)]) {
    for (text, expected) in cases {
        assert_eq!(json(text), expected.map(str::to_owned), "{text:.80}");
    }
}

#[test]
fn debug_shows_nothing() {
    let secret = Some("secret");
    let (partial, length, encoding, media_type) = (secret, secret, secret, secret);
    let body = Body { bytes: b"secret", partial, length, encoding, media_type };
    assert_eq!(format!("{body:?}"), "Body(…)");
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
    ]);
}

#[test]
fn nothing_else_may_choose_the_model() {
    let rival = |member| Err(NoModel::Rival(member));
    for member in [
        "models",
        "preset",
        "fallbacks",
        "context_window_fallbacks",
        "context_window_fallback_dict",
        "content_policy_fallbacks",
        "model_list",
        "model_id",
        "deployment_id",
        "prompt_id",
        "user_config",
        "router_settings_override",
        "extra_body",
        "lora_path",
        "lora",
        "lora_request",
        "adapters",
    ] {
        let (text, upper) = (format!(r#"{{"model":"m","{member}":[]}}"#), member.to_uppercase());
        check(&[
            (&text, rival(member)),
            (&format!(r#"{{"{upper}":null,"model":"m"}}"#), rival(member)),
            (&format!(r#"{{"model":"m","{member}\u0000x":1}}"#), rival(member)),
            (&format!(r#"{{"model":"m","x":{{"{member}":1}},"{member}s":1}}"#), Ok("m")),
        ]);
    }
    check(&[
        (r#"{"models":["m"]}"#, rival("models")),
        (r#"{"model":"m","mod\u0065ls":[]}"#, rival("models")),
        // Letters that Go folds to ours.
        ("{\"model\":\"m\",\"model\u{17f}\":[]}", rival("models")),
        ("{\"model\":\"m\",\"fallbac\u{212a}\u{17f}\":[]}", rival("fallbacks")),
        ("{\"model\":\"m\",\"mode\u{17f}\":[]}", Ok("m")),
    ]);
}

#[test]
fn nor_may_the_query() {
    for target in [
        "/a",
        "/a?",
        "/model",
        "/a?b",
        "/a?b=model&c=models",
        "/a?beta=true&api-version=2024-10-21",
        "/a?b=%6dodel+x",
        "/a?mode=x&models_of=y&_model=z&x[model]=w",
    ] {
        assert_eq!(in_query(target), Ok(false), "{target}");
    }
    for target in [
        "/a?model=n",
        "/a?model",
        "/a?b=c&model=m",
        "/a?b=c;model=m",
        "/a??model=m",
        "/a?Model=m",
        "/a?model[]=m",
        "/a?model[x]=m",
        "/a?model.x=m",
        "/a?mod%65l=m",
        "/a?+model=m",
        "/a?b%00=m",
        "/a?models=m",
        "/a?preset=m",
        "/a?extra_body[model]=m",
        "/a?fallbacks[]=m",
    ] {
        assert_eq!(in_query(target), Ok(true), "{target}");
    }
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
        "nan",
        "Nan",
        "Na",
        "NaN1",
        "+NaN",
        "-NaN",
        "inf",
        "Infinit",
        "Infinity1",
        "-infinity",
        "+Infinity",
        "--Infinity",
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
        "\"\\ud800\\u12\"",
        "\"\\ud800\\\"",
        "\"\\ud800\\x\"",
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
            assert_eq!(json(&text), Err(BAD_JSON), "{text}");
        }
    }
    let whole = r#"{"a":[1,{"b":"\u00e9"}],"model":"m"}"#;
    for end in 1..whole.len() {
        assert!(json(&whole[..end]).is_err(), "{}", &whole[..end]);
    }
    for odd in ["", "x", "{}", ",", "]", "\0", "\u{a0}", "\u{feff}", "\u{c}", "#", "//"] {
        let text = format!("{whole}{odd}");
        let expected = if odd.is_empty() { Ok("m".to_owned()) } else { Err(BAD_JSON) };
        assert_eq!(json(&text), expected, "{text}");
        if !odd.is_empty() {
            let before = format!("{odd}{whole}");
            assert_eq!(json(&before).is_err(), odd != "\u{feff}", "{before}");
        }
    }
    for text in ["[]", r#"[{"model":"m"}]"#, r#""model""#, "null", "1", " "] {
        assert_eq!(json(text), Err(BAD_JSON), "{text}");
    }
}

/// Some readers refuse these; all others read the same model.
#[test]
fn oddities_that_all_readers_read_alike() {
    let no = Err(NoModel::NotAName);
    for value in [
        "NaN",
        "-Infinity",
        "[NaN,Infinity]",
        r#"{"NaN":Infinity}"#,
        r#""\ud83d""#,
        r#""\ude00""#,
        r#""a\ud83d b""#,
        r#""\ud83d\u0041""#,
        r#""\ud83d\ud83d\ude00""#,
        r#""\ud83d\\""#,
        r#""\ud83d\"""#,
        r#"[["\udc00\ud800"]]"#,
        r#"{"\ud83d":{"\ude00":1}}"#,
    ] {
        check(&[
            (&format!(r#"{{"a":{value},"model":"m"}}"#), Ok("m")),
            (&format!(r#"{{"model":"m","a":{value}}}"#), Ok("m")),
            (&format!(r#"{{"model":"m","a":{value},"model":"n"}}"#), Err(NoModel::Repeated)),
        ]);
    }
    check(&[
        ("\u{feff}{\"model\":\"m\"}", Ok("m")),
        ("\u{feff} {\"model\":\"m\"}", Ok("m")),
        ("\u{feff}\u{feff}{\"model\":\"m\"}", Err(BAD_JSON)),
        (" \u{feff}{\"model\":\"m\"}", Err(BAD_JSON)),
        ("{\u{feff}\"model\":\"m\"}", Err(BAD_JSON)),
        ("\u{feff}", Err(BAD_JSON)),
        // As a name, each reader makes another one of it.
        (r#"{"model":"m\ud83d"}"#, no),
        (r#"{"model":"\ude00m"}"#, no),
        (r#"{"model":"\ud83d\u0041"}"#, no),
        (r#"{"model\ud83d":"n","model":"m"}"#, Err(BAD_JSON)),
        (r#"{"model":"m","mod\ude00el":"n"}"#, Err(BAD_JSON)),
        (r#"{"model":NaN}"#, no),
        (r#"{"model":"m\ud83d\ude00"}"#, Ok("m\u{1f600}")),
    ]);
}

#[test]
fn a_malformed_body_is_malformed_somewhere() {
    for (text, at) in [("x", 0), (r#"{"a":01}"#, 6), (r#"{"model":"m","a":[1,]}"#, 21)] {
        let body = Body {
            bytes: text.as_bytes(),
            partial: Some("false"),
            media_type: Some("application/json"),
            ..Default::default()
        };
        assert_eq!(body.model(BodyForm::Json), Err(NoModel::MalformedJson { at }), "{text}");
    }
    let body = Body { bytes: b"{\"a\":\"\xff\"}", partial: Some("false"), ..Default::default() };
    assert_eq!(body.model(BodyForm::JsonOfAnyType), Err(NoModel::MalformedJson { at: 6 }));
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
        assert_eq!(nested(100), Err(NoModel::Excessive(Excess::Depth)));
        assert_eq!(nested(100_000), Err(NoModel::Excessive(Excess::Depth)));
    }
}

#[test]
fn names_are_counted_and_bounded() {
    let excess = |what| Err(NoModel::Excessive(what));
    let members = |count: usize| {
        let members = "\"\":0,".repeat(count - 1);
        json(&format!(r#"{{{members}"model":"m"}}"#))
    };
    assert_eq!(members(MAX_MEMBERS).as_deref(), Ok("m"));
    assert_eq!(members(MAX_MEMBERS + 1), excess(Excess::Members));
    // Of an object inside, no name matters.
    let inner = "\"\":0,".repeat(2 * MAX_MEMBERS);
    assert_eq!(json(&format!(r#"{{"a":{{{inner}"":0}},"model":"m"}}"#)).as_deref(), Ok("m"));
    for separator in ["&", ";", "?"] {
        let query = |count: usize| in_query(&format!("/a?{}", separator.repeat(count - 1)));
        assert_eq!(query(MAX_PARAMETERS), Ok(false));
        assert_eq!(query(MAX_PARAMETERS + 1), Err(Excess::Parameters));
    }
    assert_eq!(in_query(&format!("/a?model{}", "&".repeat(2 * MAX_PARAMETERS))), Ok(true));
}

/// Compares byte for byte, at every offset within eight bytes.
#[test]
fn plain_text_is_passed_over_up_to_the_first_byte_that_is_not() {
    for before in 0..20 {
        for byte in 0..=u8::MAX {
            for after in [&b""[..], b"\"", b"abcdefghijklmnop", b"\x00\x00\x00\x00\x00\x00\x00\x00"]
            {
                let text =
                    [&b"\xc3\xa9x\x7f\xff\x80 !#[]zyxwvutsr"[..before], &[byte], after].concat();
                let stops = |byte: &u8| *byte < b' ' || matches!(byte, b'"' | b'\\');
                let expected = text.iter().position(stops).unwrap_or(text.len());
                assert_eq!(json::plain(&text), expected, "{text:?}");
            }
        }
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
        body.model(BodyForm::Json).map(|name| name.as_str().to_owned())
    };
    assert_eq!(good.model(BodyForm::Json).unwrap().as_str(), "m");
    assert_eq!(good.model(BodyForm::Other), Err(NoModel::Elsewhere));
    assert_eq!(good.model(BodyForm::Multipart), Err(NoModel::NotForm));
    for partial in [None, Some(""), Some("False"), Some("false,false"), Some("true,false")] {
        assert_eq!(with(&|body| body.partial = partial), Err(NoModel::NotShown));
    }
    assert_eq!(with(&|body| body.partial = Some("true")), Err(NoModel::Cut));
    assert_eq!(with(&|body| body.bytes = b""), Err(NoModel::NotShown));
    assert_eq!(with(&|body| body.length = None).as_deref(), Ok("m"));
    for length in ["14", "12", "0", "", "x", "13,13", "+13", "-13", "\u{661}3", " 13"] {
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
        "application/json\u{a0}",
        "\u{2003}application/json",
        "application/json\u{c}",
        "application/json\u{85}; charset=utf-8",
        "application/json; charset=utf-8\u{3000}",
    ] {
        assert_eq!(
            with(&|body| body.media_type = Some(media_type)),
            Err(NoModel::NotJson),
            "{media_type}"
        );
    }
    assert_eq!(with(&|body| body.media_type = None), Err(NoModel::NotJson));
    for media_type in [None, Some("text/plain"), Some("multipart/form-data; boundary=b")] {
        let body = Body { media_type, ..good };
        assert_eq!(told(body.model(BodyForm::JsonOfAnyType)).as_deref(), Ok("m"), "{media_type:?}");
    }
    for bytes in [
        &b"{\"model\":\"m\xff\"}"[..],
        b"{\"model\":\"m\",\"\xed\xa0\x80\":1}",
        b"\xef\xbb{\"model\":\"m\"}",
        b"\xff\xfe{\0\"\0m\0",
        b"{\0\"\0m\0",
    ] {
        let body = Body { bytes, length: None, ..good };
        assert_eq!(told(body.model(BodyForm::Json)), Err(BAD_JSON), "{bytes:?}");
    }
}

/// What serde_json reads from an object: every member whose key is `model`, in any case.
struct ModelMembers(Vec<(String, serde_json::Value)>);

impl<'de> serde::Deserialize<'de> for ModelMembers {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Members;
        impl<'de> Visitor<'de> for Members {
            type Value = ModelMembers;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }
            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<ModelMembers, A::Error> {
                let mut models = Vec::new();
                while let Some(key) = map.next_key::<String>()? {
                    if key.split('\0').next().unwrap().eq_ignore_ascii_case("model") {
                        models.push((key, map.next_value()?));
                    } else {
                        map.next_value::<IgnoredAny>()?;
                    }
                }
                Ok(ModelMembers(models))
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

    /// If patgate reads a model, serde_json reads the same one; and serde_json reads no text that
    /// patgate refuses for its form.
    #[test]
    fn serde_json_agrees(text in any_body()) {
        let theirs = serde_json::from_str::<ModelMembers>(&text).map(|ModelMembers(models)| models);
        let more_than_theirs = text.starts_with('\u{feff}') || text.contains("NaN");
        match (json(&text), theirs) {
            _ if more_than_theirs => {}
            (Ok(model), Ok(theirs)) => prop_assert_eq!(theirs, [("model".to_owned(), model.into())]),
            // Half a surrogate pair in a name inside.
            (Ok(_), Err(error)) => prop_assert!(text.contains("\\ud83d"), "{}", error),
            // Passing over a value, serde_json does not look at surrogates; keeping it, it does.
            (Err(NoModel::MalformedJson { .. }), _) => {
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
        prop_assert!(body("application/json").model(BodyForm::Json).is_err());
        prop_assert!(body(forms::FORM).model(BodyForm::Multipart).is_err());
    }
}

#[test]
fn a_query_names_a_model_in_one_way_only() {
    for (query, expected) in [
        ("?model=m", Some("m")),
        ("?a=b&model=org/m-7b:x&c", Some("org/m-7b:x")),
        ("", None),
        ("?", None),
        ("?model", None),
        ("?model=", None),
        ("?models=m", None),
        ("?model=m&model=m", None),
        ("?model=m&MODEL=n", None),
        ("?model=m&model[]=n", None),
        ("?model=m;model=n", None),
        ("?model=m&mode%6c=n", None),
        ("?model=m%20", None),
        ("?model=m+n", None),
    ] {
        assert_eq!(super::model_in_query(query), expected, "{query}");
    }
}
