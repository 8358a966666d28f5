use proptest::prelude::*;

use super::*;
use crate::refusal::Excess;

mod compressed;
mod forms;
mod json;
mod query;

fn read_json(text: &str) -> Result<String, NoModel> {
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
        NoModel::MalformedJson { .. } | NoModel::UnfinishedJson { .. } => BAD_JSON,
        NoModel::MalformedForm { .. } => forms::BAD_FORM,
        why => why,
    };
    read.map(|name| name.as_str().to_owned()).map_err(somewhere)
}

fn check(cases: &[(&str, Result<&str, NoModel>)]) {
    for (text, expected) in cases {
        assert_eq!(read_json(text), expected.map(str::to_owned), "{text:.80}");
    }
}

#[test]
fn debug_shows_nothing() {
    let secret = Some("secret");
    let partial = secret;
    let length = secret;
    let encoding = secret;
    let media_type = secret;
    let body = Body { bytes: b"secret", partial, length, encoding, media_type };
    assert_eq!(format!("{body:?}"), "Body(…)");
}

#[test]
fn names_are_counted_and_bounded() {
    let excess = |what| Err(NoModel::Excessive(what));
    let members = |count: usize| {
        let members = "\"\":0,".repeat(count - 1);
        read_json(&format!(r#"{{{members}"model":"m"}}"#))
    };
    assert_eq!(members(MAX_MEMBERS).as_deref(), Ok("m"));
    assert_eq!(members(MAX_MEMBERS + 1), excess(Excess::Members));
    // Of an object inside, no name matters.
    let inner = "\"\":0,".repeat(2 * MAX_MEMBERS);
    assert_eq!(read_json(&format!(r#"{{"a":{{{inner}"":0}},"model":"m"}}"#)).as_deref(), Ok("m"));
    for separator in ["&", ";", "?"] {
        let query = |count: usize| in_query(&format!("/a?{}", separator.repeat(count - 1)));
        assert_eq!(query(MAX_PARAMETERS), Ok(false));
        assert_eq!(query(MAX_PARAMETERS + 1), Err(Excess::Parameters));
    }
    assert_eq!(in_query(&format!("/a?model{}", "&".repeat(2 * MAX_PARAMETERS))), Ok(true));
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

proptest! {
    #![proptest_config(ProptestConfig { cases: 4096, ..ProptestConfig::default() })]

    #[test]
    fn no_bytes_are_too_odd(bytes: Vec<u8>) {
        let body = |media_type| Body { bytes: &bytes, partial: Some("false"), media_type: Some(media_type), ..Default::default() };
        prop_assert!(body("application/json").model(BodyForm::Json).is_err());
        prop_assert!(body(forms::FORM).model(BodyForm::Multipart).is_err());
    }
}
