//! The member `model` of a JSON object.

use std::fmt;

use serde::de::{Deserializer, IgnoredAny, MapAccess, Visitor};

use super::{super::member::RIVALS, *};

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
    // A member is removed from the list only on purpose.
    assert_eq!(RIVALS.len(), 17);
    for member in RIVALS {
        let text = format!(r#"{{"model":"m","{member}":[]}}"#);
        let upper = member.to_uppercase();
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
    let long = "x".repeat(256);
    let longer = "x".repeat(257);
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
            assert_eq!(read_json(&text), Err(BAD_JSON), "{text}");
        }
    }
    let whole = r#"{"a":[1,{"b":"\u00e9"}],"model":"m"}"#;
    for end in 1..whole.len() {
        assert!(read_json(&whole[..end]).is_err(), "{}", &whole[..end]);
    }
    for odd in ["", "x", "{}", ",", "]", "\0", "\u{a0}", "\u{feff}", "\u{c}", "#", "//"] {
        let text = format!("{whole}{odd}");
        let expected = if odd.is_empty() { Ok("m".to_owned()) } else { Err(BAD_JSON) };
        assert_eq!(read_json(&text), expected, "{text}");
        if !odd.is_empty() {
            let before = format!("{odd}{whole}");
            assert_eq!(read_json(&before).is_err(), odd != "\u{feff}", "{before}");
        }
    }
    for text in ["[]", r#"[{"model":"m"}]"#, r#""model""#, "null", "1", " "] {
        assert_eq!(read_json(text), Err(BAD_JSON), "{text}");
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
    let of = |text: &'static str| Body {
        bytes: text.as_bytes(),
        partial: Some("false"),
        ..Default::default()
    };
    // A text that ends early is not malformed at its last byte.
    for text in [
        "{",
        "{\"model",
        "{\"model\"",
        "{\"model\":",
        "{\"model\": ",
        "{\"model\":\"m",
        "{\"model\":\"m\\u00",
        "{\"model\":\"m\"",
        "{\"model\":\"m\",",
        "{\"model\":nul",
        "{\"model\":[",
        "{\"a\":-",
        "{\"a\":1.",
        "{\"a\":[1",
    ] {
        let read = of(text).model(BodyForm::JsonOfAnyType);
        assert_eq!(read, Err(NoModel::UnfinishedJson { at: text.len() }), "{text}");
    }
    for (text, at) in [("{\"model\":x", 10), ("{\"model\":tru}", 12), ("{\"model\":\"\n", 11)] {
        let read = of(text).model(BodyForm::JsonOfAnyType);
        assert_eq!(read, Err(NoModel::MalformedJson { at }), "{text}");
    }
    let body = Body { bytes: b"{\"a\":\"\xff\"}", partial: Some("false"), ..Default::default() };
    assert_eq!(body.model(BodyForm::JsonOfAnyType), Err(NoModel::MalformedJson { at: 6 }));
}

#[test]
fn numbers_are_passed_over() {
    for number in ["0", "-0", "1", "10", "-1.5", "0.0", "1e5", "1E-5", "1.5e+300", "1e999999"] {
        assert_eq!(read_json(&format!(r#"{{"x":{number},"model":"m"}}"#)).as_deref(), Ok("m"));
    }
}

#[test]
fn depth_is_bounded() {
    for (open, close) in [("[", "]"), (r#"{"a":"#, "}")] {
        let nested = |depth: usize| {
            let inner = format!("{}1{}", open.repeat(depth), close.repeat(depth));
            read_json(&format!(r#"{{"a":{inner},"model":"m"}}"#))
        };
        assert_eq!(nested(99).as_deref(), Ok("m"));
        assert_eq!(nested(100), Err(NoModel::Excessive(Excess::Depth)));
        assert_eq!(nested(100_000), Err(NoModel::Excessive(Excess::Depth)));
    }
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
                assert_eq!(super::super::json::plain(&text), expected, "{text:?}");
            }
        }
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
        match (read_json(&text), theirs) {
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
}
