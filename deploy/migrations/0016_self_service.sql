-- What the self-service page and API need: sessions, accounts, and the limits that operators set. The
-- functions that use these tables follow in 0017 to 0020.
--
-- The process that faces the web has a login in patgate_web. That role may read and write no table. It
-- may execute functions, which take the proof of a session and act for the user who signed in. They
-- belong to patgate_web_functions, which has the privileges that they need and no others: it cannot
-- read the digest of a token or the credential of a backend, and it owns nothing else.

-- Before everything else: what follows locks tables of which lookups read, and the lines of a long
-- log take seconds.
--
-- What a line about a change in the page or by the API has in addition. Address and request id are
-- what the process said; login and session are the database's.
ALTER TABLE patgate.audit_log
    ADD COLUMN address    inet,
    ADD COLUMN request_id text CHECK (length(request_id) <= 200 AND request_id !~ '[[:cntrl:]]'),
    ADD COLUMN method     text CHECK (method IN ('local', 'oidc', 'invitation')),
    ADD COLUMN session    uuid;
CREATE INDEX audit_log_object ON patgate.audit_log (object, id);

-- Limits that operators set. They hold from the next use on.
CREATE TABLE patgate.policy (
    singleton       boolean PRIMARY KEY DEFAULT true CHECK (singleton),
    -- The longest time from now until a new token expires; NULL means that there is no limit.
    token_longest   interval CHECK (token_longest > interval '0' AND isfinite(token_longest)),
    -- For tokens that are created in the page or by the API, and do not say when they expire.
    token_default   interval NOT NULL DEFAULT '30 days'
                    CHECK (token_default > interval '0' AND isfinite(token_default)),
    -- Tokens that one user may have, revoked and expired ones included. For the page and the API.
    tokens_per_user integer NOT NULL DEFAULT 2000 CHECK (tokens_per_user > 0),
    -- A session ends after this time without a request, and after this time in any case.
    session_idle    interval NOT NULL DEFAULT '30 minutes'
                    CHECK (session_idle > interval '0' AND isfinite(session_idle)),
    session_longest interval NOT NULL DEFAULT '12 hours'
                    CHECK (session_longest > interval '0' AND isfinite(session_longest)),
    -- How long the rights of a platform administrator last after the password was proven again.
    elevation       interval NOT NULL DEFAULT '15 minutes'
                    CHECK (elevation > interval '0' AND isfinite(elevation)),
    -- So many attempts to sign in to an account may fail in this time; then it is locked until the
    -- oldest of them is older. No account has more attempts than that, whether or not it exists.
    failed_attempts integer NOT NULL DEFAULT 10 CHECK (failed_attempts > 0),
    failed_within   interval NOT NULL DEFAULT '15 minutes'
                    CHECK (failed_within > interval '0' AND isfinite(failed_within)),
    -- Attempts for all accounts together.
    attempts_per_minute integer NOT NULL DEFAULT 600 CHECK (attempts_per_minute > 0),
    -- Sessions that one database login may begin on its own word that a provider signed the user in,
    -- and how many of them may exist.
    oidc_per_minute integer NOT NULL DEFAULT 60 CHECK (oidc_per_minute >= 0),
    oidc_sessions   integer NOT NULL DEFAULT 5000 CHECK (oidc_sessions >= 0),
    CHECK (token_default <= token_longest)
);
INSERT INTO patgate.policy DEFAULT VALUES;

-- Providers whose users may sign in, named as in the claim `iss`.
CREATE TABLE patgate.issuers (
    issuer       text PRIMARY KEY CHECK (issuer ~ '^https?://[^[:space:][:cntrl:]]+$'
                                         AND length(issuer) <= 500),
    enabled      boolean NOT NULL DEFAULT true,
    -- Whether a verified e-mail address of this provider finds the user at the first sign-in. Only
    -- for a provider that gives an address to nobody else. Never finds a platform administrator.
    trusts_email boolean NOT NULL DEFAULT false
);

-- Which user a subject of a provider is.
CREATE TABLE patgate.identities (
    issuer    text NOT NULL REFERENCES patgate.issuers ON DELETE CASCADE,
    subject   text NOT NULL CHECK (length(subject) BETWEEN 1 AND 255 AND subject !~ '[[:cntrl:]]'),
    user_id   uuid NOT NULL REFERENCES patgate.users ON DELETE CASCADE,
    linked_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    PRIMARY KEY (issuer, subject),
    -- An address that a provider gives to another person does not find the user again.
    UNIQUE (issuer, user_id)
);
CREATE INDEX identities_user_id ON patgate.identities (user_id);

-- Users with a password. The process computes argon2id with this salt, and proves to know the result;
-- stored is the SHA-256 of that.
CREATE TABLE patgate.local_accounts (
    user_id  uuid PRIMARY KEY REFERENCES patgate.users ON DELETE CASCADE,
    salt     bytea NOT NULL CHECK (octet_length(salt) = 16),
    verifier bytea NOT NULL CHECK (octet_length(verifier) = 32),
    set_at   timestamptz NOT NULL DEFAULT clock_timestamp()
);

-- The tables below have no foreign key: its check, or a cascade, would let an open transaction of a
-- patgate_web login hold up the deletion of a user.

-- Links with which a user sets the password, once.
CREATE TABLE patgate.invitations (
    -- SHA-256 of the proof, which is the SHA-256 of the secret in the link.
    proof_hash bytea PRIMARY KEY CHECK (octet_length(proof_hash) = 32),
    user_id    uuid NOT NULL,
    created_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    expires_at timestamptz NOT NULL CHECK (isfinite(expires_at))
);
CREATE INDEX invitations_user_id ON patgate.invitations (user_id);

-- A session is proven by the SHA-256 of the secret in the cookie; stored is the SHA-256 of that. So the
-- cookie itself is not even in a log of statements.
CREATE TABLE patgate.sessions (
    id             uuid PRIMARY KEY DEFAULT gen_random_uuid(),
    proof_hash     bytea NOT NULL UNIQUE CHECK (octet_length(proof_hash) = 32),
    user_id        uuid NOT NULL,
    -- The user's, when the session began.
    epoch          bigint NOT NULL,
    method         text NOT NULL CHECK (method IN ('local', 'oidc')),
    issuer         text,
    subject        text,
    -- As Postgres knows it, and as the process said.
    login          text NOT NULL DEFAULT session_user,
    address        inet,
    begun_at       timestamptz NOT NULL DEFAULT clock_timestamp(),
    used_at        timestamptz NOT NULL DEFAULT clock_timestamp(),
    elevated_until timestamptz NOT NULL DEFAULT '-infinity',
    CHECK ((method = 'oidc') = (num_nulls(issuer, subject) = 0)),
    -- The rights of a platform administrator need a proof that the database has checked.
    CONSTRAINT sessions_oidc_is_never_elevated
        CHECK (method <> 'oidc' OR elevated_until = '-infinity')
);
CREATE INDEX sessions_begun_at ON patgate.sessions (begun_at);
CREATE INDEX sessions_oidc_of_login ON patgate.sessions (login, begun_at) WHERE method = 'oidc';

-- A login's transactions that begin OIDC sessions wait for each other here, so that they cannot exceed
-- its limits together.
CREATE TABLE patgate.oidc_logins (
    login text PRIMARY KEY
);

-- Attempts to prove a password. An attempt is committed, with the answer that it will try, before it
-- learns whether that is right: rolling back cannot undo it, and it can try no other answer.
CREATE TABLE patgate.sign_in_attempts (
    id         uuid PRIMARY KEY DEFAULT gen_random_uuid(),
    -- Stands for the e-mail address, which may be no user's, and may even be a mistyped password.
    account    bytea NOT NULL,
    commitment bytea NOT NULL CHECK (octet_length(commitment) = 32),
    xid        xid8 NOT NULL DEFAULT pg_current_xact_id(),
    at         timestamptz NOT NULL DEFAULT clock_timestamp(),
    login      text NOT NULL DEFAULT session_user,
    address    inet
);
CREATE INDEX sign_in_attempts_account ON patgate.sign_in_attempts (account, at);
CREATE INDEX sign_in_attempts_at ON patgate.sign_in_attempts (at);

-- Makes the salts of accounts, and of those that do not exist, and the names of accounts above.
CREATE TABLE patgate.sign_in_secret (
    secret    bytea NOT NULL CHECK (octet_length(secret) = 32),
    singleton boolean PRIMARY KEY DEFAULT true CHECK (singleton)
);
INSERT INTO patgate.sign_in_secret (secret)
SELECT sha256(uuid_send(gen_random_uuid()) || uuid_send(gen_random_uuid())
              || uuid_send(gen_random_uuid()));

-- Requests to create a token that may be repeated: which token the first one created.
CREATE TABLE patgate.creations (
    user_id      uuid NOT NULL,
    key_hash     bytea NOT NULL,
    request_hash bytea NOT NULL,
    token_id     uuid NOT NULL,
    at           timestamptz NOT NULL DEFAULT clock_timestamp(),
    PRIMARY KEY (user_id, key_hash)
);

-- Operators. They see no proof and no verifier.
GRANT SELECT, UPDATE ON patgate.policy TO patgate_admin;
GRANT SELECT, INSERT, UPDATE, DELETE ON patgate.issuers, patgate.identities TO patgate_admin;
GRANT SELECT (user_id, set_at), DELETE ON patgate.local_accounts TO patgate_admin;
GRANT SELECT (user_id, created_at, expires_at), INSERT (proof_hash, user_id, expires_at), DELETE
    ON patgate.invitations TO patgate_admin;
GRANT SELECT (id, user_id, method, issuer, subject, login, address, begun_at, used_at,
              elevated_until), DELETE
    ON patgate.sessions TO patgate_admin;

-- The functions' owner.
GRANT USAGE ON SCHEMA patgate TO patgate_web, patgate_web_functions;
GRANT SELECT ON
    patgate.schema_version, patgate.installation, patgate.operations, patgate.entity_operations,
    patgate.users, patgate.domains, patgate.domain_models, patgate.roles, patgate.role_operations,
    patgate.role_members, patgate.pat_scopes, patgate.pat_uses, patgate.replicas,
    patgate.audit_log, patgate.policy, patgate.issuers, patgate.identities, patgate.local_accounts,
    patgate.invitations, patgate.sessions, patgate.oidc_logins, patgate.sign_in_attempts,
    patgate.sign_in_secret, patgate.creations
TO patgate_web_functions;
GRANT SELECT (id, user_id, name, description, key_id, issued_at, expires_at, revoked_at),
      INSERT (id, user_id, name, description, digest, key_id, issued_at, expires_at),
      UPDATE (name, description, digest, key_id, issued_at, expires_at, revoked_at), DELETE
    ON patgate.pats TO patgate_web_functions;
GRANT SELECT (name, url, kind, created_at), INSERT (name, url, kind), UPDATE (url, kind), DELETE
    ON patgate.backends TO patgate_web_functions;
GRANT INSERT, UPDATE, DELETE ON
    patgate.users, patgate.domains, patgate.domain_models, patgate.roles, patgate.role_operations,
    patgate.role_members, patgate.pat_scopes, patgate.local_accounts, patgate.invitations,
    patgate.sessions, patgate.creations
TO patgate_web_functions;
GRANT INSERT, UPDATE, DELETE ON patgate.sign_in_attempts TO patgate_web_functions;
GRANT INSERT, UPDATE ON patgate.oidc_logins TO patgate_web_functions;
GRANT INSERT (issuer, subject, user_id) ON patgate.identities TO patgate_web_functions;
GRANT INSERT (actor, action, object, details, address, request_id, method, session)
    ON patgate.audit_log TO patgate_web_functions;
GRANT EXECUTE ON FUNCTION patgate.identity, patgate.place TO patgate_web_functions;

REVOKE EXECUTE ON ALL FUNCTIONS IN SCHEMA patgate FROM PUBLIC;
