//! One domain: its models, and its roles with their members.

use std::sync::Arc;

use axum::{
    extract::{Path, State},
    http::StatusCode,
    response::{IntoResponse, Redirect, Response},
};
use maud::{Markup, html};

use super::{
    Fault,
    form::{Field, Mistake, Select, button_to, form_to, hidden, named_button_to, summary, tick},
    input::{Fields, SentForm, Visitor},
    layout::{Frame, answer, page},
};
use crate::{
    admin::{
        BackendName, RoleName, UserRef,
        web::{BackendEntry, DomainEdit, DomainEntry, Error, RoleEntry},
    },
    domain::DomainRef,
    operation::Operation,
    vocabulary::vocabulary,
    web::{Site, problem::Problem},
};

vocabulary! {
    /// A change of a domain, as the path of its form has it.
    Change, "change of a domain" {
        Settings = "settings",
        AddModel = "add-model",
        RemoveModel = "remove-model",
        Delete = "delete",
        CreateRole = "create-role",
        SetOperations = "set-operations",
        DeleteRole = "delete-role",
        AddMember = "add-member",
        RemoveMember = "remove-member",
    }
}

/// A name in a path: what is none is answered like one that no domain has.
pub(super) fn reference(text: &str) -> Result<DomainRef, Fault> {
    let unknown = || Error::NotFound("there is no such domain".into()).into();
    DomainRef::parse(text).ok_or_else(unknown)
}

pub(super) async fn show(
    State(site): State<Arc<Site>>,
    Path(domain): Path<String>,
    visitor: Visitor,
) -> Result<Response, Fault> {
    details(&site, &visitor, &reference(&domain)?, None).await
}

pub(super) async fn change(
    State(site): State<Arc<Site>>,
    Path((domain, change)): Path<(String, String)>,
    SentForm { visitor, fields }: SentForm,
) -> Result<Response, Fault> {
    let domain = reference(&domain)?;
    let change: Change =
        change.parse().map_err(|_| Problem::not_found("there is nothing at this path"))?;
    match make(&site, &visitor, &domain, change, &fields).await {
        Ok(()) if change == Change::Delete => Ok(Redirect::to("/domains").into_response()),
        Ok(()) => Ok(Redirect::to(&format!("/domains/{domain}")).into_response()),
        Err(mistake) => details(&site, &visitor, &domain, Some(mistake?)).await,
    }
}

/// Why a change was not made: a mistake of the visitor, or a fault that ends the page.
type Refusal = Result<Mistake, Fault>;

async fn make(
    site: &Site,
    visitor: &Visitor,
    domain: &DomainRef,
    change: Change,
    fields: &Fields,
) -> Result<(), Refusal> {
    let (service, caller) = (&site.service, &visitor.caller);
    let role =
        || fields.get("role").parse::<RoleName>().map_err(|error| Ok(Mistake::at("role", &error)));
    let member = || {
        fields.get("member").parse::<UserRef>().map_err(|error| Ok(Mistake::at("member", &error)))
    };
    let (made, field) = match change {
        Change::Settings => {
            let upstream = fields.get("backend").parse::<BackendName>();
            let upstream = upstream.map_err(|error| Ok(Mistake::at("backend", &error)))?;
            let edit = DomainEdit {
                enabled: Some(fields.has("enabled")),
                upstream: Some(upstream),
                all_models: fields.has("all_models"),
                ..DomainEdit::default()
            };
            (service.update_domain(caller, domain, &edit).await, "backend")
        }
        Change::AddModel => {
            let model = fields.get("model").parse();
            let model = model.map_err(|error| Ok(Mistake::at("model", &error)))?;
            let upstream = fields.get("model_backend").parse::<BackendName>();
            let upstream = upstream.map_err(|error| Ok(Mistake::at("model_backend", &error)))?;
            (service.set_model(caller, domain, &model, Some(&upstream)).await, "model")
        }
        Change::RemoveModel => {
            let model = fields.get("model").parse();
            let model = model.map_err(|error| Ok(Mistake::at("model", &error)))?;
            (service.set_model(caller, domain, &model, None).await, "model")
        }
        Change::Delete => (service.delete_domain(caller, domain).await, "backend"),
        Change::CreateRole => {
            let operations = operations(fields).map_err(Ok)?;
            (service.create_role(caller, domain, &role()?, &operations).await, "role")
        }
        Change::SetOperations => {
            let wanted = operations(fields).map_err(Ok)?;
            let taken: Vec<Operation> =
                Operation::ALL.iter().copied().filter(|it| !wanted.contains(it)).collect();
            (service.change_role(caller, domain, &role()?, &wanted, &taken).await, "role")
        }
        Change::DeleteRole => (service.delete_role(caller, domain, &role()?).await, "role"),
        Change::AddMember => {
            (service.add_member(caller, domain, &role()?, &member()?).await, "member")
        }
        Change::RemoveMember => {
            (service.remove_member(caller, domain, &role()?, &member()?).await, "member")
        }
    };
    made.map(drop).map_err(|error| Mistake::of(error, Some(field)))
}

fn operations(fields: &Fields) -> Result<Vec<Operation>, Mistake> {
    let read: Result<_, _> = fields.all("operation").map(str::parse).collect();
    read.map_err(|error| Mistake::at("role", &error))
}

/// What only administrators see of a domain.
struct Settings {
    domain: DomainEntry,
    backends: Vec<BackendEntry>,
}

async fn details(
    site: &Site,
    visitor: &Visitor,
    domain: &DomainRef,
    mistake: Option<Mistake>,
) -> Result<Response, Fault> {
    let roles = site.service.roles(&visitor.caller, domain).await?;
    let settings = if visitor.session.elevated {
        let all = site.service.domains(&visitor.caller).await?;
        let backends = site.service.backends(&visitor.caller).await?;
        let name = domain.to_string();
        let found = all.into_iter().find(|it| it.slug == name || it.id.to_string() == name);
        found.map(|domain| Settings { domain, backends })
    } else {
        None
    };
    let status = mistake.as_ref().map_or(StatusCode::OK, |mistake| mistake.status);
    let page = render(visitor, domain, settings.as_ref(), &roles, mistake.as_ref());
    Ok(answer(status, page))
}

fn render(
    visitor: &Visitor,
    domain: &DomainRef,
    settings: Option<&Settings>,
    roles: &[RoleEntry],
    mistake: Option<&Mistake>,
) -> Markup {
    let to = |change: Change| format!("/domains/{domain}/{change}");
    let content = html! {
        h1 { "Domain " (domain) }
        (summary(mistake))
        @if let Some(settings) = settings { (of_administrators(visitor, settings, &to, mistake)) }
        h2 { "Roles" }
        @if roles.is_empty() { p { "None." } }
        @for role in roles { (role_of(visitor, role, &to)) }
        h2 { "Add a member" }
        (form_to(&to(Change::AddMember), visitor, &html! {
            (Field::new("member", "Email address of the user").kind("email", "off").mistake(mistake))
            (Select {
                name: "role",
                label: "Role",
                options: roles.iter().map(|role| (role.name.clone(), role.name.clone())).collect(),
                chosen: "",
                mistake: None,
            })
            button { "Add the member" }
        }))
        h2 { "New role" }
        (form_to(&to(Change::CreateRole), visitor, &html! {
            div.field {
                label for="new-role" { "Name" }
                input id="new-role" name="role" autocomplete="off" required;
            }
            (boxes("new", &[]))
            button { "Create the role" }
        }))
    };
    page(&format!("Domain {domain}"), Frame::Of(visitor), &content)
}

fn role_of(visitor: &Visitor, role: &RoleEntry, to: &impl Fn(Change) -> String) -> Markup {
    let name = role.name.as_str();
    html! {
        section aria-labelledby={ "role-" (name) } {
            h3 id={ "role-" (name) } { (name) }
            @match &role.members {
                None => p { "You may not see its members." },
                Some(members) if members.is_empty() => p { "It has no members." },
                Some(members) => ul.scopes { @for member in members { li {
                    span { (member) }
                    (named_button_to(&to(Change::RemoveMember), visitor, "Remove",
                        Some(&format!("{member} from {name}")), &[("role", name), ("member", member)]))
                } } },
            }
            details {
                summary { "What " (name) " may do: " (role.operations.len()) " operations" }
                (form_to(&to(Change::SetOperations), visitor, &html! {
                    (hidden("role", name))
                    (boxes(name, &role.operations))
                    button.plain { "Change the role " (name) }
                }))
                (named_button_to(&to(Change::DeleteRole), visitor, "Delete the role", Some(name),
                    &[("role", name)]))
            }
        }
    }
}

/// A box for each operation.
fn boxes(of: &str, ticked: &[String]) -> Markup {
    html! {
        fieldset.boxes {
            legend { "Operations" @if of != "new" { " of " (of) } }
            @for operation in Operation::ALL {
                @let word = operation.as_str();
                @let id = format!("{of}-{word}");
                div.tick {
                    input type="checkbox" id=(id) name="operation" value=(word)
                        checked[ticked.iter().any(|it| it == word)];
                    label for=(id) { (word) }
                }
            }
        }
    }
}

fn of_administrators(
    visitor: &Visitor,
    Settings { domain, backends }: &Settings,
    to: &impl Fn(Change) -> String,
    mistake: Option<&Mistake>,
) -> Markup {
    let names = || backends.iter().map(|it| (it.name.clone(), it.name.clone())).collect();
    let backend =
        |name, label| Select { name, label, options: names(), chosen: &domain.upstream, mistake };
    html! {
        h2 { "Settings of " (domain.name) }
        (form_to(&to(Change::Settings), visitor, &html! {
            (backend("backend", "Backend"))
            (tick("enabled", "Enabled", domain.enabled))
            @if domain.all_models { p.hint { "It sees all models of the backend." } }
            @else { (tick("all_models", "See all models, and forget the list", false)) }
            button.plain { "Save the settings" }
        }))
        h2 { "Models" }
        @if domain.models.is_empty() {
            p { @if domain.all_models { "No list: all models." } @else { "It sees no model." } }
        }
        ul.scopes {
            @for model in &domain.models {
                li {
                    span { code { (model.model) } " by " (model.upstream) }
                    (named_button_to(&to(Change::RemoveModel), visitor, "Remove", Some(&model.model),
                        &[("model", &model.model)]))
                }
            }
        }
        (form_to(&to(Change::AddModel), visitor, &html! {
            (Field::new("model", "Model").hint("the first model turns the list on").mistake(mistake))
            (backend("model_backend", "Served by"))
            button.plain { "Add the model" }
        }))
        details {
            summary { "Delete the domain" }
            p { "Its roles, its list of models and all scopes in it are deleted, too." }
            (button_to(&to(Change::Delete), visitor, "Delete the domain", &[]))
        }
    }
}
