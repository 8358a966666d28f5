//! Path templates: whole segments, each literal or named, and at most one named tail.

/// Most segments of a template: more than any API needs. It bounds the depth of a search in a tree.
const MAX_SEGMENTS: usize = 32;

/// A pattern that a path must match.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Template {
    pub(super) segments: Vec<Segment>,
    /// The name of the tail: one or more segments that end the path.
    pub(super) tail: Option<Box<str>>,
}

/// One segment of a template.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Segment {
    /// This text, which must match exactly.
    Literal(Box<str>),
    /// Any one segment, under this name.
    Parameter(Box<str>),
}

/// The position of a parameter's value in a path that matched.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Capture {
    Segment(usize),
    Tail(usize),
}

impl Template {
    /// Reads a template that begins with `/`; `/` alone has no segments.
    pub(super) fn parse(text: &str) -> Result<Self, String> {
        let segments = text.strip_prefix('/').ok_or("a path begins with `/`")?;
        let mut template = Self::default();
        if segments.is_empty() {
            return Ok(template);
        }
        for segment in segments.split('/') {
            if template.tail.is_some() {
                return Err("a tail such as `{*name}` must end the path".to_owned());
            }
            match parameter(segment) {
                Some(name) => match name.strip_prefix('*') {
                    Some(name) => template.tail = Some(named(name)?),
                    None => template.segments.push(Segment::Parameter(named(name)?)),
                },
                None => template.segments.push(Segment::Literal(literal(segment)?)),
            }
        }
        template.check()?;
        Ok(template)
    }

    /// Returns this template with `rest` below it.
    pub(super) fn join(&self, rest: &Self) -> Result<Self, String> {
        let segments = [&self.segments[..], &rest.segments].concat();
        let joined = Self { segments, tail: rest.tail.clone() };
        joined.check()?;
        Ok(joined)
    }

    fn check(&self) -> Result<(), String> {
        if self.segments.len() > MAX_SEGMENTS {
            return Err(format!("a path has at most {MAX_SEGMENTS} segments"));
        }
        let names: Vec<_> = self.names().collect();
        match names.iter().enumerate().find(|(at, name)| names[..*at].contains(name)) {
            Some((_, name)) => Err(format!("`{{{name}}}` occurs twice")),
            None => Ok(()),
        }
    }

    /// Returns the names of all parameters.
    pub(super) fn names(&self) -> impl Iterator<Item = &str> {
        let parameters = self.segments.iter().filter_map(|segment| match segment {
            Segment::Parameter(name) => Some(&**name),
            Segment::Literal(_) => None,
        });
        parameters.chain(self.tail.as_deref())
    }

    /// Returns the position of a parameter's value.
    pub(super) fn capture(&self, name: &str) -> Option<Capture> {
        let named =
            |segment: &Segment| matches!(segment, Segment::Parameter(known) if **known == *name);
        let at = self.segments.iter().position(named).map(Capture::Segment);
        at.or_else(|| {
            let tail = self.tail.as_deref().filter(|tail| *tail == name);
            tail.map(|_| Capture::Tail(self.segments.len()))
        })
    }

    /// Returns whether some path begins with both templates.
    pub(super) fn shares_paths_below(&self, other: &Self) -> bool {
        self.segments.iter().zip(&other.segments).all(|pair| match pair {
            (Segment::Literal(one), Segment::Literal(other)) => one == other,
            _ => true,
        })
    }
}

impl Capture {
    /// Returns the value in a path that matched the template.
    pub(super) fn of(self, path: &str) -> Option<&str> {
        let segments = path.strip_prefix('/')?;
        let value = match self {
            Self::Segment(at) => segments.split('/').nth(at),
            Self::Tail(from) => segments.splitn(from + 1, '/').nth(from),
        };
        value.filter(|value| !value.is_empty())
    }
}

fn parameter(segment: &str) -> Option<&str> {
    segment.strip_prefix('{')?.strip_suffix('}')
}

fn named(name: &str) -> Result<Box<str>, String> {
    let well_formed = name.starts_with(|first: char| first.is_ascii_lowercase())
        && name.bytes().all(|byte| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'_'));
    if well_formed {
        Ok(name.into())
    } else {
        Err(format!("`{{{name}}}`: the name of a parameter is of a-z, 0-9 and _"))
    }
}

/// Parses a literal segment. A literal that no canonical path contains would make a rule that no request
/// reaches. A literal in the form of another router's parameter would make a rule that the author did
/// not mean.
fn literal(segment: &str) -> Result<Box<str>, String> {
    let problem = match segment {
        "" => "a path has no empty segments and no `/` at its end",
        "." | ".." => "a path has no `.` and `..`",
        _ if segment.contains(['{', '}']) => "a parameter is a whole segment, such as `{id}`",
        _ if segment.starts_with(':') => "a parameter is written `{id}`, not `:id`",
        _ if segment.contains('*') => "a tail is written `{*name}`; there is no other wildcard",
        _ if !segment.bytes().all(|b| b.is_ascii_graphic() && !b"%;\\?#".contains(&b)) => {
            "a request's path has visible ASCII characters only, and no `%`, `;`, `\\`, `?`, `#`"
        }
        _ => return Ok(segment.into()),
    };
    Err(format!("`{segment}`: {problem}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_way_to_write_a_template() {
        for text in ["/", "/a", "/a/{b}", "/{a}/b/{*c}", "/v1.2/x:y/~_-", "/Users/.search"] {
            assert!(Template::parse(text).is_ok(), "{text}");
        }
        let long = "/a".repeat(MAX_SEGMENTS + 1);
        for (text, problem) in [
            ("", "begins with"),
            ("a", "begins with"),
            ("/a/", "empty"),
            ("//a", "empty"),
            ("/a/./b", "`..`"),
            ("/a/..", "`..`"),
            ("/a%20b", "visible"),
            ("/a;b", "visible"),
            ("/a?b", "visible"),
            ("/ä", "visible"),
            ("/a b", "visible"),
            ("/{*a}/b", "must end"),
            ("/{a}.json", "whole segment"),
            ("/a{b}", "whole segment"),
            ("/{A}", "name of a parameter"),
            ("/{}", "name of a parameter"),
            ("/{**a}", "name of a parameter"),
            ("/:id", "not `:id`"),
            ("/*", "wildcard"),
            ("/{a}/{a}", "twice"),
            ("/{a}/{*a}", "twice"),
            (&long, "at most"),
        ] {
            let message = Template::parse(text).unwrap_err();
            assert!(message.contains(problem), "{text}: {message}");
        }
    }

    #[test]
    fn captures() {
        let template = Template::parse("/a/{b}/c/{*d}").unwrap();
        let value = |name| template.capture(name).and_then(|at| at.of("/a/1/c/2/3"));
        assert_eq!((value("b"), value("d"), value("a")), (Some("1"), Some("2/3"), None));
    }
}
