//! `patgate check`: what would be answered, and why.

use std::sync::Arc;

use anyhow::{Context as _, bail};
use serde::Serialize;
use uuid::Uuid;
use zeroize::Zeroizing;

use super::{
    Usage,
    output::{aligned, write},
    session::{Admin, Session},
    token::{TokenIdParser, plain_from_standard_input},
};
use crate::{
    api::{Apis, Manner, Scheme},
    clock::{Clock, Moment, Tick},
    decision::Decision,
    domain::{Domain, DomainRef},
    explain::{Evidence, Explanation},
    keyring::{self, KeyRing},
    mode::{Rollout, Treatment},
    postgres::{AskError, Postgres},
    principal::Principal,
    request::{self, Parts},
    resolve::{
        Found,
        postgres::{read_domains, read_principals},
    },
    response, store,
    token::{Prefixes, TokenId, Tokens},
};

/// A request to explain; its token is on standard input.
#[derive(clap::Args)]
pub(super) struct Request {
    /// The request's method
    #[arg(long)]
    method: String,
    /// Its path, as Envoy would show it
    #[arg(long)]
    path: String,
    /// Its host, for APIs that are told apart by it
    #[arg(long, default_value = "")]
    host: String,
    /// The model that its body would name
    #[arg(long)]
    model: Option<String>,
    /// Takes possession of this token as proven, and reads none from standard input
    #[arg(long, value_name = "TOKEN_ID", value_parser = TokenIdParser)]
    pat_id: Option<Uuid>,
}

/// The service would refuse the request, which has been told in full.
#[derive(Debug, thiserror::Error)]
#[error("the request would be refused")]
pub(super) struct Refused {
    /// Whether there is such a token, as far as that was asked.
    pub(super) known: bool,
}

#[derive(Serialize)]
struct Report<'a> {
    method: &'a str,
    /// Without the query, which may hold anything.
    path: &'a str,
    outcome: &'static str,
    status: u16,
    code: &'static str,
    #[serde(flatten)]
    explanation: Explanation,
    #[serde(skip_serializing_if = "Option::is_none")]
    upstream: Option<&'a str>,
    /// How far the domain is enforced, where that is not to the full.
    #[serde(skip_serializing_if = "Option::is_none")]
    rollout: Option<String>,
}

/// What Postgres knows.
#[derive(Default)]
struct Known {
    principal: Option<Arc<Principal>>,
    domain: Option<Arc<Domain>>,
}

pub(super) async fn run(session: &Session, asked: Request) -> anyhow::Result<()> {
    let admin = session.admin().await?;
    let apis = Apis::load(&admin.config.apis)?;
    let (tokens, plain) = credential(&admin, asked.pat_id)?;
    let (method, authority, target) = (&*asked.method, &*asked.host, &*asked.path);
    let path = target.split_once('?').map_or(target, |(path, _)| path);
    let manner = apis.surface(authority, path).map_or_else(Manner::default, |api| api.manner());
    let scheme = manner.schemes.iter().next().unwrap_or(Scheme::Bearer);
    let authorization = Zeroizing::new(format!("{scheme} {}", plain.as_str()));
    let header = |name: &str| (name == "authorization").then_some(authorization.as_str());
    let parts = Parts { method, authority, target, header, body: b"" };

    let mut request = request::parse(&parts, &apis, &tokens);
    let (clock, mut known, mut now) = (Arc::new(Clock::default()), Known::default(), Moment(0));
    if let Ok(request) = &mut request {
        let reference = request.action.as_ref().and_then(|action| DomainRef::parse(&action.domain));
        known = look_up(&admin.postgres(&clock), request.token.id, reference).await?;
        now = clock.now(Tick::now()).context("Postgres did not tell the time")?;
        if asked.pat_id.is_some() {
            let Some(principal) = &known.principal else {
                let name = request.token.id.to_string();
                return Err(store::Error::NotFound { what: "token", name }.into());
            };
            // The one place where possession is not proven. What comes of it is printed, and
            // lets nobody in.
            request.token.digest = principal.digest.clone();
        }
    }
    let evidence = Evidence {
        apis: &apis,
        method,
        authority,
        target,
        model: asked.model.as_deref(),
        presumed: asked.pat_id.is_some(),
        request: request.as_ref(),
        principal: known.principal.as_deref(),
        domain: known.domain.as_ref(),
        now,
    };
    let decision = evidence.decide();
    let report = Report {
        method,
        path,
        outcome: decision.outcome(),
        status: response::status(&decision, evidence.manner()),
        code: decision.code(),
        explanation: evidence.explain(&decision),
        upstream: match &decision {
            Decision::Allow(permit) => Some(&permit.upstream),
            Decision::Pass(_) | Decision::Deny(_) => None,
        },
        rollout: known.domain.as_deref().and_then(|domain| {
            rollout(domain, known.principal.as_ref().map(|principal| principal.token))
        }),
    };
    if session.out.is_json() {
        session.out.json(&report)?
    } else {
        write(&report.text())?
    }
    match decision {
        Decision::Allow(_) => Ok(()),
        Decision::Pass(_) | Decision::Deny(_) => {
            Err(Refused { known: request.is_err() || known.principal.is_some() }.into())
        }
    }
}

/// What a replica with `mode: per-domain` makes of a refusal here. Which mode replicas are in, only
/// their own configuration tells.
fn rollout(domain: &Domain, token: Option<TokenId>) -> Option<String> {
    let (slug, Rollout { share, .. }) = (&domain.slug, domain.rollout);
    let what = match domain.rollout.treatment() {
        Treatment::Enforce => return None,
        _ if !domain.enabled => format!("{slug} is disabled, which is enforced in any mode"),
        Treatment::Shadow => format!("{slug} is in shadow: a 401 or 403 is only recorded"),
        Treatment::Ramp => {
            let this = match token {
                Some(token) if share.includes(domain.id, token) => "; this token is one of them",
                Some(_) => "; this token is none of them, so a 403 is only recorded",
                None => "",
            };
            format!("{slug} is enforced for {share} of its tokens{this}")
        }
    };
    Some(format!("{what} (where patgate serves with mode `per-domain`)"))
}

/// A token, and who can verify it. For an id, both are made for the occasion: the key is thrown
/// away with the process, and the key ring of the service is not even read.
fn credential(admin: &Admin, pat_id: Option<Uuid>) -> anyhow::Result<(Tokens, Zeroizing<String>)> {
    let Some(id) = pat_id else {
        let plain = plain_from_standard_input()?;
        if plain.is_empty() {
            return Err(Usage("expected a token on standard input, or --pat-id".to_owned()).into());
        }
        return Ok((admin.tokens()?, plain));
    };
    let ring = KeyRing::parse(&keyring::new_line(&"check".parse()?)?)?;
    let tokens = Tokens::new(Prefixes::default(), ring);
    let plain = Zeroizing::new(tokens.mint(TokenId(id))?.plain.expose().to_owned());
    Ok((tokens, plain))
}

/// By the queries of the service. The domain is looked up even where the service would not need
/// to, so that more can be told about it.
async fn look_up(
    postgres: &Postgres,
    id: TokenId,
    reference: Option<DomainRef>,
) -> anyhow::Result<Known> {
    let principals = read_principals(postgres.clone(), vec![id]).await.map_err(told)?;
    let principal = only("token", principals)?;
    let domain = match reference {
        Some(reference) => {
            let domains = read_domains(postgres.clone(), vec![reference]).await.map_err(told)?;
            only("domain", domains)?
        }
        None => None,
    };
    Ok(Known { principal, domain })
}

fn only<V>(what: &str, answers: Vec<Option<Found<V>>>) -> anyhow::Result<Option<Arc<V>>> {
    match answers.into_iter().next().flatten() {
        Some(found) => Ok(found.value),
        None => bail!("the row of this {what} cannot be read; the service answers 503"),
    }
}

fn told(error: AskError) -> anyhow::Error {
    match error {
        AskError::Sqlx(error) => store::Error::from(error).into(),
        error => anyhow::Error::new(error).context("Postgres"),
    }
}

impl Report<'_> {
    fn text(&self) -> String {
        let mut rows = Vec::new();
        for step in &self.explanation.steps {
            let verdict = if step.passed { "ok" } else { "REFUSED" };
            rows.push(vec![step.step.to_owned(), verdict.to_owned(), step.detail.clone()]);
        }
        let mut text = aligned(vec![vec![format!("{} {}", self.method, self.path)]]);
        text.push_str(&aligned(rows));
        let mut last = vec![vec![format!("answer: {} {}", self.status, self.code)]];
        last.extend(self.upstream.map(|upstream| vec![format!("served by: {upstream}")]));
        let nearest = self.explanation.nearest.as_ref();
        last.extend(self.rollout.as_ref().map(|rollout| vec![format!("rollout: {rollout}")]));
        last.extend(nearest.map(|nearest| vec![format!("nearest miss: {nearest}")]));
        text.push_str(&aligned(last));
        text
    }
}
