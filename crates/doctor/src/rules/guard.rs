//! Does the guard stand, and does it hold?

use super::{Found, Place, Rule, Severity, each, everywhere};
use crate::{
    guard::{Guard, NAMESPACE},
    model::{Level, Maker, Target},
    value::{Read, texts},
    view::Context,
};

const ADD: super::Fix = each(
    "add the RBAC filter `patgate.guard` of envoy/envoy.yaml right before the router",
    "insert the guard before the router with an EnvoyPatchPolicy that finds its place by jsonPath",
    "insert the guard with an EnvoyFilter, INSERT_BEFORE the router",
);

pub(super) const RULES: &[Rule] = &[
    Rule {
        id: "PG-GUARD-NONE",
        severity: Severity::Medium,
        title: "no guard",
        consequence: "A single error elsewhere, such as ext_authz disabled on a route, lets requests pass without a token.",
        fix: ADD,
        check: none,
    },
    Rule {
        id: "PG-GUARD-WORD",
        severity: Severity::Medium,
        title: "the guard accepts what other services set too",
        consequence: "Any other ext_authz service on the way opens the guard.",
        fix: everywhere(
            "require `string_match: {exact: …}` with the word of patgate's setting guard.word, in the field `guard`",
        ),
        check: word,
    },
    Rule {
        id: "PG-GUARD-NAME",
        severity: Severity::Medium,
        title: "the guard has a name that control planes generate",
        consequence: "A route's own RBAC settings under this name replace the guard there.",
        fix: everywhere("give the guard a name of its own, such as `patgate.guard`"),
        check: name,
    },
    Rule {
        id: "PG-GUARD-ROUTE",
        severity: Severity::Medium,
        title: "a route replaces or disables the guard",
        consequence: "On this route, one more error lets requests pass without a token.",
        fix: everywhere(
            "remove the settings under the guard's name there; for an exception, name its path in a policy of the guard",
        ),
        check: route,
    },
    Rule {
        id: "PG-GUARD-ORDER",
        severity: Severity::Medium,
        title: "the guard stands before ext_authz",
        consequence: "It refuses every request, because patgate has not answered yet.",
        fix: everywhere("move it behind the filters that ask patgate, right before the router"),
        check: order,
    },
    Rule {
        id: "PG-GUARD-OPEN",
        severity: Severity::Medium,
        title: "an exception of the guard covers everything",
        consequence: "The guard lets every request through, as if it were not there.",
        fix: everywhere("let the policy name the path of the exception in `permissions`"),
        check: open,
    },
    Rule {
        id: "PG-GUARD-BLIND",
        severity: Severity::Medium,
        title: "the metadata of answers are dropped",
        consequence: "The guard never sees the word and refuses every request, and no second step asks.",
        fix: everywhere("remove `enable_dynamic_metadata_ingestion: false`"),
        check: blind,
    },
    Rule {
        id: "PG-GUARD-STATUS",
        severity: Severity::Low,
        title: "the guard's refusals are a bare 403",
        consequence: "Clients take a 403 for final, although an outage is the reason.",
        fix: each(
            "add the first mappers of local_reply_config in envoy/envoy.yaml",
            "add local_reply_config with an EnvoyPatchPolicy",
            "add local_reply_config with an EnvoyFilter on the connection manager",
        ),
        check: status,
    },
];

fn none(context: &Context<'_>, found: &mut Found) {
    // Where teams add routes and policies of their own, the error elsewhere is one that any of them
    // can make.
    let shared = matches!(context.proxy.maker, Maker::EnvoyGateway | Maker::Istio);
    let severity = if shared { Severity::High } else { Severity::Medium };
    for view in context.asking().filter(|view| view.guard.is_none()) {
        let rbac = view.http.filters.iter().filter(|filter| filter.kind() == "RBAC");
        let shadow = rbac.clone().find(|filter| Guard::read_shadow(&filter.config).is_some());
        match shadow {
            Some(filter) => {
                let place = Place::filter(view, &filter.name);
                found.at(severity, place, "its rules are shadow_rules, which only count");
            }
            None => {
                let what = format!("no RBAC filter wants metadata of {NAMESPACE}");
                found.at(severity, Place::of(view), what);
            }
        }
    }
}

fn word(context: &Context<'_>, found: &mut Found) {
    each_guard(context, found, |guard, place, found| {
        for weak in &guard.weak {
            found.add(place.clone(), format!("it accepts {weak}"));
        }
    });
}

fn open(context: &Context<'_>, found: &mut Found) {
    each_guard(context, found, |guard, place, found| {
        for policy in &guard.open {
            found.add(place.clone(), format!("the policy {policy} wants nothing"));
        }
    });
}

fn each_guard(
    context: &Context<'_>,
    found: &mut Found,
    mut say: impl FnMut(&Guard, Place, &mut Found),
) {
    for view in context.asking() {
        if let Some((at, guard)) = &view.guard {
            say(guard, Place::filter(view, &view.http.filters[*at].name), found);
        }
    }
}

fn name(context: &Context<'_>, found: &mut Found) {
    for view in context.asking() {
        let Some((at, _)) = &view.guard else { continue };
        let name = &view.http.filters[*at].name;
        if name.starts_with("envoy.filters.http.rbac") {
            found.add(Place::filter(view, name), format!("its name is {name}"));
        }
    }
}

fn route(context: &Context<'_>, found: &mut Found) {
    for view in context.asking() {
        let Some((at, guard)) = &view.guard else { continue };
        if !guard.is_sound() {
            continue;
        }
        let name = &view.http.filters[*at].name;
        for (host, route) in view.routes() {
            if matches!(route.target, Target::Answer(_)) || view.guard_holds(host, route) {
                continue;
            }
            let settings = route.per_filter(name, host, &view.http.table_config, None);
            let level = settings.map_or(Level::Route, |settings| settings.level);
            let place = Place { filter: Some(name.clone()), ..Place::route(view, host, route) };
            found.add(place, format!("settings for {name} on {level}"));
        }
    }
}

fn order(context: &Context<'_>, found: &mut Found) {
    for view in context.asking() {
        let Some((at, _)) = &view.guard else { continue };
        let before = view.askers.iter().find(|asker| asker.at > *at);
        if let Some(asker) = before {
            let place = Place::filter(view, &view.http.filters[*at].name);
            found.add(place, format!("{} comes after it", asker.filter.name));
        }
    }
}

fn blind(context: &Context<'_>, found: &mut Found) {
    for (view, asker) in context.askers() {
        if asker.filter.config.flag("enable_dynamic_metadata_ingestion") == Some(false) {
            let what = "`enable_dynamic_metadata_ingestion: false`";
            found.add(Place::asker(view, asker), what);
        }
    }
}

fn status(context: &Context<'_>, found: &mut Found) {
    for view in context.asking().filter(|view| view.guard.is_some()) {
        let mappers = view.http.config.list("local_reply_config/mappers");
        let maps = mappers.iter().any(|mapper| {
            let mut words = Vec::new();
            texts(mapper.at("filter"), &mut words);
            // The expressions of CEL are not evaluated: one that names the refusal is believed.
            let of_guard = words.iter().any(|word| word.contains("rbac_access_denied"))
                || has_status_403(mapper.at("filter"));
            of_guard && mapper.number("status_code").is_some_and(|status| status >= 500)
        });
        if !maps {
            found.add(Place::of(view), "no mapper of local_reply_config turns it into a 503");
        }
    }
}

fn has_status_403(filter: &serde_json::Value) -> bool {
    filter.number("status_code_filter/comparison/value/default_value") == Some(403)
        || ["and_filter/filters", "or_filter/filters"]
            .iter()
            .any(|list| filter.list(list).iter().any(has_status_403))
}
