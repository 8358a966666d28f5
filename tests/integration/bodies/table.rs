//! Bodies, and what patgate reads from each with the API table of Cube AI.

use super::{compressed::compressed, oddities::oddities};

/// The maximum that a single step shows.
pub(super) const SHOWN: usize = 1 << 20;
pub(super) const CHAT: &str = "/proxy/acme/v1/chat/completions";
pub(super) const AUDIO: &str = "/proxy/acme/v1/audio/transcriptions";

pub(super) type Expected = Result<&'static str, &'static str>;

pub(super) const M: Expected = Ok("m");
const NOT_SHOWN: Expected = Err("No body arrived");
const CUT: Expected = Err("of it that the gateway shows");
const COMPRESSED_FORM: Expected = Err("The form is compressed");
pub(super) const NOT_JSON: Expected = Err("`Content-Type: application/json`");
pub(super) const NOT_FORM: Expected = Err("`Content-Type: multipart/form-data`");
pub(super) const BAD_JSON: Expected = Err("not one well-formed JSON object");
/// The body is the beginning of a JSON object.
pub(super) const ENDS_EARLY: Expected = Err("before its JSON object does: send all of it");
const TOO_DEEP: Expected = Err("nested more than 100 levels");
const TOO_MANY_MEMBERS: Expected = Err("more than 10000 members");
const TOO_MANY_PARTS: Expected = Err("more than 1000 parts");
const TOO_MANY_PARAMETERS: Expected = Err("more than 1000 parameters");
pub(super) const BAD_FORM: Expected = Err("can be read in more than one way");
pub(super) const ABSENT: Expected = Err("names no model");
pub(super) const REPEATED: Expected = Err("more than one model");
pub(super) const NO_NAME: Expected = Err("not a text of 1 to 256 characters");
const NO_LENGTH: Expected = Err("no Content-Length");
const IN_QUERY: Expected = Err("The query must not name a model");
const ELSEWHERE: Expected = Err("in a way that is not read");
pub(super) const UNSCOPED: Expected = Err("does not permit `llm_");

pub(super) struct Case {
    pub(super) name: String,
    pub(super) path: &'static str,
    pub(super) headers: Vec<(&'static str, String)>,
    pub(super) body: Vec<u8>,
    pub(super) chunked: bool,
    pub(super) expected: Expected,
}

impl Case {
    pub(super) fn new(
        name: &str,
        path: &'static str,
        body: impl Into<Vec<u8>>,
        expected: Expected,
    ) -> Self {
        let name = name.to_owned();
        let body = body.into();
        Self { name, path, headers: Vec::new(), body, chunked: false, expected }
    }

    pub(super) fn header(mut self, name: &'static str, value: &str) -> Self {
        self.headers.push((name, value.to_owned()));
        self
    }

    pub(super) fn chunked(self) -> Self {
        Self { chunked: true, ..self }
    }

    /// A body that another table also uses.
    pub(super) fn of_model(name: &str, path: &'static str, body: &str) -> Self {
        Self::new(name, path, body, UNSCOPED).header("content-type", "application/json")
    }

    pub(super) fn is_compressed(&self) -> bool {
        self.headers.iter().any(|(name, value)| *name == "content-encoding" && value != "identity")
    }

    /// The kind of body that the backend expects.
    pub(super) fn kind(&self) -> &'static str {
        if self.path == AUDIO { "form" } else { "json" }
    }
}

pub(super) fn cases() -> Vec<Case> {
    let mut cases = places();
    cases.extend(compressed());
    cases.extend(oddities());
    cases.extend(repeated());
    cases.extend(values());
    cases.extend(malformed());
    cases.extend(sizes());
    cases.extend(declared());
    cases.extend(forms());
    cases.extend(other_calls());
    cases.extend(rivals());
    cases.extend(queries());
    cases
}

pub(super) fn json(name: &str, body: impl Into<Vec<u8>>, expected: Expected) -> Case {
    Case::new(name, CHAT, body, expected).header("content-type", "application/json")
}

fn places() -> Vec<Case> {
    let messages = r#""messages":[{"role":"user","content":"Say \"model\"."}]"#;
    let decoys = r#""a":{"model":"n"},"b":["model","n"],"c":"\"model\":\"n\"","d":[{"model":"n"}]"#;
    vec![
        json("alone", r#"{"model":"m"}"#, M),
        json("first", format!(r#"{{"model":"m",{messages}}}"#), M),
        json("last", format!(r#"{{{messages},"model":"m"}}"#), M),
        json("after 7 KiB", format!(r#"{{"x":"{}","model":"m"}}"#, "x".repeat(7 << 10)), M),
        json("among decoys", format!(r#"{{{decoys},"model":"m"}}"#), M),
        json("before decoys", format!(r#"{{"model":"m",{decoys}}}"#), M),
        json("only decoys", format!("{{{decoys}}}"), ABSENT),
        json("white space", "\r\n\t {\n\"model\"\t: \"m\"\r} \n", M),
        json("key escaped", r#"{"\u006d\u006f\u0064\u0065\u006c":"m"}"#, M),
        json("key partly escaped", r#"{"mod\u0065l":"m"}"#, M),
        json(
            "similar keys",
            r#"{"model ":"n"," model":"n","modell":["n"],"mode":1,"model":"m"}"#,
            M,
        ),
        json(
            "deep, but not too deep",
            format!(r#"{{"a":{}1{},"model":"m"}}"#, "[".repeat(99), "]".repeat(99)),
            M,
        ),
        json(
            "all kinds of values",
            r#"{"a":[-0,1.5E+3,true,false,null,{},[],"\ud83d\ude00é"],"model":"m"}"#,
            M,
        ),
        json("another model", r#"{"model":"n"}"#, UNSCOPED),
        json("in another case", r#"{"model":"M"}"#, UNSCOPED),
        json("a longer name", r#"{"model":"m:latest"}"#, UNSCOPED),
        json("with a space", r#"{"model":"m "}"#, UNSCOPED),
        json("a star", r#"{"model":"*"}"#, UNSCOPED),
        json("no members", "{}", ABSENT),
        json("no such member", format!("{{{messages}}}"), ABSENT),
        json("in an array", r#"[{"model":"m"}]"#, BAD_JSON),
        json("within a member", r#"{"request":{"model":"m"}}"#, ABSENT),
    ]
}

fn repeated() -> Vec<Case> {
    [
        ("the same twice", r#"{"model":"m","model":"m"}"#),
        ("good, then another", r#"{"model":"m","model":"n"}"#),
        ("another, then good", r#"{"model":"n","model":"m"}"#),
        ("good, then escaped", r#"{"model":"m","mod\u0065l":"n"}"#),
        ("escaped, then good", r#"{"\u006dodel":"n","model":"m"}"#),
        ("good, then null", r#"{"model":"m","model":null}"#),
        ("good, then Model", r#"{"model":"m","Model":"n"}"#),
        ("MODEL, then good", r#"{"MODEL":"n","model":"m"}"#),
        ("good, then mOdEl escaped", r#"{"model":"m","m\u004fd\u0045l":"n"}"#),
        ("Model alone", r#"{"Model":"m"}"#),
        ("good, then one that ends at a NUL", r#"{"model":"m","model\u0000":"n"}"#),
        ("one that ends at a NUL, then good", r#"{"model\u0000x":"n","model":"m"}"#),
        ("far apart", concat!(r#"{"model":"m","a":[[[{"b":{"c":[]}}]]],"#, r#""model":"n"}"#)),
    ]
    .into_iter()
    .map(|(name, body)| json(&format!("repeated: {name}"), body, REPEATED))
    .collect()
}

fn values() -> Vec<Case> {
    [
        (r#""org/m-7b""#, Ok("org/m-7b")),
        (r#""org\/m-7b""#, Ok("org/m-7b")),
        (r#""\u006d""#, M),
        (r#""\ud835\udd2a""#, Ok("𝔪")),
        ("\"𝔪\"", Ok("𝔪")),
        (r#""\u00e9""#, Ok("é")),
        ("null", NO_NAME),
        ("true", NO_NAME),
        ("1", NO_NAME),
        (r#""""#, NO_NAME),
        (r#"["m"]"#, NO_NAME),
        (r#"{"model":"m"}"#, NO_NAME),
        (r#""m\u0000""#, NO_NAME),
        (r#""m\n""#, NO_NAME),
        (r#""m\ud800""#, NO_NAME),
        (r#""m\udc00\ud800""#, NO_NAME),
        ("\"m", ENDS_EARLY),
        ("m", BAD_JSON),
        ("'m'", BAD_JSON),
    ]
    .into_iter()
    .map(|(value, expected)| {
        json(&format!("value {value}"), format!(r#"{{"model":{value}}}"#), expected)
    })
    .chain([json("257 characters", format!(r#"{{"model":"{}"}}"#, "m".repeat(257)), NO_NAME)])
    .collect()
}

fn malformed() -> Vec<Case> {
    let utf16: Vec<u8> = r#"{"model":"m"}"#.encode_utf16().flat_map(u16::to_le_bytes).collect();
    let utf16_bom = [b"\xff\xfe", &*utf16].concat();
    let utf32: Vec<u8> =
        r#"{"model":"m"}"#.chars().flat_map(|c| u32::from(c).to_be_bytes()).collect();
    let nested = |open: &str, close: &str, depth| {
        format!(r#"{{"model":"m","a":{}1{}}}"#, open.repeat(depth), close.repeat(depth))
    };
    let members = |count: usize| format!(r#"{{{}"model":"m"}}"#, r#""":0,"#.repeat(count - 1));
    let mut cases = vec![
        json("UTF-16", utf16, BAD_JSON),
        json("UTF-16 with its mark", utf16_bom, BAD_JSON),
        json("UTF-32", utf32, BAD_JSON),
        json("not UTF-8, in the model", b"{\"model\":\"m\xff\"}", BAD_JSON),
        json("not UTF-8, in another value", b"{\"model\":\"m\",\"a\":\"\xff\"}", BAD_JSON),
        json("not UTF-8, in the key", b"{\"model\":\"m\",\"mod\xffel\":\"n\"}", BAD_JSON),
        json("a surrogate in UTF-8", b"{\"model\":\"m\",\"a\":\"\xed\xa0\x80\"}", BAD_JSON),
        json("an overlong quote", b"{\"model\":\"m\",\"a\":\"\xc0\xa2\"}", BAD_JSON),
        json("100,000 arrays", nested("[", "]", 100_000), TOO_DEEP),
        json("100,000 objects", nested(r#"{"a":"#, "}", 100_000), TOO_DEEP),
        json("100,000 arrays, never closed", nested("[", "", 100_000), TOO_DEEP),
        json("10,001 members", members(10_001), TOO_MANY_MEMBERS),
        json("as many members as may be", members(10_000), M),
        json("only white space", " ".repeat(1000), ENDS_EARLY),
        json("a form in place of JSON", "model=m", BAD_JSON),
    ];
    for body in [
        r#"{"model":"#,
        r#"{"model":"m""#,
        r#"{"model":"m","#,
        r#"{"model":"m","a"#,
        r#"{"model":"m","a":"#,
        r#"{"model":"m","a":[1,2"#,
    ] {
        cases.push(json(&format!("ends early {body}"), body, ENDS_EARLY));
    }
    for body in [
        r#"{"model":"m"}}"#,
        r#"{"model":"m"}{"model":"n"}"#,
        "{\"model\":\"m\"}\n{\"model\":\"n\"}",
        r#"{"model":"m"} x"#,
        "{\"model\":\"m\"}\0",
        r#"{"model":"m",}"#,
        r#"{,"model":"m"}"#,
        r#"{"model":"m","a":01}"#,
        r#"{"model":"m","a":1.}"#,
        r#"{"model":"m","a":+1}"#,
        r#"{"model":"m","a":0x1}"#,
        r#"{"model":"m","a":'b'}"#,
        r#"{"model":"m",'model':"n"}"#,
        r#"{"model":"m",model:"n"}"#,
        r#"{"model":"m"/*,"model":"n"*/}"#,
        "{\"model\":\"m\"//\n}",
        "{\"model\":\"m\",\"a\":\"b\n\"}",
        r#"{"model":"m","a":"\x41"}"#,
        r#"{"model":"m","a":"\u12g4"}"#,
        r#"{"model":"m","a":[1}]}"#,
        r#"{"model" "m"}"#,
        r#""model""#,
    ] {
        cases.push(json(&format!("malformed {body}"), body, BAD_JSON));
    }
    cases
}

fn sizes() -> Vec<Case> {
    let padded = |length: usize| {
        let head = r#"{"messages":""#;
        let tail = r#"","model":"m"}"#;
        format!("{head}{}{tail}", "x".repeat(length - head.len() - tail.len()))
    };
    let space = format!(r#"{{"model":"m"{}}}"#, " ".repeat(1_000_000));
    let after_the_cut = format!(r#"{{"model":"m","a":"{}","model":"n"}}"#, "x".repeat(SHOWN));
    let space_and_more = format!("{{\"model\":\"m\"}}{}{{\"model\":\"n\"}}", " ".repeat(SHOWN));
    vec![
        json("as much as is shown", padded(SHOWN), M),
        json("one byte more", padded(SHOWN + 1), CUT),
        json("one byte more, in chunks", padded(SHOWN + 1), CUT).chunked(),
        json("3 MiB", padded(3 << 20), CUT),
        json("1 MB of white space", space, M),
        json("a second model behind the cut", after_the_cut, CUT),
        json("a second object behind the cut", space_and_more, CUT),
        json("in chunks", r#"{"messages":[],"model":"m"}"#, M).chunked(),
        json("repeated, in chunks", r#"{"model":"m","model":"n"}"#, REPEATED).chunked(),
        json("nothing", "", NOT_SHOWN),
        json("said to be whole by the client", "", NOT_SHOWN)
            .header("x-envoy-auth-partial-body", "false"),
    ]
}

fn declared() -> Vec<Case> {
    const GOOD: &str = r#"{"model":"m"}"#;
    let typed = |media_type: &str, expected| {
        let name = format!("type {media_type}");
        Case::new(&name, CHAT, GOOD, expected).header("content-type", media_type)
    };
    vec![
        typed("Application/JSON", M),
        typed("application/json; charset=utf-8", M),
        typed("application/json;charset=\"UTF-8\"", M),
        typed("application/json; charset=utf-16", NOT_JSON),
        typed("application/json; charset=utf-8; charset=utf-16", NOT_JSON),
        typed("application/json, text/plain", NOT_JSON),
        typed("application/x-www-form-urlencoded", NOT_JSON),
        typed("multipart/form-data; boundary=b", NOT_JSON),
        typed("text/plain", NOT_JSON),
        // Most readers treat it as a space; RFC 9110 does not.
        typed("application/json\u{a0}", NOT_JSON),
        typed("application/json; charset=utf-8\u{3000}", NOT_JSON),
        typed(" \tapplication/json\t ", M),
        Case::new("no type", CHAT, GOOD, NOT_JSON),
        json("identity", GOOD, M).header("content-encoding", "identity"),
    ]
}

pub(super) const FILE: &str = "Content-Disposition: form-data; name=\"file\"; filename=\"a.wav\"\r\nContent-Type: audio/wav\r\n\r\nRIFF--b\r\n--\r\n\n{\"model\":\"n\"}\0";
pub(super) const MODEL: &str = "Content-Disposition: form-data; name=\"model\"\r\n\r\nm";

pub(super) fn parts(parts: &[&str]) -> Vec<u8> {
    let parts: String = parts.iter().map(|part| format!("--b1\r\n{part}\r\n")).collect();
    format!("{parts}--b1--\r\n").into_bytes()
}

fn forms() -> Vec<Case> {
    let typed = |name: &str, media_type: &str, body: Vec<u8>, expected| {
        Case::new(&format!("form: {name}"), AUDIO, body, expected)
            .header("content-type", media_type)
    };
    let form = |name: &str, body, expected| {
        typed(name, "multipart/form-data; boundary=b1", body, expected)
    };
    let named = |parameters: &str| format!("Content-Disposition: form-data; {parameters}\r\n\r\nn");
    let binary = [b"\xff\xfb\x90\x00\r\n", &[0x80; 5000][..]].concat();
    let recorded = [
        b"--b1\r\nContent-Disposition: form-data; name=\"file\"; filename=\"a.mp3\"\r\n\r\n",
        &*binary,
        b"\r\n",
        &parts(&[MODEL]),
    ];
    let bare = String::from_utf8(parts(&[MODEL])).unwrap().replace("\r\n", "\n").into_bytes();
    // Exactly as long as what Envoy shows, so it could also be the beginning of a longer body.
    let filled = |length: usize| {
        let padding = "x".repeat(length - parts(&[MODEL, FILE]).len());
        parts(&[MODEL, &format!("{FILE}{padding}")])
    };
    // Node's busboy keeps 80 KiB of a part's headers, which is everything except the last two
    // bytes.
    let cut = |length: usize| {
        let head = "Content-Disposition: form-data; name=model";
        let tail = "_x\r\n\r\nn";
        format!("X: {}\r\n{head}{tail}", "x".repeat(length - "X: \r\n".len() - head.len()))
    };
    let not_utf8 =
        [&parts(&[MODEL])[..parts(&[MODEL]).len() - "\r\n--b1--\r\n".len()], b"\xff\r\n--b1--\r\n"];
    let mut cases = vec![
        form("as much as is shown", filled(SHOWN), M),
        form("as much as is shown, in chunks", filled(SHOWN), NO_LENGTH).chunked(),
        form("4 KiB in chunks", filled(4096), NO_LENGTH).chunked(),
        form("more than 80 KiB of headers", parts(&[MODEL, &cut(80 << 10)]), BAD_FORM),
        form("more than 4 KiB of headers", parts(&[MODEL, &cut(4096)]), BAD_FORM),
        form("not UTF-8, in the model", not_utf8.concat(), NO_NAME),
        form("model first", parts(&[MODEL, FILE]), M),
        form("model last", parts(&[FILE, MODEL]), M),
        form("model alone", parts(&[MODEL]), M),
        form("a recording", recorded.concat(), M),
        form("in chunks", parts(&[FILE, MODEL]), M).chunked(),
        typed("a quoted boundary", "multipart/form-data; boundary=\"b1\"", parts(&[MODEL]), M),
        form("an unquoted name", parts(&[&MODEL.replace("\"model\"", "model")]), M),
        form("another model", parts(&[FILE, &named("name=\"model\"")]), UNSCOPED),
        form("no model", parts(&[FILE]), ABSENT),
        form("1,001 parts", parts(&[FILE; 1001]), TOO_MANY_PARTS),
        form("no parts", parts(&[]), ABSENT),
        form("two models", parts(&[MODEL, FILE, MODEL]), REPEATED),
        form("two that differ", parts(&[MODEL, &named("name=\"model\"")]), REPEATED),
        form(
            "an empty model",
            parts(&["Content-Disposition: form-data; name=\"model\"\r\n\r\n"]),
            NO_NAME,
        ),
        form("a line break behind the model", parts(&[&format!("{MODEL}\r\n")]), NO_NAME),
        form("cut short", parts(&[MODEL, FILE])[..60].to_vec(), BAD_FORM),
        form(
            "without its end",
            parts(&[MODEL]).split_last_chunk::<4>().unwrap().0.to_vec(),
            BAD_FORM,
        ),
        form("a preamble", [b"x\r\n", &*parts(&[MODEL])].concat(), BAD_FORM),
        form("JSON as preamble", [b"{\"model\":\"n\"}\r\n", &*parts(&[MODEL])].concat(), BAD_FORM),
        form("an epilogue", [&*parts(&[MODEL]), b"x"].concat(), BAD_FORM),
        form(
            "a second form",
            [parts(&[MODEL]), parts(&[&named("name=\"model\"")])].concat(),
            BAD_FORM,
        ),
        form("bare line feeds", bare, BAD_FORM),
        form(
            "a delimiter after a bare line feed",
            parts(&[
                MODEL,
                &format!("{FILE}\n--b1\nContent-Disposition: form-data; name=\"model\"\n\nn"),
            ]),
            BAD_FORM,
        ),
        form(
            "a longer boundary",
            parts(&[MODEL, &format!("{FILE}\r\n--b1b\r\n{}", named("name=\"model\""))]),
            BAD_FORM,
        ),
        typed(
            "two boundaries",
            "multipart/form-data; boundary=b1; boundary=b2",
            parts(&[MODEL]),
            NOT_FORM,
        ),
        typed(
            "a charset",
            "multipart/form-data; boundary=b1; charset=utf-7",
            parts(&[MODEL]),
            NOT_FORM,
        ),
        typed("no boundary", "multipart/form-data", parts(&[MODEL]), NOT_FORM),
        typed("urlencoded", "application/x-www-form-urlencoded", b"model=m".to_vec(), NOT_FORM),
        typed("JSON", "application/json", b"{\"model\":\"m\"}".to_vec(), NOT_FORM),
        form("compressed", parts(&[MODEL]), COMPRESSED_FORM).header("content-encoding", "gzip"),
        form(
            "longer than what is shown",
            parts(&[MODEL, &format!("{FILE}{}", "x".repeat(SHOWN))]),
            CUT,
        ),
    ];
    for header in [
        "X-Content-Disposition: form-data; name=\"model\"",
        "Content-Encoding: gzip",
        "Content-Type: multipart/mixed; boundary=c",
        "X: y",
        "Content-Length: +1",
    ] {
        let part = format!("{header}\r\nContent-Disposition: form-data; name=\"a\"\r\n\r\nn");
        cases.push(form(&format!("a part with {header}"), parts(&[MODEL, &part]), BAD_FORM));
    }
    for name in ["models", "Lora_Path", "fallbacks[]", "extra_body", "Deployment_Id", "prompt_id"] {
        let part = named(&format!("name=\"{name}\""));
        let rival = Err("may choose another model");
        cases.push(form(&format!("{name} beside it"), parts(&[MODEL, &part]), rival));
    }
    for name in ["Model", "MODEL", "model[]", "model[0]", "model.x"] {
        let part = named(&format!("name=\"{name}\""));
        cases.push(form(&format!("{name} beside it"), parts(&[MODEL, &part]), REPEATED));
    }
    for parameters in [
        "name=\"model \"",
        "name=\"a\"; name=\"model\"",
        "filename=\"a\"; name=\"model\"",
        "name*=utf-8''model",
        "name=\"a\"; name*=utf-8''model",
        "name=\"a\"; filename=\"x\\\"; name=\\\"model\"",
        "name=\"a\"; filename=\"x; name=model\"",
        "name=\"mod\\el\"",
        "name=\"_charset_\"",
    ] {
        let part = named(parameters);
        cases.push(form(parameters, parts(&[MODEL, &part]), BAD_FORM));
    }
    let file = MODEL.replace("\"model\"", "\"model\"; filename=\"m\"");
    cases.push(form("the model as a file", parts(&[&file]), NO_NAME));
    let encoded = "Content-Disposition: form-data; name=\"model\"\r\nContent-Transfer-Encoding: base64\r\n\r\nbQ==";
    cases.push(form("a transfer encoding", parts(&[encoded]), BAD_FORM));
    let folded = "Content-Disposition: form-data;\r\n name=\"model\"\r\n\r\nm";
    cases.push(form("a folded header", parts(&[folded]), BAD_FORM));
    cases
}

fn other_calls() -> Vec<Case> {
    let json = |name: &str, path, body: &str, expected| {
        Case::new(name, path, body, expected).header("content-type", "application/json")
    };
    vec![
        json("Ollama", "/proxy/acme/api/chat", r#"{"model":"m","stream":false}"#, M),
        json("its other name for it", "/proxy/acme/api/show", r#"{"name":"m"}"#, ABSENT),
        json("both names", "/proxy/acme/api/pull", r#"{"name":"n","model":"m"}"#, M),
        json(
            "copying, with a model as decoy",
            "/proxy/acme/api/copy",
            r#"{"model":"m","source":"n","destination":"m"}"#,
            ELSEWHERE,
        ),
        json(
            "creating one model from another",
            "/proxy/acme/api/create",
            r#"{"model":"m","from":"n"}"#,
            ELSEWHERE,
        ),
    ]
}

/// Members by which backends choose a model, beside `model` or instead of it.
fn rivals() -> Vec<Case> {
    [
        (r#"{"model":"m","models":["n"]}"#, Err("`models` may choose another model")),
        (r#"{"models":["n"],"model":"m"}"#, Err("`models` may choose another model")),
        (r#"{"model":"m","fallbacks":["n"]}"#, Err("`fallbacks` may choose another model")),
        (r#"{"model":"m","FallBacks":["n"]}"#, Err("`fallbacks` may choose another model")),
        (r#"{"model":"m","model_list":[]}"#, Err("`model_list` may choose another model")),
        (r#"{"model":"m","lora\u005fpath":"n"}"#, Err("`lora_path` may choose another model")),
        (
            r#"{"model":"m","extra_body":{"model":"n"}}"#,
            Err("`extra_body` may choose another model"),
        ),
        (
            r#"{"router_settings_override":{"fallbacks":[{"m":["n"]}]},"model":"m"}"#,
            Err("`router_settings_override` may choose another model"),
        ),
        (r#"{"model":"m","deployment_id":"n"}"#, Err("`deployment_id` may choose another model")),
        (r#"{"model":"m","model_id":"n"}"#, Err("`model_id` may choose another model")),
        (r#"{"model":"m","prompt_id":"n"}"#, Err("`prompt_id` may choose another model")),
        (r#"{"model":"m","preset":"n"}"#, Err("`preset` may choose another model")),
        (r#"{"model":"m","lora_request":{}}"#, Err("`lora_request` may choose another model")),
        (r#"{"model":"m","adapters":"n"}"#, Err("`adapters` may choose another model")),
        (r#"{"model":"m","prompt":"x","metadata":{"model_id":"n"},"extra_headers":{}}"#, M),
        (r#"{"model":"m","x":{"models":["n"]}}"#, M),
        ("{\"model\":\"m\",\"model\u{17f}\":[\"n\"]}", Err("`models` may choose another model")),
    ]
    .into_iter()
    .map(|(body, expected)| json(&format!("beside it: {body}"), body, expected))
    .collect()
}

/// Queries, with a good body.
fn queries() -> Vec<Case> {
    [
        ("/proxy/acme/v1/chat/completions?", M),
        ("/proxy/acme/v1/chat/completions?beta=true&x=model", M),
        ("/proxy/acme/v1/chat/completions?x=%6dodel+n", M),
        ("/proxy/acme/v1/chat/completions?model=n", IN_QUERY),
        ("/proxy/acme/v1/chat/completions?model=m", IN_QUERY),
        ("/proxy/acme/v1/chat/completions?x=y&model", IN_QUERY),
        ("/proxy/acme/v1/chat/completions?x=y;Model=n", IN_QUERY),
        ("/proxy/acme/v1/chat/completions?model[]=n", IN_QUERY),
        ("/proxy/acme/v1/chat/completions?mod%65l=n", IN_QUERY),
        ("/proxy/acme/v1/chat/completions?+model=n", IN_QUERY),
        ("/proxy/acme/v1/chat/completions?models=n", IN_QUERY),
        ("/proxy/acme/v1/chat/completions?model_id=n", IN_QUERY),
        (
            format!("/proxy/acme/v1/chat/completions?{}", "&".repeat(1000)).leak(),
            TOO_MANY_PARAMETERS,
        ),
    ]
    .into_iter()
    .map(|(path, expected)| {
        let case = Case::new(path, path, r#"{"model":"m"}"#, expected);
        case.header("content-type", "application/json")
    })
    .collect()
}
