//! `patgate check`: shows what patgate would answer, and why; and what a running replica answers.

mod caches;
mod replica;
mod report;
mod sent;
mod tls;

use std::sync::Arc;

use anyhow::{Context as _, bail};

use self::{
    replica::{ReplicaAddress, ReplicaAnswer, ReplicaQuestion},
    report::CheckReport,
    sent::{BodyArguments, CallerArguments, SentRequest},
    tls::TlsArguments,
};
use super::{UsageError, output::write, session::Session};
use crate::{
    admin::{self, ObjectKind, StoreError},
    api::ApiStyle,
    backend::{Backend, BackendName},
    clock::{self, Clock, Moment},
    config::{Config, ConfigPurpose},
    credential::{Credential, CredentialScheme, OpenedCredential, Sealed},
    decision::Decision,
    domain::{Domain, DomainRef},
    explain::Evidence,
    files::api_tables,
    freshness::KnownChanges,
    keyring::KeyRing,
    postgres::{AskError, Counters, Postgres},
    principal::Principal,
    request::{self, ApiPath, RequestParts, without_query},
    resolve::{
        Found,
        postgres::{read_backends, read_domains, read_principals},
    },
    rollout::{Rollout, Treatment},
    token::TokenId,
};

/// The request to explain.
#[derive(clap::Args)]
#[command(after_help = "The token is read from standard input, unless --authorization-file, \
                  --no-credential or --pat-id is given.")]
pub(super) struct Arguments {
    /// The request's method, such as `GET`
    #[arg(long)]
    method: String,
    /// The request's path, as Envoy would send it
    #[arg(long)]
    path: String,
    /// The request's host, for APIs that are distinguished by host
    #[arg(long, default_value = "")]
    host: String,
    #[command(flatten)]
    who: CallerArguments,
    #[command(flatten)]
    content: BodyArguments,
    /// Also asks the replica at `host:port` or `unix:/path`, as Envoy would
    #[arg(long, value_name = "ADDRESS")]
    server: Option<ReplicaAddress>,
    #[command(flatten)]
    tls: TlsArguments,
}

/// The service would refuse the request. The report has said why.
#[derive(Debug, thiserror::Error)]
#[error("the request would be refused")]
pub(super) struct RequestRefused {
    /// Whether the token is known. False also if the token was not looked up.
    pub(super) known: bool,
}

/// What Postgres knows about the request.
#[derive(Default)]
struct StoredFacts {
    principal: Option<Arc<Principal>>,
    domain: Option<Arc<Domain>>,
    backend: Option<Arc<Backend>>,
}

pub(super) async fn run(session: &Session, asked: Arguments) -> anyhow::Result<()> {
    let presumed = asked.who.pat_id.is_some();
    asked.consistent()?;
    let tls = asked.tls.load(asked.server.as_ref().and_then(ReplicaAddress::host))?;
    let config = session.config(ConfigPurpose::Admin)?;
    let installation = session.connect(&config).await?.installation();
    let apis = api_tables::load(&config.apis)?;
    let method = &*asked.method;
    let authority = &*asked.host;
    let target = &*asked.path;
    let path = without_query(target);
    let api_style =
        apis.find(authority, path).map_or_else(ApiStyle::default, |api| api.api_style());
    // The rule says how a body names the model. Finding the rule needs no body.
    let api_path = ApiPath::of(authority, target, &apis);
    let form = api_path.and_then(|api_path| api_path.rule(method));
    let form = form.and_then(|rule| rule.entity.unread());
    let mut sent = SentRequest::default();
    let tokens = asked.who.send(&mut sent, &config, api_style)?;
    asked.content.send(&mut sent, form)?;
    let header = |name: &str| sent.header(name);
    let parts = RequestParts { method, authority, target, header, body: &sent.body, stream: b"" };

    let mut request = request::parse(&parts, &apis, &tokens);
    let ring = match config.key_ring() {
        // This call reads nothing that is signed or sealed.
        Err(_) if asked.who.needs_no_keys() => None,
        ring => Some(ring?),
    };
    let clock = Arc::new(Clock::default());
    let mut known = StoredFacts::default();
    let mut now = Moment(0);
    let mut caches = None;
    if let Ok(request) = &mut request {
        let api_path = request.api_path().filter(|_| request.rule().is_some());
        let reference = api_path.and_then(ApiPath::domain);
        let backend = request.rule().and_then(|rule| rule.upstream);
        let changes = Arc::new(KnownChanges::of(installation));
        let postgres = postgres(&config, &clock, &changes);
        known = look_up(&postgres, request.token().id(), reference.clone(), backend).await?;
        if let (Some(redis), Some(ring)) = (&config.redis, &ring) {
            let context = caches::LookupContext {
                redis,
                ring,
                postgres: &postgres,
                clock: &clock,
                changes: &changes,
            };
            let token = request.token().id();
            let domain = reference.as_ref();
            caches = Some(caches::inspect(&config, context, token, domain, backend).await?);
        }
        now = clock.now(clock::now()).context("Postgres did not return the time")?;
        if presumed {
            let Some(principal) = &known.principal else {
                let name = request.token().id().to_string();
                return Err(admin::Error::from(StoreError::NotFound {
                    what: ObjectKind::Token,
                    name,
                })
                .into());
            };
            #[expect(
                clippy::disallowed_methods,
                reason = "the decision is only printed; it admits no request"
            )]
            request.presume_possession(principal);
        }
    }
    let open = |backend: &str, sealed: &Sealed| open_credential(ring.as_ref(), backend, sealed);
    known.domain.iter().for_each(|domain| domain.open_credentials(open));
    known.backend.iter().for_each(|backend| backend.open_credential(open));
    let evidence = Evidence {
        apis: &apis,
        method,
        authority,
        target,
        authorization: sent.header("authorization"),
        body: asked.content.given().then(|| parts.shown()),
        model_reading: config.model_reading,
        reserved: &config.routes.rules.reserved,
        presumed,
        request: request.as_ref(),
        principal: known.principal.as_deref(),
        domain: known.domain.as_ref(),
        domain_may_be_hidden: false,
        backend: known.backend.as_deref(),
        now,
    };
    let decision = evidence.decide();
    let mut report = CheckReport::new(&evidence, &decision, caches);
    report.rollout = known.domain.as_deref().and_then(|domain| {
        rollout(domain, known.principal.as_ref().map(|principal| principal.token))
    });
    if let Some(server) = &asked.server {
        let question = ReplicaQuestion {
            method,
            authority,
            target,
            sent: &sent,
            secret: config.grpc_secrets.first(),
        };
        report.record_answer(replica::ask(server, tls.as_ref(), &question).await?);
    }
    if session.out.is_json() {
        session.out.json(&report)?
    } else {
        write(&report.text())?
    }
    if let Some(ReplicaAnswer { agrees: false, answer }) = &report.replica {
        bail!(
            "the replica answers {answer}, the stores {} {}",
            report.verdict.status,
            report.verdict.code
        );
    }
    match decision {
        Decision::Allow(_) | Decision::AnswerList(_) => Ok(()),
        Decision::Unenforced(_) | Decision::Deny(_) => {
            Err(RequestRefused { known: request.is_err() || known.principal.is_some() }.into())
        }
    }
}

impl Arguments {
    /// Checks what the parser of arguments does not see.
    fn consistent(&self) -> Result<(), UsageError> {
        let why = if self.who.pat_id.is_some() && self.server.is_some() {
            "a replica cannot be asked about --pat-id: it needs the token itself; give that on \
             standard input, or leave --server out"
        } else if self.who.on_standard_input() && self.content.on_standard_input() {
            "standard input cannot hold both the body and the credential: give one of them as a \
             file"
        } else {
            return Ok(());
        };
        Err(UsageError(why.to_owned()))
    }
}

/// The refusals that are only recorded, in addition to those that are listed by status.
const FURTHER: &str = "a refusal of a body or of several credentials that differ, is only recorded";

/// What a replica with `mode: per-domain` does with a refusal in this domain; `None` if it enforces
/// all. The mode of a replica is in its own configuration, which is not known here.
fn rollout(domain: &Domain, token: Option<TokenId>) -> Option<String> {
    let slug = &domain.slug;
    let Rollout { share, .. } = domain.rollout;
    let what = match domain.rollout.treatment() {
        Treatment::Enforce => return None,
        _ if !domain.enabled => format!("{slug} is disabled, which is enforced in any mode"),
        Treatment::Shadow => format!("{slug} is in shadow: a 401, 403 or 404, or {FURTHER}"),
        Treatment::Ramp => {
            let this = match token {
                Some(token) if share.includes(domain.id, token) => {
                    "; this token is one of them".to_owned()
                }
                Some(_) => format!("; this token is none of them, so a 403 or 404, or {FURTHER}"),
                None => String::new(),
            };
            format!("{slug} is enforced for {share} of its tokens{this}")
        }
    };
    Some(format!("{what} (if patgate serves with mode `per-domain`)"))
}

/// Opens a credential as a replica does when it loads the backend. Without a key ring, the credential
/// is presumed to open.
fn open_credential(ring: Option<&KeyRing>, backend: &str, sealed: &Sealed) -> OpenedCredential {
    OpenedCredential::presumed(match ring {
        Some(ring) => sealed.open(ring, backend),
        None => Credential::new(CredentialScheme::Bearer, "presumed").ok(),
    })
}

/// Asks Postgres as the service does, lookups included.
fn postgres(config: &Config, clock: &Arc<Clock>, changes: &Arc<KnownChanges>) -> Postgres {
    let clock = Arc::clone(clock);
    let changes = Arc::clone(changes);
    Postgres::new(&config.postgres, clock, changes, Counters::default())
}

/// Reads Postgres with the queries of the service. The domain is looked up even if the service would
/// not need it, so that the report can say more about it.
async fn look_up(
    postgres: &Postgres,
    id: TokenId,
    reference: Option<DomainRef>,
    backend: Option<&BackendName>,
) -> anyhow::Result<StoredFacts> {
    let principals = read_principals(postgres.clone(), vec![id]).await.map_err(as_error)?;
    let principal = only("token", principals)?;
    let domain = match reference {
        Some(reference) => {
            let domains =
                read_domains(postgres.clone(), vec![reference]).await.map_err(as_error)?;
            only("domain", domains)?
        }
        None => None,
    };
    let backend = match backend {
        Some(name) => {
            let backends = read_backends(postgres.clone(), vec![name.clone()]).await;
            only("backend", backends.map_err(as_error)?)?
        }
        None => None,
    };
    Ok(StoredFacts { principal, domain, backend })
}

fn only<V>(what: &str, answers: Vec<Option<Found<V>>>) -> anyhow::Result<Option<Arc<V>>> {
    match answers.into_iter().next().flatten() {
        Some(found) => Ok(found.value),
        None => bail!("the row of this {what} cannot be read; the service answers 503"),
    }
}

fn as_error(error: AskError) -> anyhow::Error {
    match error {
        AskError::Sqlx(error) => admin::Error::from(StoreError::from(error)).into(),
        error => anyhow::Error::new(error).context("Postgres"),
    }
}
