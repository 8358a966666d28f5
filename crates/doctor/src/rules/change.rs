//! What may an answer of the authorization service change in a request?

use super::{Found, Place, Rule, Severity, each, everywhere};
use crate::{
    headers::{CREDENTIALS, IDENTITY, Rules},
    value::Read,
    view::{Context, View},
};

pub(super) const RULES: &[Rule] = &[
    Rule {
        id: "PG-CHANGE-ANY",
        severity: Severity::Medium,
        title: "answers may change path, host or method",
        consequence: "An attacker who takes over the authorization service serves any request as any other one.",
        fix: each(
            "set decoder_header_mutation_rules as in envoy/envoy.yaml",
            "add decoder_header_mutation_rules with an EnvoyPatchPolicy",
            "add decoder_header_mutation_rules with an EnvoyFilter",
        ),
        check: any,
    },
    Rule {
        id: "PG-CHANGE-NARROW",
        severity: Severity::Medium,
        title: "answers may not change what patgate sets or removes",
        consequence: "Every allowed request becomes a 500; without disallow_is_error, the client's own copy passes instead.",
        fix: everywhere(
            "let allow_expression match all seven headers under the prefix in use, and the headers in which clients send credentials",
        ),
        check: narrow,
    },
    Rule {
        id: "PG-CHANGE-IGNORED",
        severity: Severity::Medium,
        title: "forbidden changes are ignored",
        consequence: "If patgate sets or removes a header that the rules forget, the client's own copy passes without an error.",
        fix: everywhere("set `disallow_is_error: {value: true}` in decoder_header_mutation_rules"),
        check: ignored,
    },
    Rule {
        id: "PG-CHANGE-VALIDATE",
        severity: Severity::Low,
        title: "invalid headers of an answer are not refused",
        consequence: "An answer with an invalid header is applied in part.",
        fix: everywhere("set `validate_mutations: true`"),
        check: validate,
    },
];

/// Headers of which none is patgate's to change.
const NOT_OURS: [&str; 6] = [":path", ":method", ":authority", "host", ":scheme", "content-length"];

/// Returns the names among `names` about which the rules say `allowed`.
fn those<'n>(
    rules: &Rules<'_>,
    names: impl Iterator<Item = String> + 'n,
    allowed: bool,
) -> Vec<String> {
    names.filter(|name| rules.permit(name) == allowed).collect()
}

fn each_filter(context: &Context<'_>, mut say: impl FnMut(&View<'_>, Place, Option<Rules<'_>>)) {
    for (view, asker) in context.askers() {
        say(view, Place::asker(view, asker), Rules::read(&asker.filter.config));
    }
}

fn any(context: &Context<'_>, found: &mut Found) {
    for (view, asker) in context.askers() {
        if !asker.filter.config.has("decoder_header_mutation_rules") {
            found.add(Place::asker(view, asker), "no `decoder_header_mutation_rules`");
        }
    }
    each_filter(context, |_, place, rules| {
        // What cannot be read is reported as not judged.
        let Some(rules) = rules else { return };
        let wide = those(&rules, NOT_OURS.iter().map(ToString::to_string), true);
        if !wide.is_empty() {
            found.add(place, format!("the rules permit {}", wide.join(", ")));
        }
    });
}

fn narrow(context: &Context<'_>, found: &mut Found) {
    each_filter(context, |view, place, rules| {
        let Some(rules) = rules else { return };
        let own = IDENTITY.iter().map(|suffix| format!("{}{suffix}", view.prefix));
        let credentials = CREDENTIALS.iter().map(ToString::to_string);
        let narrow = those(&rules, own.chain(credentials), false);
        if !narrow.is_empty() {
            found.add(place, format!("the rules forbid {}", narrow.join(", ")));
        }
    });
}

fn ignored(context: &Context<'_>, found: &mut Found) {
    for (view, asker) in context.askers() {
        let rules = asker.filter.config.at("decoder_header_mutation_rules");
        if rules.is_object() && !rules.is_on("disallow_is_error") {
            found.add(Place::asker(view, asker), "`disallow_is_error` is not set");
        }
    }
}

fn validate(context: &Context<'_>, found: &mut Found) {
    for (view, asker) in context.askers() {
        if !asker.filter.config.is_on("validate_mutations") {
            found.add(Place::asker(view, asker), "`validate_mutations` is not true");
        }
    }
}
