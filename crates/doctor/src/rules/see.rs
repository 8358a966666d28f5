//! Does patgate see what it decides by?

use super::{Found, Place, Rule, Severity, each, everywhere};
use crate::{
    headers::{CREDENTIALS, READ, UPGRADE},
    matcher::any_matches,
    value::Read,
    view::{Asker, Context},
};

pub(super) const RULES: &[Rule] = &[
    Rule {
        id: "PG-SEE-HEADER",
        severity: Severity::Medium,
        title: "headers that patgate reads do not reach it",
        consequence: "Requests with a good token are refused, or a token or cookie that patgate does not see goes to the backend.",
        fix: each(
            "list them in allowed_headers, or remove allowed_headers, and remove them from disallowed_headers",
            "list them in extAuth.headersToExtAuth, or remove that list",
            "list them in includeRequestHeadersInCheck of the provider, or remove the list",
        ),
        check: header,
    },
    Rule {
        id: "PG-SEE-UPGRADE",
        severity: Severity::High,
        title: "patgate does not see that a request is an upgrade",
        consequence: "A WebSocket passes even if no rule permits it, and its Connection header can make the backend drop patgate's headers.",
        fix: everywhere(
            "list `connection` and `upgrade` in allowed_headers, or remove upgrade_configs",
        ),
        check: upgrade,
    },
];

/// Whether a filter sends a header of the client to patgate.
fn sends(asker: &Asker<'_>, name: &str) -> bool {
    let config = &asker.filter.config;
    let allowed = config.at("allowed_headers");
    let listed =
        !allowed.is_object() || allowed.list("patterns").is_empty() || any_matches(allowed, name);
    listed && !any_matches(config.at("disallowed_headers"), name)
}

fn header(context: &Context<'_>, found: &mut Found) {
    for (view, asker) in context.askers() {
        let names = CREDENTIALS.iter().chain(&READ);
        let hidden: Vec<_> = names.filter(|name| !sends(asker, name)).copied().collect();
        if !hidden.is_empty() {
            found.add(Place::asker(view, asker), format!("hidden: {}", hidden.join(", ")));
        }
    }
}

fn upgrade(context: &Context<'_>, found: &mut Found) {
    for (view, asker) in context.askers().filter(|(view, _)| view.upgrades()) {
        let hidden: Vec<_> = UPGRADE.iter().filter(|name| !sends(asker, name)).copied().collect();
        if !hidden.is_empty() {
            let what = format!("upgrades are on, and hidden: {}", hidden.join(", "));
            found.add(Place::asker(view, asker), what);
        }
    }
}
