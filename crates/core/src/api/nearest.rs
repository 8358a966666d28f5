//! Finds the rule that is nearest to a request without a rule, for the error message. It decides
//! nothing.
//!
//! Most errors are in base URLs: `/v1` is missing or doubled, the domain is missing, or the client uses
//! the whole URL of one call as the base URL. So paths are compared by segments, of which some may be
//! missing, too many or misspelt. The number of comparisons is bounded, whatever the length of the
//! path and the number of rules.

use std::fmt::Write as _;

use super::{
    Api, Apis, DomainSource, ErrorStyle, Method, Rule,
    template::{Segment, Template},
};

/// Most segments of a path that are compared: the last ones, which clients append to their base URL.
const MAX_SEGMENTS: usize = 12;
/// Most comparisons of a segment with a segment, over all rules. Further rules are ignored.
const MAX_COMPARISONS: usize = 10_000;
/// Most bytes of a segment that is compared with a word as a misspelling.
const MAX_MISSPELT: usize = 32;

/// The cost of a segment that is missing or too many. A version such as `v1` costs less: base URLs often
/// lack it, or have it twice.
const A_SEGMENT: u32 = 8;
/// The cost of a missing word, which changes what is called.
const A_WORD: u32 = 16;
const A_VERSION: u32 = 4;
const A_SPELLING: u32 = 3;
const A_PARAMETER: u32 = 1;
const A_METHOD: u32 = 10;
/// From this cost on, the paths have nothing to do with each other.
const TOO_FAR: u32 = 48;

/// The rule and the APIs that are nearest to a request without a rule.
#[derive(Debug)]
pub struct Nearest<'a> {
    /// The API to which the request belongs.
    pub own: Option<&'a Api>,
    /// The nearest rule, if one is near enough.
    pub rule: Option<NearestRule<'a>>,
    /// Every API at this host, if the request belongs to none.
    pub others: Vec<&'a Api>,
}

/// A rule that the client may have meant.
#[derive(Clone, Copy, Debug)]
pub struct NearestRule<'a> {
    api: &'a Api,
    rule: &'a Rule,
    /// The method of the request if the rule has it, otherwise a method of the rule.
    pub method: Method,
}

impl Apis {
    /// Returns the rule that is nearest to a request with this method and path, among the rules of its own
    /// API or, if it belongs to none, of each API at its host. `known` says whether the token may be used
    /// in the domain that the path names; if not, that segment may be a part of what was meant.
    pub fn nearest<'a>(
        &'a self,
        authority: &'a str,
        method: &str,
        path: &'a str,
        known: bool,
    ) -> Nearest<'a> {
        let own = self.find(authority, path).map(|matched| matched.api);
        let others: Vec<_> = match own {
            Some(_) => Vec::new(),
            None => self.all.iter().filter(|it| it.host.covers(authority)).collect(),
        };
        let skipped = own.filter(|_| known).map_or(0, |own| own.mount.segments.len());
        let given = last_segments(path, skipped);
        let mut search =
            Search { given: &given, method: Method::of(method), left: MAX_COMPARISONS };
        let mut best: Option<(u32, NearestRule<'a>)> = None;
        for api in own.into_iter().chain(others.iter().copied()) {
            for rule in &api.rules {
                if search.left == 0 {
                    break;
                }
                let most = best.as_ref().map_or(TOO_FAR, |(cost, _)| *cost);
                if let Some((cost, method)) = search.compare(api, rule, most) {
                    best = Some((cost, NearestRule { api, rule, method }));
                }
            }
        }
        Nearest { own, rule: best.map(|(_, rule)| rule), others }
    }
}

impl Api {
    /// Returns the beginning of the paths of this API, with the domain if it is given.
    pub fn mounted_at(&self, domain: Option<&str>) -> String {
        written(&self.mount, domain)
    }

    /// Returns whether a segment of the path names the domain.
    pub fn names_domain_in_path(&self) -> bool {
        matches!(self.domain, DomainSource::Path(_))
    }

    /// Returns the path of the base URL with which a client reaches `rule`, or any rule.
    fn base(&self, rule: Option<&Rule>, domain: Option<&str>) -> String {
        let mut base = self.mounted_at(domain);
        // Only OpenAI's clients need `/v1` in their base URL: Anthropic's append it themselves.
        let wants_version = |rule: &Rule| {
            let below = rule.template.segments.get(self.mount.segments.len());
            let version = matches!(below, Some(Segment::Literal(first)) if **first == *"v1");
            version && self.error_style(&written(&rule.template, None)) == ErrorStyle::Openai
        };
        if rule.map_or_else(|| self.rules.iter().any(wants_version), wants_version) {
            base.truncate(base.trim_end_matches('/').len());
            base.push_str("/v1");
        }
        base
    }

    /// Returns the path of the base URL for clients of this API, whatever they call.
    pub fn base_of_all(&self, domain: Option<&str>) -> String {
        self.base(None, domain)
    }
}

impl NearestRule<'_> {
    /// Returns the path of the rule, with this domain, and with parameters as `<name>`.
    pub fn path(&self, domain: Option<&str>) -> String {
        written(&self.rule.template, domain)
    }

    /// Returns the path of the base URL with which a client reaches the rule.
    pub fn base(&self, domain: Option<&str>) -> String {
        self.api.base(Some(self.rule), domain)
    }
}

/// Writes a template as a path, with the domain in its place.
fn written(template: &Template, domain: Option<&str>) -> String {
    let mut text = String::new();
    for segment in &template.segments {
        // Writing to a string does not fail.
        let _ = match (segment, domain) {
            (Segment::Literal(literal), _) => write!(text, "/{literal}"),
            (Segment::Parameter(name), Some(domain)) if **name == *"domain" => {
                write!(text, "/{domain}")
            }
            (Segment::Parameter(name), _) => write!(text, "/<{name}>"),
        };
    }
    if let Some(tail) = &template.tail {
        let _ = write!(text, "/<{tail}>");
    }
    if text.is_empty() { "/".to_owned() } else { text }
}

/// Returns the last segments of a path, without the first `skipped` ones.
fn last_segments(path: &str, skipped: usize) -> Vec<&str> {
    let segments = path.split('/').skip(1 + skipped).filter(|segment| !segment.is_empty());
    let count = segments.clone().count();
    segments.skip(count.saturating_sub(MAX_SEGMENTS)).collect()
}

/// The state of a search over all rules.
struct Search<'s> {
    given: &'s [&'s str],
    method: Option<Method>,
    /// The number of comparisons that may still be made.
    left: usize,
}

impl Search<'_> {
    /// Returns the distance of the request from a rule, and the method. Returns `None` if the distance is
    /// `most` or more, or if they have no word in common.
    fn compare(&mut self, api: &Api, rule: &Rule, most: u32) -> Option<(u32, Method)> {
        let (method, other) = match self.method.filter(|method| rule.methods.contains(*method)) {
            Some(method) => (method, 0),
            None => (rule.methods.first()?, A_METHOD),
        };
        let wanted = rule.template.segments.get(api.mount.segments.len()..)?;
        self.left = self.left.saturating_sub((wanted.len() + 1) * (self.given.len() + 1));
        // The distance of each beginning of the given path from the beginning of the wanted path.
        let mut row = [0; MAX_SEGMENTS + 1];
        for (at, given) in self.given.iter().enumerate() {
            row[at + 1] = row[at] + segment_too_many(given);
        }
        let mut in_common = false;
        for wanted in wanted {
            let mut diagonal = row[0];
            row[0] += segment_missing(wanted);
            for (at, given) in self.given.iter().enumerate() {
                let replaced = difference(given, wanted);
                in_common |= replaced.is_some() && is_word(wanted);
                let missing = row[at + 1] + segment_missing(wanted);
                let least = missing.min(row[at] + segment_too_many(given));
                let least = replaced.map_or(least, |cost| least.min(diagonal + cost));
                diagonal = std::mem::replace(&mut row[at + 1], least);
            }
            if row.iter().take(self.given.len() + 1).all(|cost| cost + other >= most) {
                return None;
            }
        }
        let whole = row[self.given.len()];
        let cost = match rule.template.tail {
            None => whole,
            // The tail stands for one or more segments of any text.
            Some(_) => {
                let with_tail = row.iter().take(self.given.len()).min();
                with_tail
                    .map_or(whole + A_SEGMENT, |cost| (cost + A_PARAMETER).min(whole + A_SEGMENT))
            }
        };
        Some((cost + other, method)).filter(|(cost, _)| in_common && *cost < most)
    }
}

fn segment_too_many(given: &str) -> u32 {
    if is_version(given) { A_VERSION } else { A_SEGMENT }
}

fn segment_missing(wanted: &Segment) -> u32 {
    match wanted {
        Segment::Literal(literal) if is_version(literal) => A_VERSION,
        Segment::Literal(_) => A_WORD,
        Segment::Parameter(_) => A_SEGMENT,
    }
}

/// Returns whether a segment says what is called, and not only in which version.
fn is_word(wanted: &Segment) -> bool {
    matches!(wanted, Segment::Literal(literal) if !is_version(literal))
}

fn is_version(segment: &str) -> bool {
    let digits = segment.strip_prefix('v').unwrap_or_default();
    (1..=2).contains(&digits.len()) && digits.bytes().all(|byte| byte.is_ascii_digit())
}

/// Returns the cost of this segment in place of the wanted one; `None` if they are different words.
fn difference(given: &str, wanted: &Segment) -> Option<u32> {
    match wanted {
        Segment::Parameter(_) => Some(A_PARAMETER),
        Segment::Literal(literal) if **literal == *given => Some(0),
        Segment::Literal(literal) if is_version(literal) => None,
        Segment::Literal(literal) => misspelt(given, literal).then_some(A_SPELLING),
    }
}

/// Returns whether two words differ only in one place, by at most two characters, or in case.
fn misspelt(given: &str, wanted: &str) -> bool {
    let given = given.as_bytes();
    let wanted = wanted.as_bytes();
    let longer = given.len().max(wanted.len());
    let shorter = given.len().min(wanted.len());
    if longer > MAX_MISSPELT || shorter < 3 || longer - shorter > 2 {
        return false;
    }
    let same = |(one, other): &(&u8, &u8)| one.eq_ignore_ascii_case(other);
    let before = given.iter().zip(wanted).take_while(same).count();
    let after = given.iter().rev().zip(wanted.iter().rev()).take_while(same).count();
    before + after + 2 >= longer && before + after > 0
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Returns method and path of the nearest rule, and the path of the base URL.
    fn nearest(apis: &Apis, method: &str, path: &str) -> Option<(String, String)> {
        let known = path.starts_with("/proxy/acme/");
        let nearest = apis.nearest("gateway", method, path, known);
        let rule = nearest.rule?;
        Some((format!("{} {}", rule.method, rule.path(Some("acme"))), rule.base(Some("acme"))))
    }

    #[test]
    fn what_people_get_wrong_leads_to_what_they_meant() {
        let apis = Apis::embedded().unwrap();
        let chat = "POST /proxy/acme/v1/chat/completions";
        let v1 = "/proxy/acme/v1";
        for (method, path, expected, base) in [
            ("POST", "/proxy/acme/chat/completions", chat, v1),
            ("POST", "/proxy/acme/v1/v1/chat/completions", chat, v1),
            ("POST", "/proxy/acme/v2/chat/completions", chat, v1),
            ("POST", "/proxy/acme/v1/chat/completions/chat/completions", chat, v1),
            ("POST", "/proxy/acme/v1/chat/completions/v1/chat/completions", chat, v1),
            ("POST", "/proxy/acme/api/v1/chat/completions", chat, v1),
            (
                "POST",
                "/proxy/acme/v1/openai/deployments/gpt-4/chat/completions",
                "POST /proxy/acme/openai/deployments/<deployment>/chat/completions",
                "/proxy/acme",
            ),
            ("POST", "/proxy/acme/v1/chat/completion", chat, v1),
            ("POST", "/proxy/acme/v1/Chat/Completions", chat, v1),
            ("GET", "/proxy/acme/v1/chat/completions", chat, v1),
            ("BREW", "/proxy/acme/v1/chat/completions", chat, v1),
            ("POST", "/v1/chat/completions", chat, v1),
            ("POST", "/chat/completions", chat, v1),
            ("POST", "/proxy/chat/completions", chat, v1),
            ("POST", "/proxy/v1/chat/completions", chat, v1),
            ("GET", "/proxy/acme/models", "GET /proxy/acme/v1/models", v1),
            ("GET", "/proxy/acme/models/org/m-7b", "GET /proxy/acme/v1/models/<model>", v1),
            ("GET", "/proxy/acme/v1/chat/completions/models", "GET /proxy/acme/v1/models", v1),
            ("POST", "/proxy/acme/v1/embedding", "POST /proxy/acme/v1/embeddings", v1),
            ("POST", "/proxy/acme/v1/api/chat", "POST /proxy/acme/api/chat", "/proxy/acme"),
            ("POST", "/proxy/acme/v1/v1/messages", "POST /proxy/acme/v1/messages", "/proxy/acme"),
            ("GET", "/api/tags", "GET /proxy/acme/api/tags", "/proxy/acme"),
            ("POST", "/proxy/acme/v1/tokenize", "POST /proxy/acme/tokenize", "/proxy/acme"),
        ] {
            let expected = Some((expected.to_owned(), base.to_owned()));
            assert_eq!(nearest(&apis, method, path), expected, "{method} {path}");
        }
        for path in ["/", "/proxy/acme", "/proxy/acme/v1", "/proxy/acme/v1/nothing", "/v1/v1", "/a"]
        {
            assert_eq!(nearest(&apis, "GET", path), None, "{path}");
        }
    }

    #[test]
    fn a_misspelling_is_one_place_in_a_word() {
        for (given, wanted) in
            [("model", "models"), ("chta", "chat"), ("Chat", "chat"), ("embedings", "embeddings")]
        {
            assert!(misspelt(given, wanted), "{given}");
        }
        for (given, wanted) in
            [("", "chat"), ("cat", "tac"), ("ab", "abc"), ("chat", "tags"), ("completion", "chat")]
        {
            assert!(!misspelt(given, wanted), "{given}");
        }
    }

    /// Each table says where the domain is, and which hosts it covers.
    #[test]
    fn only_what_is_served_at_this_host_is_near() {
        let table = "name: x\nhost: \"{domain}.example.com\"\nmount: /api\nerrors: problem\nrules:\n\
                     - { methods: [GET], path: \"/things/{id}\", operation: read, entity: scim }\n";
        let source = |text: &str| super::super::TableSource { file: "t".into(), text: text.into() };
        let apis = Apis::compile(&[source(table)]).unwrap();
        let at = |host, path| {
            let nearest = apis.nearest(host, "GET", path, true);
            let rule = nearest.rule.map(|rule| (rule.path(Some("acme")), rule.base(None)));
            (rule, nearest.own.is_some(), nearest.others.len())
        };
        let found = || Some(("/api/things/<id>".to_owned(), "/api".to_owned()));
        assert_eq!(at("acme.example.com", "/api/thing/7"), (found(), true, 0));
        assert_eq!(at("acme.example.com:80", "/v1/things/7"), (found(), false, 1));
        for host in ["example.com", "a.b.example.com", "acme.example.org", ""] {
            assert_eq!(at(host, "/api/things/7"), (None, false, 0), "{host}");
        }
    }

    /// Comparisons are counted, so that a busy machine does not matter.
    #[test]
    fn the_search_is_bounded_whatever_the_path_and_the_rules() {
        let rules: String = (0..10_000)
            .map(|at| {
                format!(
                    "- {{ methods: [GET], path: \"/completions/completions/kind-{at}\", \
                     operation: read, entity: scim }}\n"
                )
            })
            .collect();
        let table = format!("name: x\nmount: /p/{{domain}}\nerrors: openai\nrules:\n{rules}");
        let source = super::super::TableSource { file: "t".into(), text: table };
        let apis = Apis::compile(&[source]).unwrap();
        let api = &apis.all[0];
        for path in [
            format!("/p/acme{}", "/a".repeat(2000)),
            format!("/p/acme{}", "/completionz".repeat(300)),
            format!("/p/acme/{}", "a".repeat(4000)),
        ] {
            let given = last_segments(&path, 2);
            assert!(given.len() <= MAX_SEGMENTS, "{path:.40}");
            let mut search = Search { given: &given, method: None, left: MAX_COMPARISONS };
            let compared = api.rules.iter().take_while(|rule| {
                search.compare(api, rule, TOO_FAR);
                search.left > 0
            });
            let count = compared.count();
            let of_one = 4 * (given.len() + 1);
            assert!(count <= MAX_COMPARISONS / of_one, "{count} rules: {path:.40}");
            apis.nearest("gateway", "GET", &path, true);
        }
    }
}
