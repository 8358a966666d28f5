//! What becomes of a path in the shipped Envoy before it asks: patgate itself refuses every path that
//! has another spelling, but Envoy rewrites some of them, and refuses others by itself.

use crate::request::without_query;

/// What the shipped Envoy does with a path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Arrival {
    /// It asks about the path as the client sent it.
    Unchanged,
    /// It asks about this path, with the query as the client sent it.
    Rewritten(String),
    /// It refuses the request, with 400 and the code `path_not_accepted`, and does not ask.
    Refused,
}

/// Returns what the shipped Envoy does with the path of a target: `path_with_escaped_slashes_action`
/// refuses escaped slashes, `normalize_path` decodes letters, digits and `-._~`, turns `\` into `/` and
/// resolves `.` and `..`, and then `merge_slashes` leaves one slash of several. Integration tests
/// compare this with a real Envoy.
pub fn arrival(target: &str) -> Arrival {
    let path = without_query(target);
    let query = target.get(path.len()..).unwrap_or_default();
    if !path.starts_with('/') {
        return Arrival::Unchanged;
    }
    if target.contains('#') || ["%2f", "%5c", "%00"].iter().any(|it| has_escaped(path, it)) {
        return Arrival::Refused;
    }
    let mut segments: Vec<String> = Vec::new();
    let mut rest = path.split(['/', '\\']).skip(1).map(decoded).peekable();
    while let Some(segment) = rest.next() {
        let last = rest.peek().is_none();
        match &*segment {
            ".." => drop(segments.pop()),
            "." => {}
            _ => {
                segments.push(segment);
                continue;
            }
        }
        // What ends with a dot segment ends with a slash.
        if last {
            segments.push(String::new());
        }
    }
    let ends = segments.last().is_some_and(String::is_empty);
    segments.retain(|segment| !segment.is_empty());
    let slash = if ends && !segments.is_empty() { "/" } else { "" };
    let rewritten = format!("/{}{slash}", segments.join("/"));
    match rewritten == path {
        true => Arrival::Unchanged,
        false => Arrival::Rewritten(format!("{rewritten}{query}")),
    }
}

fn has_escaped(path: &str, escaped: &str) -> bool {
    path.as_bytes().windows(escaped.len()).any(|it| it.eq_ignore_ascii_case(escaped.as_bytes()))
}

/// Decodes what needs no escape in a path; leaves the rest as it is.
fn decoded(segment: &str) -> String {
    let mut plain = String::with_capacity(segment.len());
    let mut rest = segment;
    while let Some(at) = rest.find('%') {
        let (before, escaped) = rest.split_at(at);
        plain.push_str(before);
        let byte = escaped.get(1..3).filter(|it| it.bytes().all(|byte| byte.is_ascii_hexdigit()));
        let byte = byte.and_then(|digits| u8::from_str_radix(digits, 16).ok());
        match byte.map(char::from) {
            Some(c) if c.is_ascii_alphanumeric() || matches!(c, '-' | '.' | '_' | '~') => {
                plain.push(c);
                rest = escaped.get(3..).unwrap_or_default();
            }
            _ => {
                plain.push('%');
                rest = escaped.get(1..).unwrap_or_default();
            }
        }
    }
    plain.push_str(rest);
    plain
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_arrives_as_the_shipped_envoy_sends_it() {
        for (sent, arrives) in [
            ("/a/b", None),
            ("/", None),
            ("/a/", None),
            ("/a?b=//%2F", None),
            ("/a//b", Some("/a/b")),
            ("//a///b?c=//", Some("/a/b?c=//")),
            ("//", Some("/")),
            ("/a//", Some("/a/")),
            ("/a/./b", Some("/a/b")),
            ("/a/../b", Some("/b")),
            ("/../a", Some("/a")),
            ("/a/b/..", Some("/a/")),
            ("/a/.", Some("/a/")),
            ("/a/..", Some("/")),
            // The slashes are merged last.
            ("/a//../b", Some("/a/b")),
            ("/a/%2e%2E/b", Some("/b")),
            ("/%61%7E", Some("/a~")),
            ("/a\\b", Some("/a/b")),
            ("/a%20b", None),
            ("/a%252e", None),
            ("/a%", None),
            ("/a%zz%4", None),
            ("/a/...", None),
            ("a//b", None),
        ] {
            let expected = arrives
                .map_or(Arrival::Unchanged, |path: &str| Arrival::Rewritten(path.to_owned()));
            assert_eq!(arrival(sent), expected, "{sent}");
        }
        for refused in ["/a%2Fb", "/a%2fb", "/a%5Cb", "/a%5c", "/a%00", "/a#b", "/a?b#c"] {
            assert_eq!(arrival(refused), Arrival::Refused, "{refused}");
        }
    }
}
