//! Creating a token.

use std::{sync::Arc, time::Duration};

use axum::{extract::State, http::StatusCode, response::Response};
use jiff::{Timestamp, civil::Date, tz::TimeZone};
use maud::{Markup, html};
use uuid::Uuid;

use super::{
    Fault,
    form::{Field, Mistake, Select, form_to, hidden, summary},
    input::{Fields, SentForm, Visitor},
    layout::{Frame, answer, page},
    scopes::{ROWS, Row, rows},
    secret::shown_once,
};
use crate::{
    admin::{
        Expiry, NewScope,
        web::{Creation, CurrentSession, Error, GrantableDomain, NewOwnToken},
    },
    web::Site,
};

const DAY: u64 = 24 * 60 * 60;
const PRESETS: [u64; 5] = [1, 7, 30, 90, 365];

/// What the form says.
struct Draft {
    /// Sent again with each attempt, so that one form creates one token.
    key: String,
    name: String,
    description: String,
    days: String,
    until: String,
    rows: Vec<Row>,
}

impl Draft {
    fn empty() -> Self {
        let key = Uuid::new_v4().to_string();
        let (name, description, days, until) = Default::default();
        Self { key, name, description, days, until, rows: vec![Row::default()] }
    }

    fn read(fields: &Fields) -> Self {
        let text = |name| fields.get(name).to_owned();
        Self {
            key: text("key"),
            name: text("name"),
            description: text("description"),
            days: text("days"),
            until: text("until"),
            rows: Row::read(fields),
        }
    }

    fn parse(&self) -> Result<NewOwnToken, Mistake> {
        let scopes: Vec<NewScope> = Row::scopes(&self.rows)?;
        Ok(NewOwnToken {
            name: self.name.parse().map_err(|error| Mistake::at("name", &error))?,
            description: self
                .description
                .parse()
                .map_err(|error| Mistake::at("description", &error))?,
            expiry: expiry(&self.days, &self.until)?,
            scopes,
            idempotency_key: Some(self.key.clone()).filter(|key| !key.is_empty()),
        })
    }
}

/// When the token expires: after some days, or at the end of a day; `None` for the usual time.
fn expiry(days: &str, until: &str) -> Result<Option<Expiry>, Mistake> {
    match (days, until) {
        ("", "") => Ok(None),
        (days, "") => {
            let days = days.parse::<u64>().ok().filter(|days| (1..=36_500).contains(days));
            let days = days.ok_or_else(|| Mistake::at("days", &"choose a time from the list"))?;
            Ok(Some(Expiry::In(Duration::from_secs(days * DAY))))
        }
        ("", until) => {
            let end = end_of(until);
            let end = end.ok_or_else(|| Mistake::at("until", &"expected a day such as 2030-01-31"));
            end.map(|end| Some(Expiry::At(end)))
        }
        _ => Err(Mistake::at("until", &"choose either a time or a day")),
    }
}

/// The end of a day in UTC.
fn end_of(day: &str) -> Option<Timestamp> {
    let next = day.parse::<Date>().ok()?.tomorrow().ok()?;
    Some(next.to_zoned(TimeZone::UTC).ok()?.timestamp())
}

pub(super) async fn show(
    State(site): State<Arc<Site>>,
    visitor: Visitor,
) -> Result<Response, Fault> {
    form(&site, &visitor, &Draft::empty(), None).await
}

pub(super) async fn create(
    State(site): State<Arc<Site>>,
    SentForm { visitor, fields }: SentForm,
) -> Result<Response, Fault> {
    let mut draft = Draft::read(&fields);
    if fields.has("add") {
        draft.rows.push(Row::default());
        return form(&site, &visitor, &draft, None).await;
    }
    let new = match draft.parse() {
        Ok(new) => new,
        Err(mistake) => return form(&site, &visitor, &draft, Some(mistake)).await,
    };
    match site.service.create_token(&visitor.caller, &new).await.map(|outcome| outcome.value) {
        Ok(Creation::Created { plain, token }) => {
            let page = shown_once(&site, &visitor, &plain, &token, None).await?;
            Ok(answer(StatusCode::CREATED, page))
        }
        Ok(Creation::Repeated { id, token }) => {
            let id = token.map(|_| id.0);
            Ok(answer(StatusCode::OK, repeated(&visitor, id)))
        }
        Err(error) => {
            let field = match &error {
                Error::Exists(_) => Some("name"),
                Error::LifetimeTooLong { .. } if draft.until.is_empty() => Some("days"),
                Error::LifetimeTooLong { .. } => Some("until"),
                Error::NotPermitted(_) | Error::NotFound(_) => Some(ROWS),
                Error::Invalid(_) if !draft.until.is_empty() => Some("until"),
                _ => None,
            };
            let mistake = Mistake::of(error, field)?;
            form(&site, &visitor, &draft, Some(mistake)).await
        }
    }
}

async fn form(
    site: &Site,
    visitor: &Visitor,
    draft: &Draft,
    mistake: Option<Mistake>,
) -> Result<Response, Fault> {
    let domains = site.service.grantable(&visitor.caller).await?;
    let status = mistake.as_ref().map_or(StatusCode::OK, |mistake| mistake.status);
    Ok(answer(status, render(visitor, draft, &domains, mistake.as_ref())))
}

/// The times that the policy permits.
fn times(session: &CurrentSession) -> Vec<(String, String)> {
    let longest = session.token_longest_seconds.unwrap_or(u64::MAX);
    let usual = session.token_default_seconds.min(longest) / DAY;
    let presets = PRESETS.into_iter().filter(|days| days * DAY <= longest && *days != usual);
    let usual = (String::new(), format!("{usual} days (the default), or until the day below"));
    let presets = presets.map(|days| {
        let unit = if days == 1 { "day" } else { "days" };
        (days.to_string(), format!("{days} {unit}"))
    });
    [usual].into_iter().chain(presets).collect()
}

fn render(
    visitor: &Visitor,
    draft: &Draft,
    domains: &[GrantableDomain],
    mistake: Option<&Mistake>,
) -> Markup {
    let days = Select {
        name: "days",
        label: "Works for",
        options: times(&visitor.session),
        chosen: &draft.days,
        mistake,
    };
    let longest = visitor.session.token_longest_seconds.map(|longest| longest / DAY);
    let content = html! {
        h1 { "New token" }
        (summary(mistake))
        @if domains.is_empty() {
            p { "You have no role in any domain, so a token could do nothing. Ask an administrator for one." }
        } @else { (form_to("/tokens/new", visitor, &html! {
            (hidden("key", &draft.key))
            (Field::new("name", "Name")
                .value(&draft.name)
                .hint("such as the device or the program that will use it")
                .mistake(mistake))
            (Field::new("description", "What it is for")
                .value(&draft.description)
                .optional()
                .mistake(mistake))
            (days)
            (Field::new("until", "Until the end of this day (UTC)")
                .kind("date", "off")
                .value(&draft.until)
                .optional()
                .mistake(mistake))
            @if let Some(longest) = longest {
                p.hint { "A token works for " (longest) " days at most." }
            }
            h2 { "Scopes" }
            p { "A token may do what its scopes say, as long as you may do it yourself." }
            (rows(&draft.rows, domains, mistake))
            div.actions {
                button { "Create the token" }
                button.plain name="add" value="yes" formnovalidate { "Add another scope" }
            }
        })) }
    };
    page("New token", Frame::Of(visitor), &content)
}

fn repeated(visitor: &Visitor, id: Option<Uuid>) -> Markup {
    let content = html! {
        h1 { "Created before" }
        p role="status" {
            "This form has created its token, which was shown then and cannot be shown again. If you \
             did not keep it, give it a new secret."
        }
        p {
            @match id {
                Some(id) => a href={ "/tokens/" (id) } { "Details of the token" },
                None => a href="/tokens/new" { "It was deleted. Create another" },
            }
        }
    };
    page("Created before", Frame::Of(visitor), &content)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_works_for_a_time_or_until_the_end_of_a_day() {
        let day = Duration::from_secs(DAY);
        assert!(matches!(expiry("7", ""), Ok(Some(Expiry::In(time))) if time == 7 * day));
        assert!(matches!(expiry("", ""), Ok(None)));
        let Ok(Some(Expiry::At(end))) = expiry("", "2028-02-29") else { panic!() };
        assert_eq!(end.to_string(), "2028-03-01T00:00:00Z");
        for (days, until) in [
            ("0", ""),
            ("-1", ""),
            ("x", ""),
            ("", "tomorrow"),
            ("", "2030-02-30"),
            ("7", "2030-01-01"),
        ] {
            assert!(expiry(days, until).is_err(), "{days} {until}");
        }
    }
}
