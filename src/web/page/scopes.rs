//! Scopes in words, and the rows of a form that name some.

use maud::{Markup, html};

use super::{form::Mistake, input::Fields};
use crate::{
    admin::{
        NewScope, ScopeError,
        web::{GrantableDomain, OwnScope},
    },
    operation::{EntityType, Operation},
};

/// The id of the rows, for mistakes.
pub(super) const ROWS: &str = "scopes";

/// The order in which a form offers types: what most tokens are for comes first.
const KINDS: [EntityType; 9] = [
    EntityType::Models,
    EntityType::Domains,
    EntityType::Datasets,
    EntityType::Services,
    EntityType::Deployments,
    EntityType::Reports,
    EntityType::Workbooks,
    EntityType::Scim,
    EntityType::Users,
];
const _: () = assert!(KINDS.len() == EntityType::ALL.len());

/// What a scope permits.
pub(super) fn in_words(scope: &OwnScope) -> Markup {
    let kind = &scope.entity_type;
    html! {
        strong { (operation(&scope.operation)) } ": "
        @match (scope.entity_id.as_str(), kind.as_str()) {
            ("*", "domains") => "everything",
            ("*", _) => { "all " (kind) },
            (id, _) => { (kind) " " code { (id) } },
        }
        " in " (scope.domain)
        @if !scope.permitted { " (you may not do this any more, so it grants nothing)" }
    }
}

/// An operation in words. Some words of the API of models are also those of other entities.
fn operation(word: &str) -> String {
    let spaced = |word: &str| word.replace('_', " ");
    match word.strip_prefix("llm_") {
        Some(rest) if rest.parse::<Operation>().is_ok() => format!("{} models", spaced(rest)),
        Some(rest) => spaced(rest),
        None => spaced(word),
    }
}

/// What one row says: `domain:entity_type:operation`, and an entity.
#[derive(Clone, Default)]
pub(super) struct Row {
    what: String,
    entity: String,
}

impl Row {
    /// The rows that a form has sent.
    pub(super) fn read(fields: &Fields) -> Vec<Self> {
        let rows = fields.all("what").zip(fields.all("entity"));
        rows.map(|(what, entity)| Self { what: what.to_owned(), entity: entity.trim().to_owned() })
            .collect()
    }

    /// The scopes that the rows name. A row in which nothing was chosen names none.
    pub(super) fn scopes(rows: &[Self]) -> Result<Vec<NewScope>, Mistake> {
        let chosen = rows.iter().enumerate().filter(|(_, row)| !row.what.is_empty());
        let read = chosen.map(|(at, row)| {
            row.parse().map_err(|why| Mistake::at(ROWS, &format!("Scope {}: {why}", at + 1)))
        });
        let scopes: Vec<NewScope> = read.collect::<Result<_, _>>()?;
        if scopes.is_empty() {
            return Err(Mistake::at(ROWS, &"choose at least one thing that the token may do"));
        }
        Ok(scopes)
    }

    fn parse(&self) -> Result<NewScope, String> {
        let parts: Vec<&str> = self.what.split(':').collect();
        let [domain, kind, operation] = parts[..] else {
            return Err("choose what the token may do from the list".to_owned());
        };
        let entity = if self.entity.is_empty() { "*" } else { &self.entity };
        if kind == EntityType::Domains.as_str() && entity != "*" {
            return Err("“everything” has no single entities: leave * here".to_owned());
        }
        let read = format!("{domain}:{kind}:{entity}:{operation}").parse();
        read.map_err(|error: ScopeError| match error {
            _ if !entity.is_empty() && entity != "*" => {
                format!("enter the name of one of the {kind}, or * for all ({error})")
            }
            error => error.to_string(),
        })
    }
}

/// Rows to choose scopes. Only what the visitor may grant is offered, and only valid pairs.
pub(super) fn rows(rows: &[Row], domains: &[GrantableDomain], mistake: Option<&Mistake>) -> Markup {
    html! {
        div id=(ROWS) tabindex="-1" {
            @if let Some(error) = mistake.and_then(|mistake| mistake.about(ROWS)) {
                p.error-text { (error) }
            }
            @for (at, row) in rows.iter().enumerate() { (fields(at, row, domains)) }
            datalist id="entities" {
                option value="*" { "all" }
                @for domain in domains {
                    @for model in &domain.models { option value=(model) { (domain.slug) } }
                }
            }
        }
    }
}

fn fields(at: usize, row: &Row, domains: &[GrantableDomain]) -> Markup {
    html! {
        fieldset.scope {
            legend { "Scope " (at + 1) }
            div.field {
                label for={ "what-" (at) } { "The token may" }
                select id={ "what-" (at) } name="what" {
                    option value="" { "(nothing)" }
                    @for domain in domains {
                        @for kind in KINDS { (options(domain, kind, row)) }
                    }
                }
            }
            div.field {
                label for={ "entity-" (at) } { "Model or other entity (* for all)" }
                input id={ "entity-" (at) } name="entity" list="entities" autocomplete="off"
                    value=(if row.entity.is_empty() { "*" } else { &row.entity });
            }
        }
    }
}

fn options(domain: &GrantableDomain, kind: EntityType, row: &Row) -> Markup {
    let valid = kind.operations();
    let is_valid =
        |word: &&String| word.parse::<Operation>().is_ok_and(|operation| valid.contains(operation));
    let offered: Vec<&String> = domain.operations.iter().filter(is_valid).collect();
    let whole = kind == EntityType::Domains;
    html! {
        @if !offered.is_empty() {
            optgroup label={ (domain.name) " (" (domain.slug) "): " (if whole { "everything" } else { kind.as_str() }) } {
                @for word in offered {
                    @let value = format!("{}:{kind}:{word}", domain.slug);
                    option value=(value) selected[value == row.what] {
                        (operation(word)) ": " (if whole { "everything" } else { kind.as_str() })
                        " in " (domain.slug)
                    }
                }
            }
        }
    }
}
