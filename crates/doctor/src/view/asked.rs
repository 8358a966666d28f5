//! Whether a request is asked about.

use serde_json::Value;

use super::{Asked, Asker, Unasked, View};
use crate::{
    authorizer::{self, Authorizers},
    guard::{always, permission},
    matcher::matches,
    model::{Host, Route},
    value::{Read, entries, unwrapped},
};

impl View<'_> {
    /// Whether requests on a route are asked about, for the weighted cluster with these settings.
    pub(crate) fn asked(&self, host: &Host, route: &Route, weighted: Option<&Value>) -> Asked {
        if self.askers.is_empty() {
            return Asked::Never(Unasked::NoFilter);
        }
        if self.needs_answer(route) && self.early.removes(&self.backend_header()) {
            return Asked::Before;
        }
        let mut off = Unasked::NoFilter;
        let mut partly: Option<Vec<Unasked>> = None;
        for asker in self.firsts() {
            let settings =
                route.per_filter(&asker.filter.name, host, &self.http.table_config, weighted);
            match settings {
                Some(settings) if settings.disabled || settings.config.is_on("disabled") => {
                    off = Unasked::Disabled(settings.level);
                    continue;
                }
                None if asker.filter.disabled => {
                    off = Unasked::NotSwitchedOn;
                    continue;
                }
                Some(settings) => {
                    if let Some(service) = self.another_service(&settings.config) {
                        off = Unasked::Elsewhere(service);
                        continue;
                    }
                }
                None => {}
            }
            let reasons = self.conditions(asker);
            if reasons.is_empty() {
                return Asked::Yes;
            }
            partly = Some(reasons);
        }
        match partly {
            Some(reasons) => Asked::Partly(reasons),
            None => Asked::Never(off),
        }
    }

    /// Why a filter does not ask about every request that comes to it.
    pub(crate) fn conditions(&self, asker: &Asker<'_>) -> Vec<Unasked> {
        let config = &asker.filter.config;
        let mut reasons = Vec::new();
        if config.is_on("shadow_mode") {
            reasons.push(Unasked::Shadow);
        }
        let share = config.at("filter_enabled/default_value");
        if share.is_object() {
            let of = match share.text("denominator") {
                Some("TEN_THOUSAND") => 1e4,
                Some("MILLION") => 1e6,
                _ => 100.0,
            };
            #[expect(clippy::cast_precision_loss, reason = "a share, for people")]
            let percent = share.number("numerator").unwrap_or_default() as f64 / of * 100.0;
            if percent < 100.0 {
                let refused = config.is_on("deny_at_disable");
                reasons.push(Unasked::Share { percent, refused });
            }
        }
        let condition = config.at("filter_enabled_metadata");
        if condition.is_object() && !asker.second {
            match self.by_shadow_rules(asker, condition) {
                Some(None) => {}
                Some(Some(rules)) => reasons.push(Unasked::Paths(rules)),
                None => {
                    let filter = condition.text("filter").unwrap_or_default();
                    let key = condition.text("path/0/key").unwrap_or_default();
                    reasons.push(Unasked::Condition(format!("{filter}, {key}")));
                }
            }
        }
        reasons
    }

    /// A condition on what the shadow rules of an RBAC filter leave, as Istio writes it: `None` if it is
    /// another one, `Some(None)` if the rules cover every request, otherwise the rules.
    fn by_shadow_rules(&self, asker: &Asker<'_>, condition: &Value) -> Option<Option<String>> {
        if condition.text("filter") != Some("envoy.filters.http.rbac") {
            return None;
        }
        let before = self.http.filters[..asker.at].iter().filter(|filter| !filter.disabled);
        covered(before.map(|filter| &filter.config), condition)
    }

    /// The service that a route's settings name in place of patgate.
    fn another_service(&self, settings: &Value) -> Option<String> {
        let check = settings.at("check_settings");
        if check.has("http_service") {
            let cluster = check.text("http_service/server_uri/cluster");
            return Some(cluster.unwrap_or("a service over HTTP").to_owned());
        }
        let service = authorizer::service(check)?;
        (!self.services.iter().any(|known| known == service)).then(|| service.to_owned())
    }

    /// Whether a route switches off the filter that asks again with the body.
    pub(crate) fn second_is_off(&self, host: &Host, route: &Route) -> bool {
        let Some(second) = self.second() else { return false };
        let settings = route.per_filter(&second.filter.name, host, &self.http.table_config, None);
        match settings {
            Some(settings) => settings.disabled || settings.config.is_on("disabled"),
            None => second.filter.disabled,
        }
    }
}

/// What the shadow rules of the RBAC filters among `before` cover, if `condition` is on them.
fn covered<'a>(
    before: impl Iterator<Item = &'a Value>,
    condition: &Value,
) -> Option<Option<String>> {
    let key = condition.text("path/0/key")?;
    let value = condition.at("value/string_match");
    if condition.is_on("invert") || value.is_null() {
        return None;
    }
    let mut found = None;
    for rbac in before.filter(|rbac| rbac.type_name() == "RBAC" && rbac.has("shadow_rules")) {
        let prefix = rbac.text("shadow_rules_stat_prefix").unwrap_or_default();
        if key != format!("{prefix}shadow_effective_policy_id") {
            continue;
        }
        let policies = entries(rbac.at("shadow_rules/policies"));
        let named = policies.filter(|(name, _)| matches(value, name));
        let mut rules = Vec::new();
        for (_, policy) in named {
            let everyone = policy.list("principals").iter().any(always);
            if everyone && policy.list("permissions").iter().any(always) {
                return Some(None);
            }
            rules.extend(policy.list("permissions").iter().map(permission));
            if !everyone {
                rules.push("only for some callers".to_owned());
            }
        }
        found = Some(Some(rules.join(" or ")));
    }
    found
}

/// Whether patgate is asked about each connection of a chain without HTTP, and so refuses it: Istio
/// puts such a filter there for an AuthorizationPolicy with the action CUSTOM. A connection has no
/// token.
pub(crate) fn connections_are_asked(chain: &Value, authorizers: &Authorizers) -> bool {
    let filters: Vec<_> =
        chain.list("filters").iter().map(|filter| unwrapped(filter.at("typed_config"))).collect();
    filters.iter().enumerate().any(|(at, filter)| {
        let condition = filter.at("filter_enabled_metadata");
        let always = condition.is_null()
            || condition.text("filter") == Some("envoy.filters.network.rbac")
                && covered(filters[..at].iter(), condition) == Some(None);
        filter.type_name() == "ExtAuthz"
            && !filter.is_on("failure_mode_allow")
            && authorizer::service(filter).is_some_and(|it| authorizers.services.contains_key(it))
            && always
    })
}
