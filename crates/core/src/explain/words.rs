//! Words an explanation. Decides nothing.

use jiff::Timestamp;

use crate::{
    clock::Moment,
    operation::{EntityType, Operation},
    principal::DomainGrants,
    request::Misspelling,
};

/// What came closest among the token's scopes in a domain.
pub(super) fn scope_miss(
    grants: &DomainGrants,
    operation: Operation,
    on: EntityType,
    entity: Option<&str>,
) -> String {
    let for_it = || grants.scopes().filter(|(.., operations)| operations.contains(operation));
    let named: Vec<_> = for_it().filter(|(of, ..)| *of == on).filter_map(|(_, id, _)| id).collect();
    if !named.is_empty() {
        let named = list(named.iter().map(|id| format!("`{id}`")));
        let (on, about) = (one(on), about(on, entity));
        return format!("the scope is for {on} {named}, the request is about {about}");
    }
    let elsewhere: Vec<_> = for_it().map(|(of, id, _)| about(of, id)).collect();
    if !elsewhere.is_empty() {
        return format!("has {operation} on {}, lacks it on {on}", list(elsewhere));
    }
    let held = grants.scopes().fold(Vec::new(), |mut held, (.., operations)| {
        held.extend(
            operations.iter().filter(|operation| !held.contains(operation)).collect::<Vec<_>>(),
        );
        held
    });
    match held.is_empty() {
        true => format!("has no effective scope here, lacks {operation}"),
        false => format!("has {} here, lacks {operation}", list(held)),
    }
}

pub(super) fn about(on: EntityType, entity: Option<&str>) -> String {
    match entity {
        Some(entity) => format!("{} `{entity}`", one(on)),
        None => format!("{on}, none in particular"),
    }
}

/// The word for one entity of a type.
fn one(on: EntityType) -> &'static str {
    on.as_str().strip_suffix('s').unwrap_or(on.as_str())
}

/// Lists the first few of them.
pub(super) fn list(words: impl IntoIterator<Item = impl ToString>) -> String {
    const SHOWN: usize = 8;
    let words: Vec<String> = words.into_iter().map(|word| word.to_string()).collect();
    match words.len() {
        0 => "none".to_owned(),
        len if len > SHOWN => format!("{} and {} more", words[..SHOWN].join(", "), len - SHOWN),
        _ => words.join(", "),
    }
}

pub(super) fn moment(Moment(micros): Moment) -> String {
    let at = Timestamp::from_second(micros.div_euclid(1_000_000));
    at.map_or_else(|_| "a time out of range".to_owned(), |at| at.to_string())
}

/// Describes a misspelling in a path.
pub(super) fn misspelt(found: Misspelling) -> String {
    match found {
        Misspelling::Character(c) => return format!("it holds {c:?}"),
        Misspelling::NotRooted => "it does not begin with /",
        Misspelling::TooLong => "it is too long",
        Misspelling::TrailingSlash => "it ends with /",
        Misspelling::DotSegment => "it has a segment . or ..",
        Misspelling::EmptySegment => "it has an empty segment",
    }
    .to_owned()
}
