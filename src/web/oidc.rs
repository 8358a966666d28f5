//! Sign-ins by a provider of OpenID Connect: a browser by the authorization code flow with PKCE, a
//! program with an access token that the provider has issued for this API.
//!
//! The provider says who signs in, and nothing else; what its subject may do, the database decides.

mod attempt;
mod discovery;
mod exchange;
mod http;
mod jwt;
mod keys;
mod routes;
mod stop;

use std::io;

use sha2::{Digest as _, Sha256};

pub(super) use self::routes::{PATH, SIGN_OUT_PATH, routes};
use self::{
    attempt::{Attempt, encode},
    discovery::Discovery,
    http::{ProviderHttp, query},
    jwt::{Purpose, Refused, Verified},
};
use crate::{
    admin::web::ProviderSignIn,
    clock,
    config::{OidcSettings, SiteUrl},
    keyring::LiveRing,
};

/// The provider that signs users in.
#[derive(Debug)]
pub(crate) struct Provider {
    settings: OidcSettings,
    redirect_uri: String,
    /// To what the cookie of a sign-in belongs.
    context: Vec<u8>,
    http: ProviderHttp,
    discovery: Discovery,
    ring: LiveRing,
}

/// Why the provider has signed nobody in. It shows nothing of a token.
#[derive(Debug, thiserror::Error)]
pub(super) enum Failure {
    /// For the log: it may name hosts.
    #[error("the provider cannot be used: {0}")]
    Unavailable(String),
    #[error("the code was used before, or has expired")]
    Code,
    #[error("the provider's token is not accepted: {0}")]
    Token(#[from] Refused),
    #[error("the operating system has no random numbers")]
    NoRandomNumbers,
}

/// Where a browser goes to sign in, and what it must bring back.
struct Departure {
    location: String,
    cookie: String,
}

impl Provider {
    /// Asks nothing yet: while the provider is away, local accounts work.
    ///
    /// # Errors
    ///
    /// If the system has no authorities, and the settings name none.
    pub(crate) fn new(settings: OidcSettings, site: &SiteUrl, ring: LiveRing) -> io::Result<Self> {
        let http = ProviderHttp::new(settings.authorities.clone())?;
        let redirect_uri = format!("{}{}", site.origin(), routes::CALLBACK);
        let context =
            [site.origin(), &settings.issuer, &settings.client_id].join("\0").into_bytes();
        Ok(Self { settings, redirect_uri, context, http, discovery: Discovery::default(), ring })
    }

    fn issuer(&self) -> &str {
        &self.settings.issuer
    }

    /// The provider's host, by which users recognize it.
    pub(super) fn name(&self) -> &str {
        let (_, rest) = self.settings.issuer.split_once("://").unwrap_or_default();
        rest.split('/').next().unwrap_or_default()
    }

    /// Whether programs begin sessions with access tokens.
    pub(super) fn takes_access_tokens(&self) -> bool {
        self.settings.api_audience.is_some()
    }

    async fn depart(&self) -> Result<Departure, Failure> {
        let known = self.discovery.known(&self.settings.issuer, &self.http).await?;
        let attempt = Attempt::begin(clock::wall_seconds()).ok_or(Failure::NoRandomNumbers)?;
        let challenge = encode(Sha256::digest(attempt.verifier()));
        let parameters = query(&[
            ("response_type", "code"),
            ("client_id", &self.settings.client_id),
            ("redirect_uri", &self.redirect_uri),
            ("scope", &self.settings.scopes),
            ("state", &attempt.state()),
            ("nonce", &attempt.nonce()),
            ("code_challenge", &challenge),
            ("code_challenge_method", "S256"),
        ]);
        let cookie = attempt.seal(&self.ring.load(), &self.context);
        Ok(Departure {
            location: with(&known.metadata.authorization_endpoint, &parameters),
            cookie: cookie.ok_or(Failure::NoRandomNumbers)?,
        })
    }

    /// Returns where the provider signs users out, if it says that (OpenID Connect RP-Initiated Logout
    /// 1.0). Without the ID token, which is kept nowhere, it asks the user.
    async fn sign_out_url(&self) -> Result<Option<String>, Failure> {
        let known = self.discovery.known(&self.settings.issuer, &self.http).await?;
        let client = query(&[("client_id", &self.settings.client_id)]);
        let endpoint = known.metadata.end_session_endpoint.as_ref();
        Ok(endpoint.map(|endpoint| with(endpoint, &client)))
    }

    /// Returns the attempt that this browser has begun, unless that was too long ago.
    fn attempt(&self, cookie: &str) -> Option<Attempt> {
        Attempt::open(&self.ring.load(), &self.context, cookie, clock::wall_seconds())
    }

    /// Whether the issuer that an answer names, or does not, is that of this provider (RFC 9207).
    async fn answers_as(&self, issuer: Option<&str>) -> Result<bool, Failure> {
        match issuer {
            Some(issuer) => Ok(issuer == self.settings.issuer),
            None => {
                let known = self.discovery.known(&self.settings.issuer, &self.http).await?;
                Ok(!known.metadata.names_itself)
            }
        }
    }

    /// Returns whom the provider signed in, with the code of its answer to this attempt.
    async fn signed_in(&self, attempt: &Attempt, code: &str) -> Result<ProviderSignIn, Failure> {
        let known = self.discovery.known(&self.settings.issuer, &self.http).await?;
        let tokens = self.redeem(&known.metadata, code, &attempt.verifier()).await?;
        let nonce = attempt.nonce();
        let purpose = Purpose::SignIn { client: &self.settings.client_id, nonce: &nonce };
        let Verified { subject, verified_email } = self.verified(&tokens.id_token, purpose).await?;
        let verified_email = match verified_email {
            Some(email) => Some(email),
            None => self.asked_email(&known.metadata, &tokens, &subject).await,
        };
        Ok(ProviderSignIn { issuer: self.settings.issuer.clone(), subject, verified_email })
    }

    /// Returns whose access token this is. An address in it links nobody: the user has not signed in
    /// here.
    pub(super) async fn owner_of(&self, access_token: &str) -> Result<ProviderSignIn, Failure> {
        let Some(audience) = &self.settings.api_audience else {
            return Err(Refused::Audience.into());
        };
        let Verified { subject, .. } =
            self.verified(access_token, Purpose::Api { audience }).await?;
        let issuer = self.settings.issuer.clone();
        Ok(ProviderSignIn { issuer, subject, verified_email: None })
    }

    async fn verified(&self, token: &str, purpose: Purpose<'_>) -> Result<Verified, Failure> {
        let issuer = &self.settings.issuer;
        let known = self.discovery.known(issuer, &self.http).await?;
        let now = clock::wall_seconds();
        match jwt::verify(token, &known.keys, issuer, purpose, now) {
            // The provider may have replaced its keys.
            Err(Refused::UnknownKey | Refused::Signature) => {
                let known = self.discovery.newer_than(&known, issuer, &self.http).await?;
                Ok(jwt::verify(token, &known.keys, issuer, purpose, now)?)
            }
            outcome => Ok(outcome?),
        }
    }
}

/// Adds parameters to an endpoint, which may have some already.
fn with(endpoint: &str, parameters: &str) -> String {
    let sign = if endpoint.contains('?') { '&' } else { '?' };
    format!("{endpoint}{sign}{parameters}")
}
