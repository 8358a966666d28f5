use super::{Body, Form, NoModel};

pub(super) const FORM: &str = "multipart/form-data; boundary=b-1";
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
        "Content-Disposition: form-data; name=\"a\"\r\nContent-Length: +1\r\n\r\nm",
        // What some reader understands, and others do not.
        "Content-Disposition: form-data; name=\"a\"\r\nX: y\r\n\r\nm",
        "Content-Disposition: form-data; name=\"a\"\r\nContent-Encoding: gzip\r\n\r\nm",
        "X-Content-Disposition: form-data; name=\"model\"\r\nContent-Disposition: form-data; name=\"a\"\r\n\r\nm",
        "Content-Disposition: form-data; name=\"a\"\r\nContent-Type: Multipart/mixed; boundary=c\r\n\r\nm",
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
        assert_eq!(read(FORM, &form(&[MODEL, odd])), Err(NoModel::MalformedForm), "{odd:?}");
    }
    // As long as all readers keep, and a byte longer.
    for (length, expected) in [(4096, ok.clone()), (4097, Err(NoModel::MalformedForm))] {
        let (head, tail) = ("Content-Disposition: form-data;", "name=\"a\"\r\n\r\n");
        let spaces = " ".repeat(length - head.len() - tail.len());
        assert_eq!(read(FORM, &form(&[MODEL, &format!("{head}{spaces}{tail}x")])), expected);
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

/// Where showing may have ended, a form may go on, and some readers would go on reading.
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
    assert_eq!(body(None).model(Form::Multipart), Err(NoModel::Endless));
    assert_eq!(body(Some("8192")).model(Form::Multipart).unwrap().as_str(), "m");
}
