//! The lists of domains and backends.

use std::sync::Arc;

use axum::{
    extract::State,
    http::StatusCode,
    response::{IntoResponse, Redirect, Response},
};
use maud::{Markup, html};

use super::{
    Fault,
    form::{Field, Mistake, Select, form_to, hidden, named_button_to, summary},
    input::{Asked, Fields, SentForm, Visitor},
    layout::{Frame, answer, page},
    notice::{Done, Notice},
    sure::{Question, unless_sure},
    time::count,
};
use crate::{
    admin::{
        BackendKind, BackendName, BackendUrl, ListedModel, NewModels,
        web::{BackendEntry, DomainEntry, Error, GrantableDomain, NewSelfServiceDomain},
    },
    web::{Site, problem::Problem},
};

/// The operations that let a user see the roles of a domain.
const GOVERNING: [&str; 4] =
    ["manage_role", "add_role_users", "remove_role_users", "view_role_users"];

pub(super) async fn domains(
    State(site): State<Arc<Site>>,
    visitor: Visitor,
    Asked(notice): Asked<Notice>,
) -> Result<Response, Fault> {
    list_domains(&site, &visitor, &notice, &Fields::default(), None).await
}

async fn list_domains(
    site: &Site,
    visitor: &Visitor,
    notice: &Notice,
    draft: &Fields,
    mistake: Option<Mistake>,
) -> Result<Response, Fault> {
    let status = mistake.as_ref().map_or(StatusCode::OK, |mistake| mistake.status);
    let content = if visitor.session.elevated {
        let domains = site.service.domains(&visitor.caller).await?;
        let backends = site.service.backends(&visitor.caller).await?;
        all_domains(visitor, &domains, &backends, draft, mistake.as_ref())
    } else {
        own_domains(visitor, &site.service.grantable(&visitor.caller).await?)
    };
    let content = html! {
        h1 { "Domains" }
        (notice.render())
        (content)
    };
    Ok(answer(status, page("Domains", Frame::Of(visitor), &content)))
}

pub(super) async fn create_domain(
    State(site): State<Arc<Site>>,
    SentForm { visitor, fields }: SentForm,
) -> Result<Response, Fault> {
    let mistake = match new_domain(&fields) {
        Ok(new) => match site.service.create_domain(&visitor.caller, &new).await {
            Ok(_) => return Ok(Redirect::to(&format!("/domains/{}", new.slug)).into_response()),
            Err(error) => {
                let field = match error {
                    Error::Exists(_) => Some("slug"),
                    Error::NotFound(_) => Some("backend"),
                    _ => None,
                };
                Mistake::of(error, field)?
            }
        },
        Err(mistake) => mistake,
    };
    list_domains(&site, &visitor, &Notice::default(), &fields, Some(mistake)).await
}

fn new_domain(fields: &Fields) -> Result<NewSelfServiceDomain, Mistake> {
    let listed = || fields.get("models").lines().map(str::trim).filter(|line| !line.is_empty());
    let models = if fields.has("all_models") {
        if listed().next().is_some() {
            let error = "list models, or let the domain see all, but not both";
            return Err(Mistake::at("models", &error));
        }
        NewModels::All
    } else {
        if listed().next().is_none() {
            let error = "list the models that it sees, or tick All models of the backend";
            return Err(Mistake::at("models", &error));
        }
        let models = listed().map(str::parse::<ListedModel>).collect::<Result<_, _>>();
        NewModels::Listed(models.map_err(|error| Mistake::at("models", &error))?)
    };
    Ok(NewSelfServiceDomain {
        slug: fields.get("slug").parse().map_err(|error| Mistake::at("slug", &error))?,
        name: fields.get("name").parse().map_err(|error| Mistake::at("name", &error))?,
        upstream: fields.get("backend").parse().map_err(|error| Mistake::at("backend", &error))?,
        models,
    })
}

fn own_domains(visitor: &Visitor, domains: &[GrantableDomain]) -> Markup {
    html! {
        @if visitor.session.platform_admin {
            p { a href="/confirm" { "Confirm your password to see and change all domains" } }
        }
        @if domains.is_empty() { p { "You have no role in any domain." } }
        ul.scopes {
            @for domain in domains {
                @let governs = domain.operations.iter().any(|held| GOVERNING.contains(&held.as_str()));
                li {
                    span { (domain.name) " (" (domain.slug) "): you have " (count(domain.operations.len(), "operation")) }
                    @if governs { a href={ "/domains/" (domain.slug) } { "Roles and members of " (domain.slug) } }
                    @if domain.operations.iter().any(|held| held == "audit_log_read") {
                        a href={ "/history?domain=" (domain.slug) } { "History of " (domain.slug) }
                    }
                }
            }
        }
    }
}

fn all_domains(
    visitor: &Visitor,
    domains: &[DomainEntry],
    backends: &[BackendEntry],
    draft: &Fields,
    mistake: Option<&Mistake>,
) -> Markup {
    let backend = Select {
        name: "backend",
        label: "Backend",
        options: backends
            .iter()
            .map(|backend| (backend.name.clone(), backend.name.clone()))
            .collect(),
        chosen: draft.get("backend"),
        mistake,
    };
    html! {
        (summary(mistake))
        table role="table" {
            caption { (count(domains.len(), "domain")) }
            thead role="rowgroup" { tr role="row" {
                @for head in ["Slug", "Name", "Backend", "Models", "State"] {
                    th role="columnheader" scope="col" { (head) }
                }
            } }
            tbody role="rowgroup" { @for domain in domains { tr role="row" {
                th role="rowheader" scope="row" { a href={ "/domains/" (domain.slug) } { (domain.slug) } }
                td role="cell" data-label="Name" { (domain.name) }
                td role="cell" data-label="Backend" { (domain.upstream) }
                td role="cell" data-label="Models" {
                    @if domain.all_models { "all" } @else { (domain.models.len()) }
                }
                td role="cell" data-label="State" {
                    @if domain.enabled { (domain.mode) } @else { "disabled" }
                }
            } } }
        }
        h2 { "New domain" }
        @if backends.is_empty() {
            p { "A domain needs a backend. " a href="/backends" { "Create one first" } "." }
        } @else {
            (form_to("/domains", visitor, &html! {
                (Field::new("slug", "Slug, as in the URL").hint("a-z, 0-9 and -; such as acme").value(draft.get("slug")).mistake(mistake))
                (Field::new("name", "Name").value(draft.get("name")).mistake(mistake))
                (backend)
                (Field::new("models", "Models that it sees, one per line")
                    .kind("textarea", "off").value(draft.get("models")).optional().mistake(mistake))
                (super::form::tick("all_models", "All models of the backend", draft.has("all_models")))
                button { "Create the domain" }
            }))
        }
    }
}

pub(super) async fn backends(
    State(site): State<Arc<Site>>,
    visitor: Visitor,
    Asked(notice): Asked<Notice>,
) -> Result<Response, Fault> {
    list_backends(&site, &visitor, &notice, &Fields::default(), None).await
}

async fn list_backends(
    site: &Site,
    visitor: &Visitor,
    notice: &Notice,
    draft: &Fields,
    mistake: Option<Mistake>,
) -> Result<Response, Fault> {
    let backends = site.service.backends(&visitor.caller).await?;
    let status = mistake.as_ref().map_or(StatusCode::OK, |mistake| mistake.status);
    Ok(answer(status, render_backends(visitor, &backends, notice, draft, mistake.as_ref())))
}

pub(super) async fn change_backend(
    State(site): State<Arc<Site>>,
    SentForm { visitor, fields }: SentForm,
) -> Result<Response, Fault> {
    if fields.get("do") == "delete" {
        let consequence =
            format!("The backend {} is deleted, with its credential.", fields.get("name"));
        let label = "Delete the backend".to_owned();
        let question = Question { action: "/backends", label, consequence, back: "/backends" };
        if let Some(page) = unless_sure(&visitor, &fields, &question) {
            return Ok(page);
        }
    }
    let changed = async {
        let name: BackendName =
            fields.get("name").parse().map_err(|error| Ok(Mistake::at("name", &error)))?;
        let read = || -> Result<(BackendUrl, BackendKind), Mistake> {
            let url = fields.get("url").parse().map_err(|error| Mistake::at("url", &error))?;
            let kind = fields.get("kind").parse().map_err(|error| Mistake::at("kind", &error))?;
            Ok((url, kind))
        };
        let (service, caller) = (&site.service, &visitor.caller);
        let field = (fields.get("do") == "create").then_some("name");
        let changed = match fields.get("do") {
            "create" => {
                let (url, kind) = read().map_err(Ok)?;
                service.create_backend(caller, &name, &url, kind).await
            }
            "delete" => service.delete_backend(caller, &name).await,
            _ => return Err(Err(Problem::invalid("the form says nothing to do").into())),
        };
        changed.map(drop).map_err(|error| Mistake::of(error, field))
    };
    match changed.await {
        Ok(()) => Ok(Done::Saved.lead_to("/backends")),
        Err(mistake) => {
            list_backends(&site, &visitor, &Notice::default(), &fields, Some(mistake?)).await
        }
    }
}

fn render_backends(
    visitor: &Visitor,
    backends: &[BackendEntry],
    notice: &Notice,
    draft: &Fields,
    mistake: Option<&Mistake>,
) -> Markup {
    let kind = Select {
        name: "kind",
        label: "Kind",
        options: [BackendKind::Vllm, BackendKind::Ollama, BackendKind::Openai]
            .map(|kind| (kind.as_str().to_owned(), kind.as_str().to_owned()))
            .into(),
        chosen: "vllm",
        mistake,
    };
    let content = html! {
        h1 { "Backends" }
        (notice.render())
        (summary(mistake))
        p { "The servers of models that domains use. Only commands set a credential of a backend." }
        table role="table" {
            caption { (count(backends.len(), "backend")) }
            thead role="rowgroup" { tr role="row" {
                @for head in ["Name", "URL", "Kind", "Used by", "Delete"] {
                    th role="columnheader" scope="col" { (head) }
                }
            } }
            tbody role="rowgroup" { @for backend in backends { tr role="row" {
                th role="rowheader" scope="row" { (backend.name) }
                td role="cell" data-label="URL" { (backend.url) }
                td role="cell" data-label="Kind" { (backend.kind) }
                td role="cell" data-label="Used by" {
                    @if backend.domains.is_empty() { "no domain" } @else { (backend.domains.join(", ")) }
                }
                td role="cell" data-label="Delete" {
                    (named_button_to("/backends", visitor, "Delete", Some(&backend.name),
                        &[("do", "delete"), ("name", &backend.name)]))
                }
            } } }
        }
        h2 { "New backend" }
        (form_to("/backends", visitor, &html! {
            (hidden("do", "create"))
            (Field::new("name", "Name, as Envoy's routes know it").value(draft.get("name")).mistake(mistake))
            (Field::new("url", "URL").kind("url", "off").value(draft.get("url")).mistake(mistake))
            (kind)
            button { "Create the backend" }
        }))
    };
    page("Backends", Frame::Of(visitor), &content)
}
