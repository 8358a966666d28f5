//! What a client is told that may do this, though not with the model, or whatever entity, that it has
//! named: which one that is, and which it may use.

use super::MessageContext;
use crate::{
    api::Entity,
    domain::Domain,
    legible::shown,
    operation::{EntityType, Operation},
    principal::DomainGrants,
    refusal::{Denial, LimitedBy},
};

/// Characters of a name.
const MOST_OF_A_NAME: usize = 100;
/// Names that are told.
const TOLD: usize = 5;
/// Entries that are looked at, so that a denial costs no more where there are thousands.
const LOOKED_AT: usize = 1000;
/// Comparisons of names with patterns.
const COMPARISONS: usize = 20_000;

pub(super) fn message(denial: &Denial, limit: LimitedBy, context: &MessageContext<'_>) -> String {
    let operation = denial.operation.map_or("this", Operation::as_str);
    let on = context.action.map_or(EntityType::Models, |action| action.entity_type);
    let named = match context.action.map(|action| &action.entity) {
        Some(Entity::Named(name)) => Some(*name),
        _ => context.model,
    };
    let what = on.as_str().strip_suffix('s').unwrap_or(on.as_str());
    let which = named.map_or_else(
        || format!("this {what}"),
        |name| format!("the {what} `{}`", shown(name, MOST_OF_A_NAME)),
    );
    let mut told = match limit {
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
        told.push_str(&usable(domain, grants, operation, on));
    }
    told
}

/// What the token may use for the same.
fn usable(domain: &Domain, grants: &DomainGrants, operation: Operation, on: EntityType) -> String {
    let most = LOOKED_AT.min(COMPARISONS / domain.patterns().max(1)).max(1);
    let (mut told, mut count, mut looked_at) = (Vec::new(), 0, 0);
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
        if told.len() < TOLD {
            told.push(format!("`{}`", shown(name, MOST_OF_A_NAME)));
        }
    }
    let more = names.next().is_some() && looked_at == most;
    let others = count - told.len();
    let told = told.join(", ");
    match (told.is_empty(), others, more) {
        (true, _, true) => String::new(),
        (true, _, false) => {
            " It permits none that the domain has: ask an administrator.".to_owned()
        }
        (false, 0, false) => format!(" Available to it: {told}."),
        (false, others, false) => format!(" Available to it: {told} and {others} more."),
        (false, 0, true) => format!(" Available to it: {told}, and maybe more."),
        (false, others, true) => format!(" Available to it: {told} and more than {others} more."),
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
        let told = |others: usize| {
            let patterns = (0..others).map(|number| format!("x{number}-*"));
            let patterns = patterns.chain(["m5*".to_owned()]);
            let listed = patterns.map(|pattern| (pattern.into(), "model-acme".into())).collect();
            let (slug, models) = ("acme".parse().unwrap(), Models::Listed(listed));
            let domain = Domain::new(id, slug, true, "model-acme".into(), models);
            usable(&domain, &grants, chat, EntityType::Models)
        };
        let five = "Available to it: `m50`, `m51`, `m52`, `m53`, `m54`";
        assert_eq!(told(100), format!(" {five} and 5 more."));
        let three = " Available to it: `m50`, `m51`, `m52`, and maybe more.";
        assert_eq!(told(COMPARISONS / 53 - 1), three, "of the first 53");
        assert_eq!(told(COMPARISONS / 20), "", "of the first 19");
        assert_eq!(told(2 * COMPARISONS), "", "of the first one");
    }
}
