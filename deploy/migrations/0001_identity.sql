-- Identity and permission model: users, domains, backends, roles, tokens, scopes, audit.
--
-- Rules every migration keeps: it only adds what the running release can ignore (expand); what a
-- release stopped using is dropped one release later (contract). The number in
-- patgate.schema_version goes up once per release, and `patgate serve` accepts its own and the next.

-- Migrations run as patgate_migrate, whichever login started them (see bootstrap.sql): what they
-- create belongs to that role, so that any member of it may run the next one.

CREATE TABLE patgate.schema_version (
    version   integer NOT NULL,
    singleton boolean PRIMARY KEY DEFAULT true CHECK (singleton)
);
INSERT INTO patgate.schema_version (version) VALUES (1);

-- The vocabulary. Scopes and roles refer to it, so a pair that means nothing cannot be stored.
CREATE TABLE patgate.operations (
    operation text PRIMARY KEY
);

CREATE TABLE patgate.entity_operations (
    entity_type text NOT NULL,
    operation   text NOT NULL REFERENCES patgate.operations,
    PRIMARY KEY (entity_type, operation)
);

INSERT INTO patgate.operations (operation)
SELECT unnest(string_to_array(
    'read update delete enable disable manage_role add_role_users remove_role_users '
    'view_role_users llm_create llm_update llm_read llm_delete llm_chat_completions '
    'llm_completions llm_embeddings llm_transcription llm_translation llm_utility llm_pooling '
    'llm_classification llm_scoring llm_rerank audit_log_read audit_log_export create execute', ' '));

INSERT INTO patgate.entity_operations (entity_type, operation)
SELECT 'domains', operation FROM patgate.operations
UNION ALL
SELECT 'models', operation FROM patgate.operations WHERE operation LIKE 'llm\_%'
UNION ALL
SELECT e, o
FROM unnest(ARRAY['services', 'deployments']) AS e,
     unnest(ARRAY['read', 'create', 'update', 'delete', 'enable', 'disable', 'execute']) AS o
UNION ALL
SELECT e, o
FROM unnest(ARRAY['datasets', 'scim']) AS e, unnest(ARRAY['read', 'create', 'update', 'delete']) AS o
UNION ALL
SELECT e, o
FROM unnest(ARRAY['reports', 'workbooks']) AS e,
     unnest(ARRAY['read', 'create', 'update', 'delete', 'execute']) AS o;

CREATE TABLE patgate.users (
    id             uuid PRIMARY KEY,
    email          text NOT NULL UNIQUE
                   CHECK (email ~ '^[^[:space:][:cntrl:]@]+@[^[:space:][:cntrl:]@]+$'
                          AND email = lower(email) AND length(email) <= 254),
    name           text NOT NULL CHECK (length(name) BETWEEN 1 AND 200 AND name !~ '[[:cntrl:]]'),
    platform_admin boolean NOT NULL DEFAULT false,
    enabled        boolean NOT NULL DEFAULT true,
    created_at     timestamptz NOT NULL DEFAULT now()
);

CREATE TABLE patgate.backends (
    name       text PRIMARY KEY CHECK (name ~ '^[a-z0-9][a-z0-9._-]{0,62}$'),
    url        text NOT NULL CHECK (url ~ '^https?://[^[:space:][:cntrl:]]+$'),
    kind       text NOT NULL CHECK (kind IN ('vllm', 'ollama', 'openai')),
    created_at timestamptz NOT NULL DEFAULT now()
);

CREATE TABLE patgate.domains (
    id         uuid PRIMARY KEY,
    -- A slug is never shaped like an id, so that one reference has one meaning.
    slug       text NOT NULL UNIQUE
               CHECK (slug ~ '^[a-z][a-z0-9-]{1,62}$'
                      AND slug !~ '^[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}$'),
    name       text NOT NULL CHECK (length(name) BETWEEN 1 AND 200 AND name !~ '[[:cntrl:]]'),
    enabled    boolean NOT NULL DEFAULT true,
    upstream   text NOT NULL REFERENCES patgate.backends ON UPDATE CASCADE,
    created_at timestamptz NOT NULL DEFAULT now()
);
CREATE INDEX domains_upstream ON patgate.domains (upstream);

CREATE TABLE patgate.domain_models (
    domain_id uuid NOT NULL REFERENCES patgate.domains ON DELETE CASCADE,
    model     text NOT NULL CHECK (length(model) BETWEEN 1 AND 256 AND model !~ '[[:cntrl:]]'),
    upstream  text NOT NULL REFERENCES patgate.backends ON UPDATE CASCADE,
    PRIMARY KEY (domain_id, model)
);
CREATE INDEX domain_models_upstream ON patgate.domain_models (upstream);

CREATE TABLE patgate.roles (
    id        uuid PRIMARY KEY,
    domain_id uuid NOT NULL REFERENCES patgate.domains ON DELETE CASCADE,
    name      text NOT NULL CHECK (name ~ '^[a-z][a-z0-9_-]{0,62}$'),
    UNIQUE (domain_id, name)
);

CREATE TABLE patgate.role_operations (
    role_id   uuid NOT NULL REFERENCES patgate.roles ON DELETE CASCADE,
    operation text NOT NULL REFERENCES patgate.operations,
    PRIMARY KEY (role_id, operation)
);

CREATE TABLE patgate.role_members (
    role_id uuid NOT NULL REFERENCES patgate.roles ON DELETE CASCADE,
    user_id uuid NOT NULL REFERENCES patgate.users ON DELETE CASCADE,
    PRIMARY KEY (role_id, user_id)
);
CREATE INDEX role_members_user_id ON patgate.role_members (user_id);

CREATE TABLE patgate.pats (
    id           uuid PRIMARY KEY,
    user_id      uuid NOT NULL REFERENCES patgate.users ON DELETE CASCADE,
    name         text NOT NULL CHECK (length(name) BETWEEN 1 AND 200 AND name !~ '[[:cntrl:]]'),
    description  text NOT NULL DEFAULT '' CHECK (length(description) <= 2000 AND description !~ '[[:cntrl:]]'),
    -- SHA-256 over an HMAC under a key that the database does not hold.
    digest       bytea NOT NULL CHECK (octet_length(digest) = 32),
    key_id       text NOT NULL CHECK (key_id ~ '^[a-z0-9][a-z0-9-]{0,31}$'),
    issued_at    timestamptz NOT NULL DEFAULT now(),
    expires_at   timestamptz NOT NULL CHECK (isfinite(expires_at)),
    revoked_at   timestamptz,
    last_used_at timestamptz,
    UNIQUE (user_id, name),
    CHECK (expires_at > issued_at)
);
CREATE INDEX pats_key_id ON patgate.pats (key_id);

CREATE TABLE patgate.pat_scopes (
    id          uuid PRIMARY KEY,
    pat_id      uuid NOT NULL REFERENCES patgate.pats ON DELETE CASCADE,
    domain_id   uuid NOT NULL REFERENCES patgate.domains ON DELETE CASCADE,
    entity_type text NOT NULL,
    -- `*` or one id, literally. An empty id would be neither.
    entity_id   text NOT NULL CHECK (length(entity_id) BETWEEN 1 AND 256 AND entity_id !~ '[[:cntrl:]]'),
    operation   text NOT NULL,
    FOREIGN KEY (entity_type, operation) REFERENCES patgate.entity_operations,
    UNIQUE (pat_id, domain_id, entity_type, entity_id, operation),
    CHECK (entity_type <> 'domains' OR entity_id IN ('*', domain_id::text))
);
CREATE INDEX pat_scopes_domain_id ON patgate.pat_scopes (domain_id);

CREATE TABLE patgate.audit_log (
    id      bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    at      timestamptz NOT NULL DEFAULT clock_timestamp(),
    actor   text NOT NULL CHECK (actor <> ''),
    action  text NOT NULL CHECK (action <> ''),
    object  text NOT NULL CHECK (object <> ''),
    details jsonb NOT NULL DEFAULT '{}'
);
CREATE INDEX audit_log_at ON patgate.audit_log (at);

-- Privileges do not bind a table's owner; a trigger does.
CREATE FUNCTION patgate.refuse_audit_change() RETURNS trigger
LANGUAGE plpgsql SET search_path = pg_catalog AS $$
BEGIN
    RAISE EXCEPTION 'patgate.audit_log is append-only: % is refused', TG_OP
        USING ERRCODE = 'insufficient_privilege';
END
$$;
CREATE TRIGGER append_only
    BEFORE UPDATE OR DELETE OR TRUNCATE ON patgate.audit_log
    FOR EACH STATEMENT EXECUTE FUNCTION patgate.refuse_audit_change();
ALTER TABLE patgate.audit_log ENABLE ALWAYS TRIGGER append_only;

GRANT USAGE ON SCHEMA patgate TO patgate_serve, patgate_admin;

GRANT SELECT ON
    patgate.schema_version, patgate.operations, patgate.entity_operations, patgate.users,
    patgate.backends, patgate.domains, patgate.domain_models, patgate.roles,
    patgate.role_operations, patgate.role_members, patgate.pats, patgate.pat_scopes
TO patgate_serve, patgate_admin;

GRANT UPDATE (last_used_at) ON patgate.pats TO patgate_serve;

GRANT INSERT, UPDATE, DELETE ON
    patgate.users, patgate.backends, patgate.domains, patgate.domain_models, patgate.roles,
    patgate.role_operations, patgate.role_members, patgate.pats, patgate.pat_scopes
TO patgate_admin;

GRANT SELECT, INSERT ON patgate.audit_log TO patgate_admin;
