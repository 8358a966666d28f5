//! The names of headers that matter, and what a configuration does with them.

use std::collections::BTreeSet;

use regex::bytes::Regex;
use serde_json::Value;

use crate::{
    matcher::{Matcher, whole},
    model::Http,
    value::{Read, unwrapped},
};

/// The header in which patgate names the backend, without its prefix.
pub(crate) const BACKEND: &str = "upstream-cluster";

/// The headers that only patgate may set, without their prefix.
pub(crate) const IDENTITY: [&str; 7] =
    ["domain-id", "domain-slug", "user-id", "pat-id", "auth-operation", "auth-model", BACKEND];

/// Headers that can hold a token or another credential.
pub(crate) const CREDENTIALS: [&str; 8] = [
    "authorization",
    "api-key",
    "cookie",
    "ocp-apim-subscription-key",
    "sec-websocket-protocol",
    "x-api-key",
    "x-goog-api-key",
    "x-litellm-api-key",
];

/// Other headers that patgate reads from a request.
pub(crate) const READ: [&str; 4] =
    ["content-encoding", "content-length", "content-type", "x-request-id"];

/// Headers by which patgate distinguishes an upgrade from an ordinary request.
pub(crate) const UPGRADE: [&str; 2] = ["connection", "upgrade"];

/// One or more names of each family of headers by which common software reads a request as another
/// one than was checked. All of them fit into the 64 names that Envoy Gateway removes early.
pub(crate) const MISLEADING: [&str; 55] = [
    "forwarded",
    "x-forwarded-host",
    "x-forwarded-prefix",
    "x-forwarded-uri",
    "x-forwarded-path",
    "x-forwarded-method",
    "x-forwarded-server",
    "x-forwarded-port",
    "x-forwarded-user",
    "x-forwarded-email",
    "x-forwarded-groups",
    "x-forwarded-protocol",
    "x-original-url",
    "x-original-uri",
    "x-original-host",
    "x-original-path",
    "x-rewrite-url",
    "x-host",
    "x-script-name",
    "x-real-ip",
    "x-http-method",
    "x-http-method-override",
    "x-method-override",
    "x-middleware-subrequest",
    "x-envoy-original-path",
    "x-envoy-original-host",
    "x-envoy-original-method",
    "x-envoy-original-dst-host",
    "remote-user",
    "x-remote-user",
    "x-remote-group",
    "x-auth-request-user",
    "x-auth-request-email",
    "x-webauth-user",
    "x-authenticated-userid",
    "x-consumer-id",
    "x-consumer-username",
    "x-credential-identifier",
    "x-ms-client-principal",
    "x-goog-authenticated-user-email",
    "x-amzn-oidc-identity",
    "x-ssl-client-cert",
    "ssl-client-cert",
    "x-client-cert",
    "x-tenant-id",
    "x-scope-orgid",
    "x-user",
    "x-username",
    "x-user-email",
    "x-user-roles",
    "proxy",
    "destination",
    "script-name",
    "cf-connecting-ip",
    "cf-access-authenticated-user-email",
];

/// What a connection manager removes before anything else sees the request.
#[derive(Default)]
pub(crate) struct Early {
    exact: BTreeSet<String>,
    patterns: Vec<Matcher>,
    /// Expressions that this program cannot read.
    pub(crate) unread: Vec<String>,
}

impl Early {
    pub(crate) fn read(manager: &Value) -> Self {
        let mut early = Self::default();
        for extension in manager.list("early_header_mutation_extensions") {
            let config = unwrapped(extension.at("typed_config"));
            for mutation in config.list("mutations") {
                if let Some(name) = mutation.text("remove") {
                    early.exact.insert(name.to_ascii_lowercase());
                } else if mutation.has("remove_on_match") {
                    let matcher = mutation.at("remove_on_match/key_matcher");
                    let expression = matcher.text("safe_regex/regex");
                    early
                        .unread
                        .extend(expression.filter(|it| whole(it).is_none()).map(str::to_owned));
                    early.patterns.push(Matcher::new(matcher));
                }
            }
        }
        early
    }

    pub(crate) fn removes(&self, name: &str) -> bool {
        self.exact.contains(name) || self.patterns.iter().any(|pattern| pattern.matches(name))
    }

    /// A prefix under which it removes most identity headers by name.
    pub(crate) fn prefix(&self) -> Option<&str> {
        let mut prefixes = self.exact.iter().filter_map(|name| name.strip_suffix("pat-id"));
        prefixes.find(|prefix| {
            let removed = |suffix: &&&str| self.exact.contains(&format!("{prefix}{suffix}"));
            IDENTITY.iter().filter(removed).count() > IDENTITY.len() / 2
        })
    }
}

/// The prefix of the identity headers that the routes of a connection manager use.
pub(crate) fn prefix_of_routes(http: &Http) -> Option<String> {
    let routes = http.hosts.iter().flat_map(|host| &host.routes);
    let names = routes.flat_map(|route| {
        let matched = route.config.list("match/headers").iter().filter_map(|one| one.text("name"));
        matched.chain(route.config.text("route/cluster_header"))
    });
    let lower = names.map(str::to_ascii_lowercase);
    lower.filter_map(|name| name.strip_suffix(BACKEND).map(str::to_owned)).next()
}

/// `HeaderMutationRules`, with their expressions compiled.
pub(crate) struct Rules<'v> {
    rules: &'v Value,
    allow: Option<Regex>,
    disallow: Option<Regex>,
}

impl<'v> Rules<'v> {
    /// Reads the rules of a filter; `None` if it has none, or an expression cannot be read.
    pub(crate) fn read(filter: &'v Value) -> Option<Self> {
        let rules = filter.at("decoder_header_mutation_rules");
        let compiled = |field: &str| match rules.text(field) {
            Some(expression) => whole(expression).map(Some),
            None => Some(None),
        };
        let (allow, disallow) =
            (compiled("allow_expression/regex")?, compiled("disallow_expression/regex")?);
        rules.is_object().then_some(Self { rules, allow, disallow })
    }

    /// The expressions of a filter's rules that this program cannot read.
    pub(crate) fn unread(filter: &'v Value) -> Vec<&'v str> {
        let rules = filter.at("decoder_header_mutation_rules");
        let fields = ["allow_expression/regex", "disallow_expression/regex"];
        let expressions = fields.iter().filter_map(|field| rules.text(field));
        expressions.filter(|expression| whole(expression).is_none()).collect()
    }

    /// Whether an answer may change a header.
    pub(crate) fn permit(&self, name: &str) -> bool {
        let matches = |expression: &Option<Regex>| {
            expression.as_ref().is_some_and(|it| it.is_match(name.as_bytes()))
        };
        if matches(&self.disallow) {
            return false;
        }
        if matches(&self.allow) {
            return true;
        }
        let system = name.starts_with(':');
        let routing = matches!(name, "host" | ":authority" | ":scheme" | ":method");
        let forbidden = self.rules.is_on("disallow_all")
            || system && self.rules.is_on("disallow_system")
            || routing && !self.rules.is_on("allow_all_routing")
            || name.starts_with("x-envoy") && !self.rules.is_on("allow_envoy");
        !forbidden
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn rules_are_read_as_envoy_reads_them() {
        let with = |rules: Value| json!({ "decoder_header_mutation_rules": rules });
        let none = with(json!({}));
        let none = Rules::read(&none).unwrap();
        assert!(none.permit(":path") && !none.permit("host"));
        let some =
            with(json!({ "disallow_all": true, "allow_expression": { "regex": "x-[a-z]+" } }));
        let some = Rules::read(&some).unwrap();
        assert!(some.permit("x-a") && !some.permit("x-a1"));
        assert!(Rules::read(&json!({})).is_none());
        let odd = with(json!({ "allow_expression": { "regex": "(?<=a)b" } }));
        assert!(Rules::read(&odd).is_none());
        assert_eq!(Rules::unread(&odd), ["(?<=a)b"]);
    }

    #[test]
    fn the_list_fits_into_what_envoy_gateway_removes() {
        assert!(MISLEADING.len() + IDENTITY.len() <= 64);
    }
}
