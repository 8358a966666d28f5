//! Does Envoy run what the control plane has sent?

use super::{Found, Place, Rule, Severity, each};
use crate::{
    model::{Refused, Section},
    view::Context,
};

pub(super) const RULES: &[Rule] = &[Rule {
    id: "PG-CONFIG-REFUSED",
    severity: Severity::High,
    title: "Envoy has refused a configuration",
    consequence: "What this proxy runs is older than what the control plane has sent, and a proxy that starts now may get nothing at all.",
    fix: each(
        "read error_state.details in config_dump, and correct what was sent",
        "read error_state.details in config_dump, and correct the EnvoyPatchPolicy or the resource that it names",
        "read error_state.details in config_dump, and correct the EnvoyFilter or the resource that it names",
    ),
    check: refused,
}];

fn refused(context: &Context<'_>, found: &mut Found) {
    for one in &context.proxy.refused {
        let what = match one.part {
            Section::Listener | Section::Cluster | Section::Filter => "its last version".to_owned(),
            Section::RouteTable => format!("the last version of the route table {}", one.name),
            Section::Endpoints => "the last version of its endpoints".to_owned(),
        };
        let then = if one.serves { "an older one is in use" } else { "no older one is in use" };
        let reason = match one.reason.as_str() {
            "" => String::new(),
            reason => format!(": {reason}"),
        };
        for place in places(context, one) {
            found.add(place, format!("Envoy has refused {what}, and {then}{reason}"));
        }
    }
}

fn places(context: &Context<'_>, one: &Refused) -> Vec<Place> {
    let name = Some(one.name.clone());
    match one.part {
        Section::Listener => vec![Place { listener: name, ..Place::default() }],
        Section::Cluster | Section::Endpoints => vec![Place::cluster(&one.name)],
        Section::Filter => vec![Place { filter: name, ..Place::default() }],
        Section::RouteTable => {
            let views = context.views.iter().filter(|view| view.http.table == one.name);
            let mut places: Vec<_> = views.map(Place::of).collect();
            if places.is_empty() {
                places.push(Place::default());
            }
            places
        }
    }
}
