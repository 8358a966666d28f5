//! Finds the value that was inserted under a path template, in a time that depends on the path and not
//! on the number of templates. A search does not allocate.

use std::collections::HashMap;

use foldhash::fast::RandomState;
use memchr::memchr;

use super::template::{Segment, Template};

/// Values by path template.
#[derive(Debug)]
pub(super) struct Tree<T> {
    /// The first node is the root.
    nodes: Vec<TreeNode<T>>,
}

#[derive(Debug)]
struct TreeNode<T> {
    literals: HashMap<Box<str>, usize, RandomState>,
    parameter: Option<usize>,
    /// The values of templates that end here.
    here: Vec<T>,
    /// The values of templates whose tail begins here.
    beyond: Vec<T>,
}

impl<T> Default for Tree<T> {
    fn default() -> Self {
        Self { nodes: vec![TreeNode::new()] }
    }
}

impl<T> TreeNode<T> {
    fn new() -> Self {
        Self { literals: HashMap::default(), parameter: None, here: Vec::new(), beyond: Vec::new() }
    }
}

impl<T> Tree<T> {
    pub(super) fn insert(&mut self, template: &Template, value: T) {
        let mut at = 0;
        for segment in &template.segments {
            let free = self.nodes.len();
            let next = match segment {
                Segment::Literal(text) => {
                    *self.nodes[at].literals.entry(text.clone()).or_insert(free)
                }
                Segment::Parameter(_) => *self.nodes[at].parameter.get_or_insert(free),
            };
            if next == free {
                self.nodes.push(TreeNode::new());
            }
            at = next;
        }
        let node = &mut self.nodes[at];
        match template.tail {
            None => node.here.push(value),
            Some(_) => node.beyond.push(value),
        }
    }

    /// Returns a value that `accept` accepts, of a template that matches the whole path. If templates that
    /// overlap never have two such values, there is at most one.
    pub(super) fn find(&self, path: &str, accept: impl Fn(&T) -> bool) -> Option<&T> {
        let segments = path.strip_prefix('/')?;
        self.search(0, Some(segments).filter(|rest| !rest.is_empty()), &accept)
    }

    fn search(&self, at: usize, rest: Option<&str>, accept: &impl Fn(&T) -> bool) -> Option<&T> {
        let node = &self.nodes[at];
        let Some(rest) = rest else { return node.here.iter().find(|value| accept(value)) };
        let (segment, after) = first(rest);
        if segment.is_empty() {
            return None;
        }
        let literal = node.literals.get(segment).and_then(|next| self.search(*next, after, accept));
        literal
            .or_else(|| node.parameter.and_then(|next| self.search(next, after, accept)))
            .or_else(|| node.beyond.iter().find(|value| accept(value)))
    }

    /// Returns the value of a template that matches the beginning of a path.
    pub(super) fn find_above(&self, path: &str) -> Option<&T> {
        let segments = path.strip_prefix('/')?;
        self.descend(0, Some(segments).filter(|rest| !rest.is_empty()))
    }

    fn descend(&self, at: usize, rest: Option<&str>) -> Option<&T> {
        let node = &self.nodes[at];
        if let Some(value) = node.here.first() {
            return Some(value);
        }
        let (segment, after) = first(rest?);
        if segment.is_empty() {
            return None;
        }
        let literal = node.literals.get(segment).and_then(|next| self.descend(*next, after));
        literal.or_else(|| node.parameter.and_then(|next| self.descend(next, after)))
    }

    /// Calls `found` with each value whose template matches some path that `template` matches.
    pub(super) fn overlapping(&self, template: &Template, found: &mut impl FnMut(&T)) {
        self.overlap(0, &template.segments, template.tail.is_some(), found);
    }

    fn overlap(&self, at: usize, segments: &[Segment], tail: bool, found: &mut impl FnMut(&T)) {
        let node = &self.nodes[at];
        if tail || !segments.is_empty() {
            node.beyond.iter().for_each(&mut *found);
        }
        match segments.split_first() {
            None if tail => node.children().for_each(|child| self.everything(child, found)),
            None => node.here.iter().for_each(found),
            Some((Segment::Literal(text), rest)) => {
                for next in node.literals.get(text).copied().into_iter().chain(node.parameter) {
                    self.overlap(next, rest, tail, found);
                }
            }
            Some((Segment::Parameter(_), rest)) => {
                node.children().for_each(|next| self.overlap(next, rest, tail, found));
            }
        }
    }

    fn everything(&self, at: usize, found: &mut impl FnMut(&T)) {
        let node = &self.nodes[at];
        node.here.iter().chain(&node.beyond).for_each(&mut *found);
        node.children().for_each(|child| self.everything(child, found));
    }
}

impl<T> TreeNode<T> {
    fn children(&self) -> impl Iterator<Item = usize> {
        self.literals.values().copied().chain(self.parameter)
    }
}

fn first(rest: &str) -> (&str, Option<&str>) {
    match memchr(b'/', rest.as_bytes()) {
        Some(at) => (&rest[..at], Some(&rest[at + 1..])),
        None => (rest, None),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn template(text: &str) -> Template {
        Template::parse(text).unwrap()
    }

    fn tree(templates: &[&'static str]) -> Tree<&'static str> {
        let mut tree = Tree::default();
        templates.iter().for_each(|text| tree.insert(&template(text), *text));
        tree
    }

    #[test]
    fn every_template_is_found_whatever_stands_beside_it() {
        let tree = tree(&["/", "/a/b/c", "/a/{x}/d", "/{y}/b/e", "/t/{*rest}", "/t"]);
        for (path, expected) in [
            ("/", Some("/")),
            ("/a/b/c", Some("/a/b/c")),
            ("/a/b/d", Some("/a/{x}/d")),
            ("/a/b/e", Some("/{y}/b/e")),
            ("/t", Some("/t")),
            ("/t/1", Some("/t/{*rest}")),
            ("/t/1/2", Some("/t/{*rest}")),
            ("", None),
            ("a", None),
            ("/a", None),
            ("/a/b", None),
            ("/a/b/c/", None),
            ("/a//d", None),
            ("/t/", None),
            ("/t//", None),
            ("/A/b/c", None),
        ] {
            assert_eq!(tree.find(path, |_| true).copied(), expected, "{path}");
        }
    }

    #[test]
    fn the_beginning_of_a_path() {
        let tree = tree(&["/a/b", "/a/{x}/c", "/d"]);
        for (path, expected) in [
            ("/a/b", Some("/a/b")),
            ("/a/b/", Some("/a/b")),
            ("/a/b//%2e", Some("/a/b")),
            ("/a/y/c/z", Some("/a/{x}/c")),
            ("/a/y/z", None),
            ("/d/e", Some("/d")),
            ("/de", None),
            ("/", None),
        ] {
            assert_eq!(tree.find_above(path).copied(), expected, "{path}");
        }
    }

    /// Whether a template matches, by definition.
    fn matches(template: &Template, path: &str) -> bool {
        let given: Vec<_> = path[1..].split('/').collect();
        let fits = |(segment, given): (&Segment, &&str)| match segment {
            Segment::Literal(text) => **text == **given,
            Segment::Parameter(_) => true,
        };
        let long_enough = match template.tail {
            Some(_) => given.len() > template.segments.len(),
            None => given.len() == template.segments.len(),
        };
        long_enough && template.segments.iter().zip(&given).all(fits)
    }

    fn any_template() -> impl Strategy<Value = Template> {
        let segment = prop_oneof!["[ab]", Just("{p}".to_owned())];
        (prop::collection::vec(segment, 1..4), any::<bool>()).prop_map(|(segments, tail)| {
            let name = |(at, text): (usize, &String)| text.replace('p', &format!("p{at}"));
            let mut text: Vec<_> = segments.iter().enumerate().map(name).collect();
            text.extend(tail.then(|| "{*t}".to_owned()));
            Template::parse(&format!("/{}", text.join("/"))).unwrap()
        })
    }

    proptest! {
        /// The tree agrees with the definition, on what matches and on what overlaps.
        #[test]
        fn a_tree_is_its_templates(
            templates in prop::collection::vec(any_template(), 1..6),
            other in any_template(),
        ) {
            let mut tree = Tree::default();
            templates.iter().enumerate().for_each(|(at, template)| tree.insert(template, at));
            let mut overlaps = vec![false; templates.len()];
            tree.overlapping(&other, &mut |at| overlaps[*at] = true);
            let mut expected = vec![false; templates.len()];
            // Three letters, one of which no literal has, and one segment more than templates have.
            let mut paths = vec![String::new()];
            let mut longer = paths.clone();
            for _ in 0..4 {
                longer = longer.iter().flat_map(|p| ["a", "b", "c"].map(|s| format!("{p}/{s}"))).collect();
                paths.extend(longer.iter().cloned());
            }
            for path in &paths[1..] {
                for (at, template) in templates.iter().enumerate() {
                    let found = tree.find(path, |value| *value == at);
                    prop_assert_eq!(found.is_some(), matches(template, path));
                    expected[at] |= matches(template, path) && matches(&other, path);
                }
            }
            prop_assert_eq!(overlaps, expected);
        }
    }
}
