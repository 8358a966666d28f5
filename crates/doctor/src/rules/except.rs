//! Are the exceptions of the guard as narrow as the routes that need them?

use super::{Found, Place, Rule, Severity, everywhere};
use crate::{
    exception::{Exception, paths_in_words},
    model::Target,
    view::{Context, View},
};

pub(super) const RULES: &[Rule] = &[
    Rule {
        id: "PG-EXCEPT-WIDE",
        severity: Severity::Medium,
        title: "an exception of the guard is wider than a route",
        consequence: "A later route, another error, or a request that patgate has already decided about, passes by it without a token.",
        fix: everywhere(
            "let the policy name the path in `permissions` and the cluster in `condition`, and refuse requests that have patgate's header of the backend, as envoy/other-authentication.yaml does",
        ),
        check: wide,
    },
    Rule {
        id: "PG-EXCEPT-BACKEND",
        severity: Severity::High,
        title: "an exception of the guard leads to a backend of patgate",
        consequence: "Requests reach the backend without a token.",
        fix: everywhere(
            "give what needs no token a cluster and addresses of its own, and refuse the name of this cluster in patgate's header of the backend, in the policy with the word, as envoy/other-authentication.yaml does",
        ),
        check: backend,
    },
    Rule {
        id: "PG-EXCEPT-UNUSED",
        severity: Severity::Medium,
        title: "an exception of the guard is for no route",
        consequence: "If ext_authz is later lost or switched off there, requests pass without a token, and nothing refuses them.",
        fix: everywhere(
            "remove the policy from the guard, or switch ext_authz off on the route that it is for",
        ),
        check: unused,
    },
];

fn each_exception(context: &Context<'_>, mut say: impl FnMut(&View<'_>, &Exception, Place)) {
    for view in context.asking() {
        let Some((at, _)) = &view.guard else { continue };
        for exception in view.exceptions() {
            say(view, exception, Place::filter(view, &view.http.filters[*at].name));
        }
    }
}

fn wide(context: &Context<'_>, found: &mut Found) {
    each_exception(context, |view, exception, place| {
        let header = view.backend_header();
        let mut missing = Vec::new();
        if exception.paths().is_none() {
            missing.push("it names no path".to_owned());
        }
        if exception.clusters().is_none() {
            missing.push("it names no cluster".to_owned());
        }
        if !exception.refuses(&header) {
            missing.push(format!("it takes requests that have {header}"));
        }
        if !missing.is_empty() {
            found.add(place, format!("{}: {}", exception.name, missing.join(", ")));
        }
    });
}

fn backend(context: &Context<'_>, found: &mut Found) {
    each_exception(context, |view, exception, place| {
        let mut names: Vec<String> = match exception.clusters() {
            Some(names) => names.into_iter().map(str::to_owned).collect(),
            // Without a name, it is for the clusters of the routes that nothing asks about.
            None => {
                let routes = view.routes().filter(|(host, route)| {
                    view.is_off(host, route) && view.applies(exception, route)
                });
                let clusters = routes.filter_map(|(_, route)| match &route.target {
                    Target::Clusters(clusters) => Some(clusters),
                    _ => None,
                });
                clusters.flatten().map(|(name, _)| name.clone()).collect()
            }
        };
        names.retain(|name| context.is_protected(name));
        names.sort();
        names.dedup();
        if !names.is_empty() {
            let what = format!(
                "{} is for {}, to which patgate sends requests as well",
                exception.name,
                names.join(", ")
            );
            found.add(place, what);
        }
    });
}

fn unused(context: &Context<'_>, found: &mut Found) {
    each_exception(context, |view, exception, place| {
        let used = view.routes().any(|(host, route)| {
            !matches!(route.target, Target::Answer(_))
                && view.is_off(host, route)
                && view.applies(exception, route)
        });
        if !used {
            let paths = paths_in_words(exception);
            let what = format!("{}: no route for {paths} is switched off", exception.name);
            found.add(place, what);
        }
    });
}
