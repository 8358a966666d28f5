//! What ends a token, or its present secret, now or later. Each asks before it does so.

use std::{sync::Arc, time::Duration};

use axum::{
    extract::{Path, State},
    http::StatusCode,
    response::Response,
};
use maud::{Markup, html};

use super::{
    Fault, HOME,
    form::{Mistake, Select, form_to, hidden, summary},
    input::{Fields, SentForm, Visitor, token_id},
    layout::{Frame, answer, page},
    notice::Done,
    secret::shown_once,
};
use crate::{
    admin::{
        CommittedChange,
        web::{Error, OwnToken, Replicas},
    },
    clock,
    token::TokenId,
    vocabulary::vocabulary,
    web::{Site, problem::Problem},
};

vocabulary! {
    /// What is done to a token.
    Ending, "change of a token" {
        Rotate = "rotate",
        Reset = "reset",
        Revoke = "revoke",
        Delete = "delete",
    }
}

impl Ending {
    fn of(word: &str) -> Result<Self, Fault> {
        word.parse().map_err(|_| Problem::not_found("there is nothing at this path").into())
    }

    /// Whether something stops to work at once and for good.
    fn is_final(self) -> bool {
        self != Self::Rotate
    }

    fn label(self) -> &'static str {
        match self {
            Self::Rotate => "Rotate the token",
            Self::Reset => "Make a new secret",
            Self::Revoke => "Revoke the token",
            Self::Delete => "Delete the token",
        }
    }

    fn consequence(self) -> &'static str {
        match self {
            Self::Rotate => {
                "A new token with the same scopes takes its place, and is shown once. The old one works \
                 on for a while, in which you can exchange it wherever it is used."
            }
            Self::Reset => {
                "The token gets a new secret, which is shown once. What uses the old one is refused \
                 from then on."
            }
            Self::Revoke => "What uses the token is refused from then on. It never works again.",
            Self::Delete => {
                "What uses the token is refused from then on, as if it had been revoked, and it \
                 disappears from your list. Revoke it if you want to see it there."
            }
        }
    }
}

pub(super) async fn confirm(
    State(site): State<Arc<Site>>,
    Path((id, ending)): Path<(String, String)>,
    visitor: Visitor,
) -> Result<Response, Fault> {
    let ending = Ending::of(&ending)?;
    let token = site.service.token(&visitor.caller, token_id(&id)?).await?;
    Ok(answer(StatusCode::OK, confirmation(&visitor, ending, &token, None)))
}

pub(super) async fn end(
    State(site): State<Arc<Site>>,
    Path((id, ending)): Path<(String, String)>,
    SentForm { visitor, fields }: SentForm,
) -> Result<Response, Fault> {
    let (id, ending) = (token_id(&id)?, Ending::of(&ending)?);
    let done = match ending {
        Ending::Rotate => rotate(&site, &visitor, id, &fields).await?,
        Ending::Reset => reset(&site, &visitor, id, fields.version()).await,
        Ending::Revoke => revoke(&site, &visitor, id).await,
        Ending::Delete => delete(&site, &visitor, id, fields.version()).await,
    };
    match done {
        Ok(response) => Ok(response),
        Err(error) => {
            let mistake = Mistake::of(error, None)?;
            let token = site.service.token(&visitor.caller, id).await?;
            let page = confirmation(&visitor, ending, &token, Some(&mistake));
            Ok(answer(mistake.status, page))
        }
    }
}

/// How long the old token can work beside the new one.
const OVERLAPS: [(&str, Duration); 4] = [
    ("1 day", Duration::from_secs(24 * 60 * 60)),
    ("1 hour", Duration::from_secs(60 * 60)),
    ("7 days", Duration::from_secs(7 * 24 * 60 * 60)),
    ("not at all", Duration::ZERO),
];

async fn rotate(
    site: &Site,
    visitor: &Visitor,
    id: TokenId,
    fields: &Fields,
) -> Result<Result<Response, Error>, Fault> {
    let overlap = OVERLAPS.iter().find(|(words, _)| *words == fields.get("overlap"));
    let Some((words, overlap)) = overlap else {
        return Err(Problem::invalid("choose for how long the old token shall work").into());
    };
    let rotated = async {
        let version = fields.version();
        let rotated = site.service.rotate_token(&visitor.caller, id, version, *overlap).await?;
        let (plain, new, old) = rotated.value;
        let more = match overlap.is_zero() {
            true => format!("The old one, now named {}, is revoked.", old.name),
            false => format!("The old one, now named {}, works on for {words} at most.", old.name),
        };
        Ok(answer(StatusCode::CREATED, shown_once(site, visitor, &plain, &new, Some(&more)).await?))
    };
    Ok(rotated.await)
}

async fn reset(
    site: &Site,
    visitor: &Visitor,
    id: TokenId,
    version: Option<&str>,
) -> Result<Response, Error> {
    let (plain, token) = site.service.reset_token(&visitor.caller, id, version, None).await?.value;
    Ok(answer(StatusCode::OK, shown_once(site, visitor, &plain, &token, None).await?))
}

async fn revoke(site: &Site, visitor: &Visitor, id: TokenId) -> Result<Response, Error> {
    let revoked = site.service.revoke_token(&visitor.caller, id).await?;
    let obeyed = obeyed(site, visitor, &revoked.committed).await?;
    let content = html! {
        h1 { "Revoked: " (revoked.value.name) }
        p role="status" { (obeyed) }
        p { a href=(HOME) { "Your tokens" } }
        p { a href={ "/tokens/" (id.0) } { "Details of the token" } }
    };
    Ok(answer(StatusCode::OK, page("Revoked", Frame::Of(visitor), &content)))
}

async fn delete(
    site: &Site,
    visitor: &Visitor,
    id: TokenId,
    version: Option<&str>,
) -> Result<Response, Error> {
    let _deleted = site.service.delete_token(&visitor.caller, id, version).await?;
    Ok(Done::Deleted.lead_to(HOME))
}

/// How long a page waits for the replicas, and how often it asks.
const PATIENCE: Duration = Duration::from_secs(1);
const INTERVAL: Duration = Duration::from_millis(50);

/// Waits until all replicas obey a change, and says when they did.
async fn obeyed(site: &Site, visitor: &Visitor, change: &CommittedChange) -> Result<String, Error> {
    let begin = clock::now();
    loop {
        let Replicas { applied, missing, .. } =
            site.service.applied(&visitor.caller, change).await?;
        let took = clock::now().since(begin);
        if missing == 0 {
            let took = took.as_millis();
            return Ok(match applied {
                0 => "No replica serves now.".to_owned(),
                all => format!(
                    "The token is refused now: {all} of {all} replicas obeyed, the last {took} ms after \
                     the change."
                ),
            });
        }
        if took >= PATIENCE {
            return Ok(format!(
                "{applied} replicas obey, and {missing} have not confirmed it yet. They obey as soon \
                 as they reach the database, and answer nothing from older data for long."
            ));
        }
        tokio::time::sleep(INTERVAL).await;
    }
}

fn overlap() -> Select<'static> {
    let options = OVERLAPS.iter().map(|(words, _)| ((*words).to_owned(), (*words).to_owned()));
    Select {
        name: "overlap",
        label: "The old one works on for",
        options: options.collect(),
        chosen: "",
        mistake: None,
    }
}

fn confirmation(
    visitor: &Visitor,
    ending: Ending,
    token: &OwnToken,
    mistake: Option<&Mistake>,
) -> Markup {
    let content = html! {
        h1 { (ending.label()) }
        (summary(mistake))
        p { strong { (token.name) } @if token.owner != visitor.session.email { " of " (token.owner) } }
        p { (ending.consequence()) }
        (form_to(&format!("/tokens/{}/{ending}", token.id), visitor, &html! {
            (hidden("version", &token.version))
            @if ending == Ending::Rotate { (overlap()) }
            div.actions {
                button.danger[ending.is_final()] { (ending.label()) }
                a href={ "/tokens/" (token.id) } { "Keep it as it is" }
            }
        }))
    };
    page(ending.label(), Frame::Of(visitor), &content)
}
