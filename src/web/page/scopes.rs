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

/// What a scope permits.
pub(super) fn in_words(scope: &OwnScope) -> Markup {
    let kind = &scope.entity_type;
    html! {
        strong { (operation(&scope.operation)) } " on "
        @match (scope.entity_id.as_str(), kind.as_str()) {
            ("*", "domains") => "everything",
            ("*", _) => { "all " (kind) },
            (id, _) => { (kind) " " code { (id) } },
        }
        " in " (scope.domain)
        @if !scope.permitted { " (you may not do this any more, so it grants nothing)" }
    }
}

/// An operation in words; the word of the API tables tells the same to those who know it.
fn operation(word: &str) -> String {
    word.strip_prefix("llm_").unwrap_or(word).replace('_', " ")
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
        let chosen = rows.iter().filter(|row| !row.what.is_empty());
        let scopes: Vec<NewScope> = chosen.map(Self::parse).collect::<Result<_, _>>()?;
        if scopes.is_empty() {
            return Err(Mistake::at(ROWS, &"choose at least one thing that the token may do"));
        }
        Ok(scopes)
    }

    fn parse(&self) -> Result<NewScope, Mistake> {
        let Some([domain, kind, operation]) =
            self.what.split(':').collect::<Vec<_>>().first_chunk::<3>().copied()
        else {
            return Err(Mistake::at(ROWS, &"choose what the token may do from the list"));
        };
        let entity = if self.entity.is_empty() { "*" } else { &self.entity };
        let read = format!("{domain}:{kind}:{entity}:{operation}").parse();
        read.map_err(|error: ScopeError| Mistake::at(ROWS, &error))
    }
}

/// Rows to choose scopes. Only what the visitor may grant is offered, and only valid pairs.
pub(super) fn rows(rows: &[Row], domains: &[GrantableDomain]) -> Markup {
    html! {
        div id=(ROWS) tabindex="-1" {
            @if domains.is_empty() {
                p { "You may do nothing in any domain, so a token could do nothing. Ask an administrator \
                     of a domain for a role." }
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
                        @for kind in EntityType::ALL { (options(domain, *kind, row)) }
                    }
                }
            }
            div.field {
                label for={ "entity-" (at) } { "Of which one, such as a model (* for all)" }
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
                        (operation(word)) " on " (if whole { "everything" } else { kind.as_str() })
                        " in " (domain.slug)
                    }
                }
            }
        }
    }
}
