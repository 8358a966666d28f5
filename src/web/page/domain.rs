//! One domain: its models, and its roles with their members.

use std::sync::Arc;

use axum::{
    extract::{Path, State},
    http::StatusCode,
    response::Response,
};
use maud::{Markup, html};

use super::{
    Fault,
    form::{Field, Mistake, Select, button_to, form_to, hidden, named_button_to, summary, tick},
    input::{Asked, Fields, SentForm, Visitor},
    layout::{Frame, answer, page},
    notice::{Done, Notice},
    sure::{Question, unless_sure},
    time::count,
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

impl Change {
    /// What this does that its user may not expect; `None` if it can be taken back.
    fn consequence(
        self,
        visitor: &Visitor,
        domain: &DomainRef,
        fields: &Fields,
    ) -> Option<(&'static str, String)> {
        let (role, member) = (fields.get("role"), fields.get("member"));
        Some(match self {
            Self::Delete => (
                "Delete the domain",
                format!(
                    "The domain {domain} is deleted with its roles, its list of models, and all scopes \
                     in it. This cannot be undone."
                ),
            ),
            Self::DeleteRole => (
                "Delete the role",
                format!("The members of {role} lose what it permits, and so do their tokens."),
            ),
            Self::RemoveMember if member == visitor.session.email => (
                "Leave the role",
                format!(
                    "You lose your own rights by {role} in {domain}. Only those who govern its roles \
                     can give them back."
                ),
            ),
            Self::RemoveMember => (
                "Remove the member",
                format!("{member} loses what {role} permits, and so do the tokens of {member}."),
            ),
            Self::Settings if fields.has("all_models") => (
                "Forget the list of models",
                format!(
                    "The domain {domain} sees all models of its backend, and its list is lost."
                ),
            ),
            _ => return None,
        })
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
    Asked(notice): Asked<Notice>,
) -> Result<Response, Fault> {
    details(&site, &visitor, &reference(&domain)?, &notice, &Fields::default(), None).await
}

pub(super) async fn change(
    State(site): State<Arc<Site>>,
    Path((domain, change)): Path<(String, String)>,
    SentForm { visitor, fields }: SentForm,
) -> Result<Response, Fault> {
    let domain = reference(&domain)?;
    let change: Change =
        change.parse().map_err(|_| Problem::not_found("there is nothing at this path"))?;
    let page = format!("/domains/{domain}");
    if let Some((label, consequence)) = change.consequence(&visitor, &domain, &fields) {
        let (action, label) = (format!("{page}/{change}"), label.to_owned());
        let question = Question { action: &action, label, consequence, back: &page };
        if let Some(page) = unless_sure(&visitor, &fields, &question) {
            return Ok(page);
        }
    }
    match make(&site, &visitor, &domain, change, &fields).await {
        Ok(()) if change == Change::Delete => Ok(Done::Deleted.lead_to("/domains")),
        // Whoever has left the domain may see it no more.
        Ok(()) if change == Change::RemoveMember => Ok(Done::Saved.lead_to("/domains")),
        Ok(()) => Ok(Done::Saved.lead_to(&page)),
        Err(mistake) => {
            let notice = Notice::default();
            details(&site, &visitor, &domain, &notice, &fields, Some(mistake?)).await
        }
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
            let operations = operations(fields, "operation").map_err(Ok)?;
            let role = fields.get("new-role").parse::<RoleName>();
            let role = role.map_err(|error| Ok(Mistake::at("new-role", &error)))?;
            (service.create_role(caller, domain, &role, &operations).await, "new-role")
        }
        Change::SetOperations => {
            // Only what the visitor has changed: the role may be another one than they have seen.
            let wanted = operations(fields, "operation").map_err(Ok)?;
            let seen = operations(fields, "seen").map_err(Ok)?;
            let added: Vec<Operation> =
                wanted.iter().copied().filter(|it| !seen.contains(it)).collect();
            let taken: Vec<Operation> =
                seen.into_iter().filter(|it| !wanted.contains(it)).collect();
            (service.change_role(caller, domain, &role()?, &added, &taken).await, "role")
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

fn operations(fields: &Fields, name: &str) -> Result<Vec<Operation>, Mistake> {
    let read: Result<_, _> = fields.all(name).map(str::parse).collect();
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
    notice: &Notice,
    draft: &Fields,
    mistake: Option<Mistake>,
) -> Result<Response, Fault> {
    let roles = site.service.roles(&visitor.caller, domain).await?;
    let name = domain.to_string();
    let held = site.service.grantable(&visitor.caller).await?;
    let held = held.into_iter().find(|it| it.slug == name || it.id.to_string() == name);
    let held = held.map(|it| it.operations).unwrap_or_default();
    let settings = if visitor.session.elevated {
        let all = site.service.domains(&visitor.caller).await?;
        let backends = site.service.backends(&visitor.caller).await?;
        let found = all.into_iter().find(|it| it.slug == name || it.id.to_string() == name);
        found.map(|domain| Settings { domain, backends })
    } else {
        None
    };
    let status = mistake.as_ref().map_or(StatusCode::OK, |mistake| mistake.status);
    let shown = Shown { visitor, domain, held: &held, draft, mistake: mistake.as_ref() };
    Ok(answer(status, shown.render(settings.as_ref(), &roles, notice)))
}

/// The page of a domain, for one visitor.
struct Shown<'a> {
    visitor: &'a Visitor,
    domain: &'a DomainRef,
    /// The operations that the visitor has there.
    held: &'a [String],
    /// What the visitor has sent, if it was not accepted.
    draft: &'a Fields,
    mistake: Option<&'a Mistake>,
}

impl Shown<'_> {
    fn may(&self, operation: Operation) -> bool {
        self.held.iter().any(|held| held == operation.as_str())
    }

    fn to(&self, change: Change) -> String {
        format!("/domains/{}/{change}", self.domain)
    }

    fn render(&self, settings: Option<&Settings>, roles: &[RoleEntry], notice: &Notice) -> Markup {
        let Self { visitor, domain, draft, mistake, .. } = *self;
        let content = html! {
            h1 { "Domain " (domain) }
            (notice.render())
            (summary(mistake))
            @if let Some(settings) = settings { (self.of_administrators(settings)) }
            h2 { "Roles" }
            @if roles.is_empty() { p { "None." } }
            @for role in roles { (self.role(role)) }
            @if self.may(Operation::AddRoleUsers) {
                h2 { "Add a member" }
                (form_to(&self.to(Change::AddMember), visitor, &html! {
                    (Field::new("member", "Email address of the user")
                        .kind("email", "off").value(draft.get("member")).mistake(mistake))
                    (Select {
                        name: "role",
                        label: "Role",
                        options: roles.iter().map(|role| (role.name.clone(), role.name.clone())).collect(),
                        chosen: draft.get("role"),
                        mistake,
                    })
                    button { "Add the member" }
                }))
            }
            @if self.may(Operation::ManageRole) {
                h2 { "New role" }
                (form_to(&self.to(Change::CreateRole), visitor, &html! {
                    (Field::new("new-role", "Name").value(draft.get("new-role")).mistake(mistake))
                    @let ticked: Vec<String> = match draft.has("new-role") {
                        true => draft.all("operation").map(str::to_owned).collect(),
                        false => Vec::new(),
                    };
                    (boxes("new", &ticked))
                    button { "Create the role" }
                }))
            }
        };
        page(&format!("Domain {domain}"), Frame::Of(visitor), &content)
    }

    fn role(&self, role: &RoleEntry) -> Markup {
        let (visitor, name) = (self.visitor, role.name.as_str());
        html! {
            section aria-labelledby={ "role-" (name) } {
                h3 id={ "role-" (name) } { (name) }
                @match &role.members {
                    None => p { "You may not see its members." },
                    Some(members) if members.is_empty() => p { "It has no members." },
                    Some(members) => ul.scopes { @for member in members { li {
                        span { (member) }
                        @if self.may(Operation::RemoveRoleUsers) {
                            (named_button_to(&self.to(Change::RemoveMember), visitor, "Remove",
                                Some(&format!("{member} from {name}")),
                                &[("role", name), ("member", member)]))
                        }
                    } } },
                }
                details {
                    summary { "What " (name) " may do: " (count(role.operations.len(), "operation")) }
                    @if self.may(Operation::ManageRole) {
                        (form_to(&self.to(Change::SetOperations), visitor, &html! {
                            (hidden("role", name))
                            @for seen in &role.operations { (hidden("seen", seen)) }
                            (boxes(name, &role.operations))
                            button.plain { "Change the role " (name) }
                        }))
                        (named_button_to(&self.to(Change::DeleteRole), visitor, "Delete the role",
                            Some(name), &[("role", name)]))
                    } @else {
                        p { (role.operations.join(", ")) }
                    }
                }
            }
        }
    }

    fn of_administrators(&self, Settings { domain, backends }: &Settings) -> Markup {
        let Self { visitor, draft, mistake, .. } = *self;
        let names = || backends.iter().map(|it| (it.name.clone(), it.name.clone())).collect();
        let backend = |name, label| Select {
            name,
            label,
            options: names(),
            chosen: &domain.upstream,
            mistake,
        };
        html! {
            h2 { "Settings of " (domain.name) }
            p { "In the rollout, it is in the mode " strong { (domain.mode) } ", which commands set." }
            (form_to(&self.to(Change::Settings), visitor, &html! {
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
                        (named_button_to(&self.to(Change::RemoveModel), visitor, "Remove",
                            Some(&model.model), &[("model", &model.model)]))
                    }
                }
            }
            (form_to(&self.to(Change::AddModel), visitor, &html! {
                (Field::new("model", "Model")
                    .hint("the first model turns the list on")
                    .value(draft.get("model"))
                    .mistake(mistake))
                (backend("model_backend", "Served by"))
                button.plain { "Add the model" }
            }))
            details {
                summary { "Delete the domain" }
                (button_to(&self.to(Change::Delete), visitor, "Delete the domain", &[]))
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
