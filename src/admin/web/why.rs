//! Why a request with one of the caller's tokens is decided as it is: the stages of the service, on what
//! the database says about the token and the domain.

use std::{fmt, sync::Arc};

use serde::Deserialize;
use sqlx::types::Uuid;
use zeroize::Zeroizing;

use super::{Caller, Error, SelfService, call::call_by};
use crate::{
    api::{ApiStyle, Apis, TokenScheme},
    backend::{Backend, ReservedNames},
    clock::Moment,
    decide::ModelReading,
    domain::{Domain, DomainId, Models, Slug},
    explain::{Arrival, Evidence, Step, Verdict, arrival},
    keyring::{self, KeyRing},
    principal::{Principal, UserId},
    request::{self, ApiPath, RequestParts, without_query},
    resolve::postgres::GrantsRow,
    token::{Prefixes, TokenDigest, TokenId, Tokens},
};

/// How the gateway decides.
#[derive(Clone)]
pub struct GatewayRules {
    tables: Arc<dyn Fn() -> Arc<Apis> + Send + Sync>,
    model_reading: ModelReading,
    /// The names that no backend may have.
    pub(super) reserved: ReservedNames,
}

/// A request to explain. It carries no credential.
#[derive(Clone, Debug, Default)]
pub struct AskedRequest {
    /// The method, such as `GET`.
    pub method: String,
    /// The path, with the query if there is one.
    pub path: String,
    /// The host, for APIs that are distinguished by host; may be empty.
    pub host: String,
    /// The model that the body names, if it names one.
    pub model: Option<String>,
}

/// What the database says.
#[derive(Deserialize)]
struct Facts {
    now: i64,
    token: TokenFacts,
    domain: Option<DomainFacts>,
}

#[derive(Deserialize)]
struct TokenFacts {
    owner: Uuid,
    owner_enabled: bool,
    platform_admin: bool,
    revoked: bool,
    issued_at: i64,
    expires_at: i64,
    grants: Vec<GrantsRow>,
}

#[derive(Deserialize)]
struct DomainFacts {
    id: Uuid,
    slug: String,
    enabled: bool,
    all_models: bool,
    models: Vec<Box<str>>,
}

/// The step that names the backend of an API table, which users do not see.
const UPSTREAM_STEP: &str = "upstream";

impl GatewayRules {
    /// Of what `tables` returns when it is called: the tables by which the gateway decides then.
    pub fn new(
        tables: impl Fn() -> Arc<Apis> + Send + Sync + 'static,
        model_reading: ModelReading,
        reserved: ReservedNames,
    ) -> Self {
        Self { tables: Arc::new(tables), model_reading, reserved }
    }
}

impl fmt::Debug for GatewayRules {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("GatewayRules").finish_non_exhaustive()
    }
}

impl SelfService {
    /// Explains what the gateway would answer to a request with one of the caller's own tokens, in the
    /// words of `patgate check`, except that no backend is named. That a backend exists, and that its
    /// credential can be opened, is presumed.
    ///
    /// The path is what the client sends: the answer is about what the shipped Envoy makes of it, and
    /// the first step says so.
    ///
    /// A domain in which the caller may do nothing is explained as one that does not exist, unless a
    /// scope of the token names it.
    ///
    /// # Errors
    ///
    /// [`Error::NotFound`] if the token does not exist, or is another user's.
    pub async fn why(
        &self,
        caller: &Caller,
        id: TokenId,
        asked: &AskedRequest,
    ) -> Result<Verdict, Error> {
        let apis = (self.rules.tables)();
        let arrives = arrival(&asked.path);
        let mut arriving = asked.clone();
        if let Arrival::Rewritten(path) = &arrives {
            arriving.path.clone_from(path);
        }
        let domain = ApiPath::of(&asked.host, &arriving.path, &apis).and_then(|path| path.domain());
        let facts: Facts = self
            .ask(|| {
                call_by(caller, "SELECT patgate.web_why($1, $2, $3)")
                    .bind(id.0)
                    .bind(domain.as_ref().map(ToString::to_string))
            })
            .await?;
        if arrives == Arrival::Refused {
            return Ok(Verdict::of_a_refused_path(&asked.method, &asked.path));
        }
        let mut verdict = decide(&apis, &self.rules, id, &arriving, facts)?;
        if let Some(step) = Step::of_the_gateway(&arrives) {
            verdict.explanation.steps.insert(0, step);
        }
        Ok(verdict)
    }
}

/// The code of an answer for which a model must be known.
const NO_MODEL: &str = "invalid_body";
const NAME_THE_MODEL: &str =
    "No model was named: enter the one that the client sends. The answer depends on it.";

fn decide(
    apis: &Apis,
    rules: &GatewayRules,
    id: TokenId,
    asked: &AskedRequest,
    facts: Facts,
) -> Result<Verdict, Error> {
    let AskedRequest { method, path: target, host: authority, model } = asked;
    let api = apis.find(authority, without_query(target));
    let style = api.map_or_else(ApiStyle::default, |api| api.api_style());
    let scheme = style.sources.schemes().next().unwrap_or(TokenScheme::Bearer);
    // Of a key of its own: the text is good for nothing but to be parsed here.
    let tokens = of_random_key()?;
    let minted = tokens.mint(id)?;
    let authorization = Zeroizing::new(format!("{scheme} {}", minted.plain.expose()));
    let form = ApiPath::of(authority, target, apis)
        .and_then(|path| path.rule(method))
        .and_then(|rule| rule.entity.unread());
    let body = model.as_deref().and_then(|model| form?.naming(model));
    let length = body.as_ref().map(|(_, bytes)| bytes.len().to_string());
    let header = |name: &str| match (name, &body) {
        ("authorization", _) => Some(authorization.as_str()),
        ("content-type", Some((media_type, _))) => Some(*media_type),
        ("content-length", Some(_)) => length.as_deref(),
        ("x-envoy-auth-partial-body", Some(_)) => Some("false"),
        _ => None,
    };
    let bytes = body.as_ref().map_or(&[][..], |(_, bytes)| bytes);
    let parts = RequestParts { method, authority, target, header, body: bytes, stream: b"" };
    let mut request = request::parse(&parts, apis, &tokens);
    let Facts { now, token, domain } = facts;
    let principal = token.principal(id);
    let domain = domain.map(DomainFacts::domain).transpose()?.map(Arc::new);
    let mut backend = None;
    if let Ok(request) = &mut request {
        #[expect(
            clippy::disallowed_methods,
            reason = "the decision is only shown to the token's owner; it admits no request"
        )]
        request.presume_possession(&principal);
        let named = request.rule().and_then(|rule| rule.upstream);
        backend = named.map(|name| Backend::new(name.as_str().into(), None));
    }
    let evidence = Evidence {
        apis,
        method,
        authority,
        target,
        authorization: Some(&authorization),
        body: model.as_ref().map(|_| parts.shown()),
        model_reading: rules.model_reading,
        reserved: &rules.reserved,
        presumed: true,
        request: request.as_ref(),
        principal: Some(&principal),
        domain: domain.as_ref(),
        domain_may_be_hidden: true,
        backend: backend.as_ref(),
        now: Moment(now),
    };
    let decision = evidence.decide();
    let mut verdict = evidence.verdict(&decision);
    // The gateway's own words would be about a body, for which this page does not ask.
    if model.is_none() && decision.code() == NO_MODEL {
        verdict.message = Some(NAME_THE_MODEL.to_owned());
    }
    verdict.explanation.steps.retain(|step| step.step != UPSTREAM_STEP);
    Ok(verdict)
}

fn of_random_key() -> Result<Tokens, Error> {
    let unusable = |error: keyring::KeyRingError| Error::Unavailable(error.to_string());
    let line = keyring::new_line(&"why".parse().map_err(unusable)?)?;
    Ok(Tokens::new(Prefixes::default(), KeyRing::parse(&line).map_err(unusable)?))
}

impl TokenFacts {
    /// The digest is not known here. Possession is presumed.
    fn principal(self, id: TokenId) -> Principal {
        let grants = self.grants.into_iter();
        let grants = grants.filter_map(|row| row.grants(self.platform_admin)).collect();
        Principal::new(
            id,
            TokenDigest::from_bytes([0; 32]),
            Moment(self.issued_at)..Moment(self.expires_at),
            self.revoked,
            UserId(self.owner),
            self.owner_enabled,
            grants,
        )
    }
}

impl DomainFacts {
    /// Its backends are not known here.
    fn domain(self) -> Result<Domain, Error> {
        let slug: Slug =
            self.slug.parse().map_err(|_| Error::Unavailable("a slug cannot be read".into()))?;
        let listed = || self.models.into_iter().map(|model| (model, "".into())).collect();
        let models = match self.all_models {
            true => Models::All,
            false => Models::Listed(listed()),
        };
        Ok(Domain::new(DomainId(self.id), slug, self.enabled, "".into(), models))
    }
}
