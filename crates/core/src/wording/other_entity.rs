//! The message for a request whose operation is permitted, but not on the model (or other entity) that
//! it names. It repeats that name, and lists names that the token may use.

use super::MessageContext;
use crate::{
    api::Entity,
    domain::Domain,
    legible::shown,
    operation::{EntityType, Operation},
    principal::DomainGrants,
    refusal::{Denial, LimitedBy},
};

/// The most characters of a name that are shown.
const MOST_OF_A_NAME: usize = 100;
/// The most names that are listed.
const MOST_NAMES: usize = 5;
/// The most names that are examined, so that a token or a domain with thousands makes no denial
/// expensive.
const LOOKED_AT: usize = 1000;
/// The most comparisons of names with patterns, for the same reason.
const COMPARISONS: usize = 20_000;

pub(super) fn message(denial: &Denial, limit: LimitedBy, context: &MessageContext<'_>) -> String {
    let operation = denial.operation.map_or("this", Operation::as_str);
    let on = context.rule.map_or(EntityType::Models, |rule| rule.entity_type);
    let named = match context.rule.map(|rule| &rule.entity) {
        Some(Entity::Named(name)) => Some(*name),
        _ => context.model,
    };
    let what = on.as_str().strip_suffix('s').unwrap_or(on.as_str());
    let which = named.map_or_else(
        || format!("this {what}"),
        |name| format!("the {what} `{}`", shown(name, MOST_OF_A_NAME)),
    );
    let mut text = match limit {
        LimitedBy::Scopes => {
            format!("The access token does not permit `{operation}` on {which} in this domain.")
        }
        LimitedBy::Domain => {
            format!("{which} is not available in this domain.").replacen('t', "T", 1)
        }
    };
    let grants = context.domain.zip(context.principal);
    let grants = grants.and_then(|(domain, principal)| {
        Some((domain, principal.grants_in(domain.id)?, denial.operation?))
    });
    if let Some((domain, grants, operation)) = grants {
        text.push_str(&usable(domain, grants, operation, on));
    }
    text
}

/// Says which entities the token may use for the same operation.
fn usable(domain: &Domain, grants: &DomainGrants, operation: Operation, on: EntityType) -> String {
    let most = LOOKED_AT.min(COMPARISONS / domain.patterns().max(1)).max(1);
    let (mut shown_names, mut count, mut looked_at) = (Vec::new(), 0, 0);
    let every = grants.scoped(operation, on, None);
    let scoped = grants.scopes().filter_map(|(of, entity, operations)| {
        entity.filter(|_| of == on && operations.contains(operation))
    });
    let listed = domain.listed();
    let (all, mut names): (_, Box<dyn Iterator<Item = &str>>) =
        if every { (true, Box::new(listed)) } else { (false, Box::new(scoped)) };
    for name in names.by_ref().take(most) {
        looked_at += 1;
        if !all && on == EntityType::Models && domain.upstream_for(Some(name)).is_none() {
            continue;
        }
        count += 1;
        if shown_names.len() < MOST_NAMES {
            shown_names.push(format!("`{}`", shown(name, MOST_OF_A_NAME)));
        }
    }
    let more = names.next().is_some() && looked_at == most;
    let others = count - shown_names.len();
    let shown_names = shown_names.join(", ");
    match (shown_names.is_empty(), others, more) {
        (true, _, true) => String::new(),
        (true, _, false) => {
            " It permits none that the domain has: ask an administrator.".to_owned()
        }
        (false, 0, false) => format!(" Available to it: {shown_names}."),
        (false, others, false) => format!(" Available to it: {shown_names} and {others} more."),
        (false, 0, true) => format!(" Available to it: {shown_names}, and maybe more."),
        (false, others, true) => {
            format!(" Available to it: {shown_names} and more than {others} more.")
        }
    }
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;
    use crate::domain::{DomainId, Models};

    /// With many patterns, fewer names are compared with them.
    #[test]
    fn comparisons_are_bounded() {
        let (id, chat) = (DomainId(Uuid::from_u128(1)), Operation::LlmChatCompletions);
        let mut grants =
            DomainGrants::new(id, "acme".parse().unwrap(), [chat].into_iter().collect());
        for number in 0..100 {
            grants.add_scope(EntityType::Models, &format!("m{number:02}"), chat);
        }
        let text = |others: usize| {
            let patterns = (0..others).map(|number| format!("x{number}-*"));
            let patterns = patterns.chain(["m5*".to_owned()]);
            let listed = patterns.map(|pattern| (pattern.into(), "model-acme".into())).collect();
            let (slug, models) = ("acme".parse().unwrap(), Models::Listed(listed));
            let domain = Domain::new(id, slug, true, "model-acme".into(), models);
            usable(&domain, &grants, chat, EntityType::Models)
        };
        let five = "Available to it: `m50`, `m51`, `m52`, `m53`, `m54`";
        assert_eq!(text(100), format!(" {five} and 5 more."));
        let three = " Available to it: `m50`, `m51`, `m52`, and maybe more.";
        assert_eq!(text(COMPARISONS / 53 - 1), three, "of the first 53");
        assert_eq!(text(COMPARISONS / 20), "", "of the first 19");
        assert_eq!(text(2 * COMPARISONS), "", "of the first one");
    }
}
