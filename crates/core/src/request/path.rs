//! The path of a request, which has exactly one spelling.

use memchr::memchr;

use crate::refusal::{MalformedPart, Refusal};

/// The longest path in bytes. No protected path is longer.
const MAX_PATH_LEN: usize = 4096;

/// Returns the path of a target, as the client sent it.
pub fn without_query(target: &str) -> &str {
    memchr(b'?', target.as_bytes()).map_or(target, |at| &target[..at])
}

/// Returns the path, if it is the only spelling of itself.
///
/// It refuses everything that a server behind the proxy might read differently: empty and dot
/// segments, backslashes, path parameters, percent-encoding, bytes outside visible ASCII.
pub(super) fn canonical_path<'a>(target: &str, path: &'a str) -> Result<&'a str, Refusal> {
    let malformed = Refusal::BadRequest(MalformedPart::Path);
    let segments = path.strip_prefix('/').ok_or(malformed)?;
    // A fold, not a search: without an exit from the loop, the compiler checks many bytes at a
    // time.
    let visible = |byte: u8| byte.is_ascii_graphic() & (byte != b'#');
    let literal = |byte: u8| (byte != b'%') & (byte != b';') & (byte != b'\\');
    let visible = target.bytes().fold(true, |all, byte| all & visible(byte));
    let literal = path.bytes().fold(true, |all, byte| all & literal(byte));
    if !visible || !literal || path.len() > MAX_PATH_LEN {
        return Err(malformed);
    }
    let named = |segment: &[u8]| !matches!(segment, b"" | b"." | b"..");
    // The root path has no segments.
    let canonical =
        segments.is_empty() || segments.as_bytes().split(|byte| *byte == b'/').all(named);
    if canonical { Ok(path) } else { Err(malformed) }
}

/// What makes a target another spelling of a path.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Misspelling {
    /// A character that has more than one spelling, or that only some servers read.
    Character(char),
    /// It does not begin with `/`.
    NotRooted,
    /// Its path is longer than any that we protect.
    TooLong,
    /// It ends with `/`.
    TrailingSlash,
    /// It has a segment `.` or `..`.
    DotSegment,
    /// It has an empty segment.
    EmptySegment,
}

/// Returns why [`parse`](super::parse) refuses a target; `None` if it does not. Slow, because only people read
/// it.
pub fn misspelling(target: &str) -> Option<Misspelling> {
    let path = without_query(target);
    let invisible = target.chars().find(|c| !c.is_ascii_graphic() || *c == '#');
    let ambiguous = || path.chars().find(|c| matches!(c, '%' | ';' | '\\'));
    if let Some(found) = invisible.or_else(ambiguous) {
        return Some(Misspelling::Character(found));
    }
    let Some(segments) = path.strip_prefix('/') else { return Some(Misspelling::NotRooted) };
    if path.len() > MAX_PATH_LEN {
        return Some(Misspelling::TooLong);
    }
    match segments {
        "" => None,
        _ if segments.ends_with('/') => Some(Misspelling::TrailingSlash),
        _ => segments.split('/').find_map(|segment| match segment {
            "" => Some(Misspelling::EmptySegment),
            "." | ".." => Some(Misspelling::DotSegment),
            _ => None,
        }),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn canonical(target: &str) -> Result<&str, Refusal> {
        canonical_path(target, without_query(target))
    }

    #[test]
    fn one_spelling_of_a_path() {
        for path in ["/", "/a", "/a/b", "/a.b/..c/c..", "/a:b@c!$&'()*+=~_-", "/a?b=%2F//..;"] {
            let expected = path.split('?').next().unwrap();
            assert_eq!(canonical(path), Ok(expected), "{path}");
        }
        let long = format!("/{}", "a".repeat(MAX_PATH_LEN));
        for path in [
            "",
            "a",
            "*",
            "//",
            "/a/",
            "/a//b",
            "//a",
            "/.",
            "/a/.",
            "/./a",
            "/..",
            "/a/../b",
            "/%61",
            "/a%2Fb",
            "/a;b",
            "/a\\b",
            "/a#b",
            "/a?b#c",
            "/a b",
            "/a\tb",
            "/a\0b",
            "/ä",
            "/a\u{7f}",
            "http://x/a",
            &long,
        ] {
            assert_eq!(canonical(path), Err(Refusal::BadRequest(MalformedPart::Path)), "{path:?}");
        }
    }

    #[test]
    fn each_misspelling_has_its_name() {
        use Misspelling::*;
        let long = format!("/{}", "a".repeat(MAX_PATH_LEN));
        for (target, expected) in [
            ("/", None),
            ("/a/b?c=%2F//", None),
            ("/a#b", Some(Character('#'))),
            ("/a?b#c", Some(Character('#'))),
            ("/ä", Some(Character('ä'))),
            ("/a%2Fb", Some(Character('%'))),
            ("/a;b", Some(Character(';'))),
            ("a/b", Some(NotRooted)),
            ("", Some(NotRooted)),
            (&long, Some(TooLong)),
            ("/a/", Some(TrailingSlash)),
            ("//", Some(TrailingSlash)),
            ("/a//b", Some(EmptySegment)),
            ("/a/../b", Some(DotSegment)),
        ] {
            assert_eq!(misspelling(target), expected, "{target:.40}");
        }
    }

    /// Targets around the longest path, and with everything that gives a path another spelling.
    fn any_target() -> impl Strategy<Value = String> {
        let near_the_limit = (MAX_PATH_LEN - 3..MAX_PATH_LEN + 3, "[a/.?]{0,3}")
            .prop_map(|(length, rest)| format!("/{}{rest}", "a".repeat(length)));
        prop_oneof![".{0,12}", "/?[a-c./%;\\\\2eEfF?# ]{0,12}", "(/[a.]{0,2}){0,4}", near_the_limit]
    }

    proptest! {
        #[test]
        fn a_misspelling_is_found_in_what_is_refused_and_in_nothing_else(target in any_target()) {
            prop_assert_eq!(misspelling(&target).is_some(), canonical(&target).is_err());
        }

        /// A path that passes means the same to a server that collapses, decodes or strips.
        #[test]
        fn a_canonical_path_survives_normalisation(target in "/[a-c./%;\\\\2eEfF?# ]{0,12}") {
            if let Ok(path) = canonical(&target) {
                prop_assert!(!path.contains("//") && !path.contains(['%', ';', '\\', '?', '#']));
                prop_assert!(path.split('/').skip(1).all(|s| s != "." && s != ".."));
            }
        }
    }
}
