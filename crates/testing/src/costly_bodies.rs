//! Generates costly requests: each is the costliest of its kind, of any size. The names are those
//! that the search found, or close to them.

mod compressed;

use self::compressed::compressed;

/// The maximum number of names that are compared. Members above it are placed where no name
/// matters.
const MEMBERS: usize = 9_990;
const PARTS: usize = 990;

/// The format of a body.
#[derive(Clone, Copy)]
pub enum Form {
    Json,
    Multipart,
}

impl Form {
    /// The value of its `Content-Type`.
    pub fn media_type(self) -> &'static str {
        match self {
            Self::Json => "application/json",
            Self::Multipart => "multipart/form-data; boundary=b",
        }
    }
}

/// A costly body.
pub struct Costly {
    pub name: &'static str,
    pub form: Form,
    pub bytes: Vec<u8>,
    pub encoding: Option<&'static str>,
    /// The length of the decoded body, if it is compressed.
    pub decoded: usize,
    /// Whether it names a model and is read to its end.
    pub good: bool,
}

/// Returns bodies of about `size` bytes.
pub fn bodies(size: usize) -> Vec<Costly> {
    let plain = |name, form, text: String, good| {
        let bytes = text.into_bytes();
        let encoding = None;
        let decoded = 0;
        Costly { name, form, bytes, encoding, decoded, good }
    };
    let body = |name, form, text| plain(name, form, text, true);
    let refused = |name, form, text| plain(name, form, text, false);
    let json = |name, text| body(name, Form::Json, text);
    let form = |name, text| body(name, Form::Multipart, text);
    let string = |inside: &str| format!("{{\"a\":\"{inside}\",\"model\":\"m\"}}");
    let array = |element: &str| {
        let elements = element.repeat(size / element.len());
        format!("{{\"a\":[{elements}0],\"model\":\"m\"}}")
    };
    let part = |content: &str| {
        format!("--b\r\nContent-Disposition: form-data; name=\"file\"\r\n\r\n{content}\r\n")
    };
    let model = "--b\r\nContent-Disposition: form-data; name=\"model\"\r\n\r\nm\r\n--b--\r\n";
    let short = "--b\r\ncontent-disposition:form-data;name=a\r\n\r\n\r\n";
    let many = short.repeat(PARTS.min(size / short.len()));
    let rest = part(&"x".repeat(size.saturating_sub(many.len())));
    let deep = format!("{}{},", "[".repeat(98), "]".repeat(98));
    let spaced = |count: usize| part("").replace("; name", &format!(";{} name", " ".repeat(count)));
    let mut bodies = vec![
        json("one string", string(&"x".repeat(size))),
        json("white space", object(size, &" ".repeat(size))),
        json("escapes", string(&"\\u00e9".repeat(size / 6))),
        json("surrogates", string(&"\\ud83d\\ude00".repeat(size / 12))),
        json("backslashes", string(&"\\\\".repeat(size / 2))),
        json("small members", object(size, "\"\":0,")),
        json("names of one letter", object(size, "\"m\":0,")),
        json("near misses", object(size, "\"mode\\u006d\":0,")),
        json("nearly the longest rival", object(size, "\"context_window_fallback_dicx\":0,")),
        json("escaped and never ours", object(size, &format!("\"{}x\":0,", "\\u006c".repeat(27)))),
        json("numbers", array("1,")),
        json("signs and exponents", array("-0.0e-0,")),
        json("words", array("null,")),
        json("empty objects", array("{},")),
        json("empty strings", array("\"\",")),
        json("a long number", format!("{{\"a\":{},\"model\":\"m\"}}", "1".repeat(size))),
        json("up and down", array(&deep)),
        form("many parts", format!("{many}{rest}{model}")),
        form("near delimiters", part(&"\r\n--\r\n-".repeat(size / 7)) + model),
        form("long headers", spaced(4000).repeat(PARTS.min(size / spaced(4000).len())) + model),
        refused("never closed", Form::Json, format!("{{\"a\":\"{}", "\\\\".repeat(size / 2))),
        refused("too deep", Form::Json, format!("{{\"a\":{}", "[".repeat(size))),
        refused("too many members", Form::Json, format!("{{{}", "\"\":0,".repeat(size / 5))),
        refused("too many parts", Form::Multipart, short.repeat(size / short.len()) + model),
        refused("a header of spaces", Form::Multipart, spaced(size) + model),
    ];
    bodies.extend(compressed(size));
    bodies
}

/// Makes an object of these members, with as many more in an inner object as needed for the size.
pub fn object(size: usize, member: &str) -> String {
    let count = size / member.len();
    let outer = member.repeat(count.min(MEMBERS));
    let inner = member.repeat(count.saturating_sub(MEMBERS));
    format!("{{{outer}\"a\":{{{inner}\"\":0}},\"model\":\"org\\/m\"}}")
}

/// Returns targets with queries of about `size` bytes.
pub fn targets(size: usize) -> Vec<(&'static str, String)> {
    let query = |text: &str| format!("/a?{}", text.repeat(size / text.len()));
    vec![
        ("nothing but separators", query("&")),
        ("all separators", query("&;?")),
        ("keys of one letter", query("m&")),
        ("near misses", query("modem&")),
        ("nearly the longest rival", query("context_window_fallback_dicx&")),
        ("brackets", query("m[&")),
        ("one key", query("m")),
        ("one value", query("=")),
    ]
}
