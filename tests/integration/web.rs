//! Self-service: what a session permits, and what it does not, also straight over SQL with a login
//! of `patgate_web`.

pub(crate) mod abandoned;
pub(crate) mod accounts;
pub(crate) mod administration;
pub(crate) mod lifetimes;
pub(crate) mod open_transactions;
pub(crate) mod oversight;
pub(crate) mod providers;
pub(crate) mod roles;
pub(crate) mod rotation;
pub(crate) mod sessions;
pub(crate) mod stolen;
pub(crate) mod tokens;
pub(crate) mod upgrades;
pub(crate) mod why;

use std::{fmt::Debug, num::NonZeroUsize, sync::Arc, time::Duration};

use base64::{Engine as _, prelude::BASE64_URL_SAFE_NO_PAD};
use patgate::{
    admin::{
        CachedCopies, NewScope,
        web::{
            Caller, Creation, Error, GatewayRules, NewOwnToken, Origin, Password, Passwords,
            SelfService,
        },
    },
    api::Apis,
    backend::ReservedNames,
    config::read_keyring,
    decide::ModelReading,
    token::Prefixes,
};
use sha2::{Digest as _, Sha256};
use sqlx::{AssertSqlSafe, PgConnection, PgPool};
use uuid::Uuid;

use crate::support::{Token, World, connect};

/// A world with self-service, and the login of its process.
pub(crate) struct Site<'w, 's> {
    pub(crate) world: &'w World<'s>,
    pub(crate) service: SelfService,
    /// The connections of that login, for what no honest process does.
    pub(crate) login: PgPool,
}

impl<'w, 's> Site<'w, 's> {
    pub(crate) async fn of(world: &'w World<'s>) -> Self {
        let login = connect(&world.url("web", world.port)).await;
        let service = service(world, login.clone()).await.unwrap();
        Self { world, service, login }
    }

    /// Lets a user of the world sign in with a new password, which is returned.
    pub(crate) async fn account(&self, user: &str) -> Password {
        let text = format!("{}{}", Uuid::new_v4().simple(), Uuid::new_v4().simple());
        self.world.suite.credentials.lock().unwrap().push(text.clone());
        let password: Password = text.parse().unwrap();
        let invitation = self.invited(user, "1 hour").await;
        let origin = Origin::default();
        self.service.accept_invitation(&origin, &invitation, &password).await.unwrap();
        password
    }

    /// Invites a user, as an operator does.
    pub(crate) async fn invited(
        &self,
        user: &str,
        life: &str,
    ) -> patgate::admin::web::InvitationSecret {
        let secret = patgate::admin::web::InvitationSecret::random().unwrap();
        self.world.suite.keep_sessions(&secret.expose());
        let hash = hex(&Sha256::digest(proof_of(&secret.expose())));
        self.world
            .sql(&format!(
                "INSERT INTO patgate.invitations (proof_hash, user_id, expires_at)
                 VALUES ('\\x{hash}', '{}', now() + interval '{life}')",
                self.world.id(user)
            ))
            .await;
        secret
    }

    /// A session of a user with a new local account.
    pub(crate) async fn signed_in(&self, user: &str) -> Caller {
        let password = self.account(user).await;
        self.sign_in(user, &password).await.unwrap()
    }

    pub(crate) async fn sign_in(&self, user: &str, password: &Password) -> Result<Caller, Error> {
        let address = "192.0.2.7".parse().unwrap();
        let origin = Origin::new(Some(address), Some("request-1"));
        let email = format!("{user}@example.com").parse().unwrap();
        let signed_in = self.service.sign_in(&origin, &email, password).await?;
        self.world.suite.keep_sessions(&signed_in.secret.expose());
        Ok(Caller { session: signed_in.secret, origin })
    }

    /// A session of `root` with the rights of a platform administrator.
    pub(crate) async fn elevated(&self) -> Caller {
        let password = self.account("root").await;
        let root = self.sign_in("root", &password).await.unwrap();
        self.service.elevate(&root, &password).await.unwrap();
        root
    }

    /// Creates a token of the caller's, which must succeed.
    pub(crate) async fn create(&self, caller: &Caller, name: &str, scopes: &[&str]) -> Token {
        let made = self.service.create_token(caller, &new_token(name, scopes)).await.unwrap();
        self.plain(made.value)
    }

    pub(crate) fn plain(&self, creation: Creation) -> Token {
        let Creation::Created { plain, token } = creation else { panic!("{creation:?}") };
        let text = plain.expose().to_owned();
        self.world.suite.minted.lock().unwrap().push(text.clone());
        Token { id: patgate::token::TokenId(token.id), text }
    }

    /// Runs statements with the process's login; the error is Postgres's code.
    pub(crate) async fn code(&self, sql: &str) -> Result<(), String> {
        run(&mut self.login.acquire().await.unwrap(), sql).await
    }

    /// Lets a role have only this one operation more or less.
    pub(crate) async fn grant(&self, domain: &str, operations: &str, user: &str) -> String {
        let role = Uuid::new_v4();
        let name = format!("r{}", role.simple());
        self.world
            .sql(&format!(
                "INSERT INTO patgate.roles VALUES ('{role}', '{}', '{name}');
                 INSERT INTO patgate.role_operations
                     SELECT '{role}', unnest(string_to_array('{operations}', ' '));
                 INSERT INTO patgate.role_members VALUES ('{role}', '{}')",
                self.world.id(domain),
                self.world.id(user)
            ))
            .await;
        name
    }
}

pub(crate) async fn service(world: &World<'_>, login: PgPool) -> Result<SelfService, Error> {
    service_of(world, login, Apis::embedded().unwrap()).await
}

/// For a gateway with these tables.
pub(crate) async fn service_of(
    world: &World<'_>,
    login: PgPool,
    apis: Apis,
) -> Result<SelfService, Error> {
    patient_service(world, login, apis, Duration::from_secs(10)).await
}

/// Whose statements Postgres ends after this time.
pub(crate) async fn patient_service(
    world: &World<'_>,
    login: PgPool,
    apis: Apis,
    limit: Duration,
) -> Result<SelfService, Error> {
    let copies =
        |installation| CachedCopies { installation, redis: None, max_staleness: Duration::ZERO };
    let ring = read_keyring(&world.keyring_file).unwrap();
    let passwords = Passwords::new(NonZeroUsize::new(2).unwrap());
    let apis = Arc::new(apis);
    let rules = GatewayRules::new(
        move || Arc::clone(&apis),
        ModelReading::WhenNeeded,
        ReservedNames::default(),
    );
    SelfService::connect(login, copies, ring, Prefixes::default(), passwords, rules, limit).await
}

/// Runs statements on a connection; the error is Postgres's code.
pub(crate) async fn run(connection: &mut PgConnection, sql: &str) -> Result<(), String> {
    match sqlx::raw_sql(AssertSqlSafe(sql.to_owned())).execute(connection).await {
        Ok(_) => Ok(()),
        Err(error) => Err(error
            .as_database_error()
            .unwrap_or_else(|| panic!("{error}: {sql}"))
            .code()
            .unwrap()
            .into_owned()),
    }
}

pub(crate) fn refused(code: &str) -> Result<(), String> {
    Err(code.to_owned())
}

pub(crate) fn new_token(name: &str, scopes: &[&str]) -> NewOwnToken {
    NewOwnToken {
        name: name.parse().unwrap(),
        description: "".parse().unwrap(),
        expiry: None,
        scopes: parsed(scopes),
        idempotency_key: None,
    }
}

pub(crate) fn parsed(scopes: &[&str]) -> Vec<NewScope> {
    scopes.iter().map(|scope| scope.parse().unwrap()).collect()
}

/// What the database is shown of a secret.
pub(crate) fn proof_of(text: &str) -> Vec<u8> {
    Sha256::digest(BASE64_URL_SAFE_NO_PAD.decode(text).unwrap()).to_vec()
}

/// The proof of a session in SQL, whatever the settings of the connection are.
pub(crate) fn literal(caller: &Caller) -> String {
    format!("pg_catalog.decode('{}', 'hex')", hex(&proof_of(&caller.session.expose())))
}

pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Checks which error a call returned.
#[track_caller]
pub(crate) fn fails<T: Debug>(result: Result<T, Error>, is: fn(&Error) -> bool) {
    match result {
        Err(error) if is(&error) => {}
        other => panic!("{other:?}"),
    }
}

macro_rules! error {
    ($name:ident, $pattern:pat) => {
        pub(crate) fn $name(error: &Error) -> bool {
            matches!(error, $pattern)
        }
    };
}
error!(not_signed_in, Error::NotSignedIn);
error!(not_permitted, Error::NotPermitted(_));
error!(not_found, Error::NotFound(_));
error!(sign_in_failed, Error::SignInFailed);
error!(too_many_attempts, Error::TooManyAttempts);
error!(needs_elevation, Error::NeedsElevation);
error!(invalid, Error::Invalid(_));
error!(exists, Error::Exists(_));
error!(changed, Error::Changed(_));
error!(too_long, Error::LifetimeTooLong { .. });
error!(too_many, Error::TooMany(_));
error!(token_ended, Error::TokenEnded);
error!(key_reused, Error::KeyReused);
