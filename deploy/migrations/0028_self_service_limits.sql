-- What users could gain by being at the same time, and what auditors of a domain could be spared. Errors
-- are listed in 0017.

-- When a session was last used, apart from the session: a request must not lock what a sign-out deletes.
-- No foreign key, for the reason that 0016 has for the others.
CREATE TABLE patgate.session_uses (
    session uuid PRIMARY KEY,
    used_at timestamptz NOT NULL DEFAULT '-infinity'
);
GRANT SELECT ON patgate.session_uses TO patgate_admin;
GRANT SELECT, UPDATE, DELETE ON patgate.session_uses TO patgate_web_functions;

-- Every session has its row from the beginning, so that no request waits for another one that makes it.
CREATE FUNCTION patgate.note_session() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    INSERT INTO patgate.session_uses (session) VALUES (NEW.id);
    RETURN NULL;
END
$$;
CREATE TRIGGER note_session AFTER INSERT ON patgate.sessions
    FOR EACH ROW EXECUTE FUNCTION patgate.note_session();
INSERT INTO patgate.session_uses (session) SELECT s.id FROM patgate.sessions s;

GRANT CREATE ON SCHEMA patgate TO patgate_web_functions;
SET LOCAL ROLE patgate_web_functions;

-- The user of a session, if the session still counts. As before, except that it locks nothing of the
-- session.
CREATE OR REPLACE FUNCTION patgate.web_internal_actor(proof bytea) RETURNS patgate.web_actor
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    me   patgate.web_actor;
    last timestamptz;
BEGIN
    PERFORM patgate.web_internal_guard();
    SELECT s.id, u.id, u.email, s.method,
           s.method = 'local' AND u.platform_admin AND s.elevated_until > clock_timestamp(),
           greatest(s.used_at, n.used_at)
        INTO me.session, me.user_id, me.email, me.method, me.elevated, last
    FROM patgate.sessions s
    JOIN patgate.users u ON u.id = s.user_id AND u.enabled AND u.session_epoch = s.epoch
    LEFT JOIN patgate.session_uses n ON n.session = s.id
    CROSS JOIN patgate.policy p
    WHERE s.proof_hash = sha256(proof)
      AND s.begun_at + p.session_longest > clock_timestamp()
      AND greatest(s.used_at, n.used_at) + p.session_idle > clock_timestamp()
      AND CASE s.method
          WHEN 'local' THEN EXISTS (
              SELECT FROM patgate.local_accounts a WHERE a.user_id = u.id)
          ELSE EXISTS (
              SELECT FROM patgate.identities i
              JOIN patgate.issuers t ON t.issuer = i.issuer AND t.enabled
              WHERE i.issuer = s.issuer AND i.subject = s.subject AND i.user_id = u.id
                AND s.begun_at >= i.linked_at AND s.begun_at >= t.enabled_at)
          END;
    IF me.session IS NULL THEN
        RAISE EXCEPTION 'not signed in' USING ERRCODE = 'PW001';
    END IF;
    -- Not at each use, which would write a row per request; and not if another request of the session
    -- does it just now, for which this one would wait until that ends.
    IF last < clock_timestamp() - interval '30 seconds' THEN
        UPDATE patgate.session_uses n SET used_at = clock_timestamp()
        WHERE n.session = (SELECT o.session FROM patgate.session_uses o
                           WHERE o.session = me.session FOR NO KEY UPDATE SKIP LOCKED);
    END IF;
    RETURN me;
END
$$;

-- The actor's sessions that count, the latest first. The same conditions as in `web_internal_actor`.
CREATE FUNCTION patgate.web_sessions(proof bytea) RETURNS jsonb
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    me CONSTANT patgate.web_actor := patgate.web_internal_actor(proof);
BEGIN
    RETURN (
        SELECT coalesce(jsonb_agg(jsonb_build_object(
            'id', s.id, 'current', s.id = (me).session, 'method', s.method, 'issuer', s.issuer,
            'address', host(s.address),
            'elevated', s.elevated_until > clock_timestamp() AND u.platform_admin,
            'begun_at', patgate.web_internal_utc(s.begun_at),
            'last_used_at', patgate.web_internal_utc(greatest(s.used_at, n.used_at)),
            'ends_at', patgate.web_internal_utc(s.begun_at + p.session_longest))
            ORDER BY s.begun_at DESC, s.id), '[]')
        FROM patgate.sessions s
        JOIN patgate.users u ON u.id = s.user_id AND u.enabled AND u.session_epoch = s.epoch
        LEFT JOIN patgate.session_uses n ON n.session = s.id
        CROSS JOIN patgate.policy p
        WHERE s.user_id = (me).user_id
          AND s.begun_at + p.session_longest > clock_timestamp()
          AND greatest(s.used_at, n.used_at) + p.session_idle > clock_timestamp()
          AND CASE s.method
              WHEN 'local' THEN EXISTS (
                  SELECT FROM patgate.local_accounts a WHERE a.user_id = u.id)
              ELSE EXISTS (
                  SELECT FROM patgate.identities i
                  JOIN patgate.issuers t ON t.issuer = i.issuer AND t.enabled
                  WHERE i.issuer = s.issuer AND i.subject = s.subject AND i.user_id = u.id
                 AND s.begun_at >= i.linked_at AND s.begun_at >= t.enabled_at)
              END);
END
$$;

-- Removes sessions that have ended, a few at a time.
CREATE OR REPLACE FUNCTION patgate.web_internal_sweep() RETURNS void
LANGUAGE sql SET search_path = pg_catalog, pg_temp AS $$
    DELETE FROM patgate.sessions s WHERE s.ctid = ANY (ARRAY(
        SELECT o.ctid FROM patgate.sessions o
        LEFT JOIN patgate.session_uses n ON n.session = o.id
        CROSS JOIN patgate.policy p
        WHERE o.begun_at + p.session_longest < clock_timestamp()
           OR greatest(o.used_at, n.used_at) + p.session_idle < clock_timestamp()
        ORDER BY o.begun_at LIMIT 100 FOR UPDATE OF o SKIP LOCKED));
    DELETE FROM patgate.session_uses n WHERE n.ctid = ANY (ARRAY(
        SELECT o.ctid FROM patgate.session_uses o
        WHERE NOT EXISTS (SELECT FROM patgate.sessions s WHERE s.id = o.session)
        LIMIT 100 FOR UPDATE OF o SKIP LOCKED))
$$;

-- As `web_internal_changing`, for a change that makes a token: those of one user are made one after the
-- other, so that they cannot exceed the limit together. The lock is the strongest that the transaction
-- takes on this row, and its first, so two of them do not end in a deadlock.
CREATE FUNCTION patgate.web_internal_creating(proof bytea) RETURNS patgate.web_actor
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    PERFORM patgate.web_internal_guard();
    PERFORM FROM patgate.users u
    WHERE u.id = (SELECT s.user_id FROM patgate.sessions s WHERE s.proof_hash = sha256(proof))
    FOR NO KEY UPDATE;
    RETURN patgate.web_internal_actor(proof);
END
$$;

-- What a line of the audit log says about scopes: those that `changed` lists, as
-- [{domain_id, entity_type, entity_id, operation}], or with NULL, all that the token has.
-- - `scopes` are the first of them, in turn from each domain. A line must not be as long as a request.
-- - `scopes_total` says how many they are.
-- - `domains` are all domains of the token, by their ids: by these, auditors find the line after the
--   token, the scope or the domain's slug has gone. With the slug of that moment, and how many of these
--   scopes are in the domain.
CREATE FUNCTION patgate.web_internal_scope_facts(token uuid, changed jsonb DEFAULT NULL)
RETURNS jsonb
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
    WITH present AS (
        SELECT s.domain_id, s.entity_type, s.entity_id, s.operation
        FROM patgate.pat_scopes s WHERE s.pat_id = token
    ), wanted AS (
        SELECT * FROM present WHERE changed IS NULL
        UNION
        SELECT c.domain_id, c.entity_type, c.entity_id, c.operation
        FROM jsonb_to_recordset(changed)
            AS c (domain_id uuid, entity_type text, entity_id text, operation text)
    ), listed AS (
        SELECT w.domain_id, patgate.web_internal_scope_text(
                   d.slug, w.entity_type, w.entity_id, w.operation) AS scope
        FROM wanted w JOIN patgate.domains d ON d.id = w.domain_id
    ), placed AS (
        SELECT l.scope, row_number() OVER (PARTITION BY l.domain_id ORDER BY l.scope) AS turn
        FROM listed l
    ), measured AS (
        SELECT p.scope, row_number() OVER first AS place, sum(length(p.scope)) OVER first AS size
        FROM placed p WINDOW first AS (ORDER BY p.turn, p.scope ROWS UNBOUNDED PRECEDING)
    ), counted AS (
        SELECT d.id, d.slug, (SELECT count(*) FROM listed l WHERE l.domain_id = d.id) AS scopes
        FROM patgate.domains d
        WHERE d.id IN (SELECT p.domain_id FROM present p UNION SELECT w.domain_id FROM wanted w)
    )
    SELECT jsonb_build_object(
        'scopes', (SELECT coalesce(jsonb_agg(m.scope ORDER BY m.scope), '[]')
                   FROM measured m WHERE m.place <= 50 AND m.size <= 4000),
        'scopes_total', (SELECT count(*) FROM listed),
        'domains', (SELECT coalesce(jsonb_object_agg(c.id, jsonb_build_object(
                        'slug', c.slug, 'scopes', c.scopes)), '{}') FROM counted c))
$$;

-- Changes with everything that is shown of a token. Not with its last use. A scope is not changed, but
-- removed, so its id stands for it; that is faster than its words, in a list of long tokens.
CREATE OR REPLACE FUNCTION patgate.web_internal_version(token uuid) RETURNS text
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
    SELECT substr(encode(sha256(convert_to(jsonb_build_array(
        p.id, p.user_id, p.name, p.description, p.key_id, extract(epoch FROM p.issued_at),
        extract(epoch FROM p.expires_at), extract(epoch FROM p.revoked_at),
        (SELECT encode(sha256(string_agg(uuid_send(s.id), '' ORDER BY s.id)), 'hex')
         FROM patgate.pat_scopes s WHERE s.pat_id = p.id)
        )::text, 'UTF8')), 'hex'), 1, 32)
    FROM patgate.pats p WHERE p.id = token
$$;

-- A token; in a list, only the first of its scopes.
DROP FUNCTION patgate.web_internal_token(uuid);
CREATE FUNCTION patgate.web_internal_token(token uuid, most bigint DEFAULT NULL) RETURNS jsonb
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
    SELECT jsonb_build_object(
        'id', p.id, 'name', p.name, 'description', p.description, 'owner', u.email,
        'status', CASE WHEN p.revoked_at IS NOT NULL THEN 'revoked'
                       WHEN p.expires_at <= clock_timestamp() THEN 'expired'
                       WHEN NOT u.enabled THEN 'owner_disabled'
                       ELSE 'live' END,
        'key_id', p.key_id,
        'issued_at', patgate.web_internal_utc(p.issued_at),
        'expires_at', patgate.web_internal_utc(p.expires_at),
        'revoked_at', patgate.web_internal_utc(p.revoked_at),
        'last_used_at', (SELECT patgate.web_internal_utc(n.last_used_at)
                         FROM patgate.pat_uses n WHERE n.pat_id = p.id),
        'version', patgate.web_internal_version(p.id),
        'scopes_total', (SELECT count(*) FROM patgate.pat_scopes s WHERE s.pat_id = p.id),
        'scopes', coalesce((
            SELECT jsonb_agg(jsonb_build_object(
                'id', s.id, 'domain', s.slug, 'entity_type', s.entity_type,
                'entity_id', s.entity_id, 'operation', s.operation,
                'permitted', u.platform_admin OR EXISTS (
                    SELECT FROM patgate.role_members m
                    JOIN patgate.roles r ON r.id = m.role_id
                    JOIN patgate.role_operations o ON o.role_id = r.id
                    WHERE m.user_id = u.id AND r.domain_id = s.domain_id
                      AND o.operation = s.operation))
                ORDER BY s.slug, s.entity_type, s.entity_id, s.operation)
            FROM (SELECT x.id, x.domain_id, d.slug, x.entity_type, x.entity_id, x.operation
                  FROM patgate.pat_scopes x JOIN patgate.domains d ON d.id = x.domain_id
                  WHERE x.pat_id = p.id
                  ORDER BY d.slug, x.entity_type, x.entity_id, x.operation LIMIT most) AS s), '[]'))
    FROM patgate.pats p JOIN patgate.users u ON u.id = p.user_id
    WHERE p.id = token
$$;

-- The actor's tokens, or with `everyones` those of all users, each with 20 scopes at most. `part` occurs in
-- their names; `state` is one that `web_internal_token` shows, or NULL.
CREATE OR REPLACE FUNCTION patgate.web_tokens(
    proof bytea, everyones boolean, part text, state text, skip bigint, most bigint
) RETURNS jsonb
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    me     CONSTANT patgate.web_actor := patgate.web_internal_actor(proof);
    ids    uuid[];
    total  bigint;
    result jsonb;
BEGIN
    IF everyones AND NOT (me).elevated THEN
        PERFORM patgate.web_internal_refuse_admin(me);
    END IF;
    WITH matching AS (
        SELECT p.id, u.email, p.name FROM patgate.pats p JOIN patgate.users u ON u.id = p.user_id
        WHERE CASE WHEN everyones THEN p.user_id <> 'ca4a4700-0000-8000-8000-000000000000'
                   ELSE p.user_id = (me).user_id END
          AND (part IS NULL OR strpos(lower(p.name), lower(part)) > 0)
          AND CASE coalesce(state, '')
              WHEN '' THEN true
              WHEN 'revoked' THEN p.revoked_at IS NOT NULL
              WHEN 'expired' THEN p.revoked_at IS NULL AND p.expires_at <= clock_timestamp()
              WHEN 'owner_disabled' THEN p.revoked_at IS NULL
                  AND p.expires_at > clock_timestamp() AND NOT u.enabled
              WHEN 'live' THEN p.revoked_at IS NULL AND p.expires_at > clock_timestamp()
                  AND u.enabled
              ELSE false END)
    SELECT (SELECT count(*) FROM matching),
           ARRAY(SELECT m.id FROM matching m ORDER BY m.email, m.name, m.id
                 OFFSET greatest(skip, 0) LIMIT least(greatest(most, 0), 1000))
        INTO total, ids;
    SELECT coalesce(jsonb_agg(patgate.web_internal_token(i.id, 20) ORDER BY i.place), '[]') INTO result
    FROM unnest(ids) WITH ORDINALITY AS i (id, place);
    RETURN jsonb_build_object('total', total, 'tokens', result);
END
$$;

-- Creates a token. The process has made its id, its secret and the digest of that. A request that is
-- repeated under its key creates nothing, and returns the token of the first one without its secret,
-- which is kept nowhere.
CREATE OR REPLACE FUNCTION patgate.web_create_token(
    proof bytea, address inet, request text, token uuid, token_name text,
    token_description text, token_digest bytea, token_key text, life bigint, until timestamptz,
    scopes jsonb, idempotency_key text
) RETURNS jsonb
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    me      CONSTANT patgate.web_actor := patgate.web_internal_creating(proof);
    allowed patgate.policy;
    expiry  timestamptz;
    key     CONSTANT bytea := sha256(convert_to(idempotency_key, 'UTF8'));
    asked   CONSTANT bytea := sha256(convert_to(jsonb_build_array(
                token_name, token_description, life, extract(epoch FROM until), scopes)::text,
                'UTF8'));
    earlier patgate.creations;
    broken  text;
BEGIN
    SELECT * INTO allowed FROM patgate.policy;
    IF key IS NOT NULL THEN
        DELETE FROM patgate.creations c
        WHERE c.user_id = (me).user_id AND c.at < clock_timestamp() - interval '1 day';
        INSERT INTO patgate.creations (user_id, key_hash, request_hash, token_id)
        VALUES ((me).user_id, key, asked, token)
        ON CONFLICT DO NOTHING;
        IF NOT FOUND THEN
            SELECT * INTO earlier FROM patgate.creations c
            WHERE c.user_id = (me).user_id AND c.key_hash = key;
            IF earlier.request_hash IS DISTINCT FROM asked THEN
                RAISE EXCEPTION 'the idempotency key was used for another request'
                    USING ERRCODE = 'PW010';
            END IF;
            RETURN patgate.web_internal_changed(jsonb_build_object(
                'created', false, 'token_id', earlier.token_id,
                'token', patgate.web_internal_token(earlier.token_id)));
        END IF;
    END IF;
    PERFORM patgate.web_internal_hold_domains(scopes);
    IF (SELECT count(*) FROM patgate.pats p WHERE p.user_id = (me).user_id)
        >= allowed.tokens_per_user
    THEN
        RAISE EXCEPTION 'you have % tokens; delete some first', allowed.tokens_per_user
            USING ERRCODE = 'PW013';
    END IF;
    expiry := coalesce(patgate.web_internal_expiry(life, until),
                       clock_timestamp() + allowed.token_default);
    BEGIN
        INSERT INTO patgate.pats
            (id, user_id, name, description, digest, key_id, issued_at, expires_at)
        VALUES (token, (me).user_id, token_name, coalesce(token_description, ''), token_digest,
                token_key, clock_timestamp(), expiry);
    EXCEPTION
        WHEN unique_violation THEN
            RAISE EXCEPTION 'you have a token with the name `%`', left(token_name, 200)
                USING ERRCODE = 'PW005';
        WHEN check_violation OR not_null_violation THEN
            GET STACKED DIAGNOSTICS broken = CONSTRAINT_NAME;
            RAISE EXCEPTION '%', CASE WHEN expiry > clock_timestamp()
                    THEN 'the token is not valid: ' || coalesce(broken, 'a field is missing')
                    ELSE 'a token must expire in the future' END
                USING ERRCODE = 'PW008';
    END;
    PERFORM patgate.web_internal_grant(me, token, scopes);
    PERFORM patgate.web_internal_audit(
        me, address, request, 'token.create', token::text,
        jsonb_build_object('name', token_name, 'email', (me).email, 'expires_at',
                           patgate.web_internal_utc(expiry), 'key_id', token_key)
        || patgate.web_internal_scope_facts(token));
    RETURN patgate.web_internal_changed(jsonb_build_object(
        'created', true, 'token_id', token, 'token', patgate.web_internal_token(token)),
        ARRAY[token]);
END
$$;

-- Changes name or description; NULL leaves it.
CREATE OR REPLACE FUNCTION patgate.web_update_token(
    proof bytea, address inet, request text, token uuid, version text, new_name text,
    new_description text
) RETURNS jsonb
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    me       CONSTANT patgate.web_actor := patgate.web_internal_changing(proof);
    old_name text;
BEGIN
    PERFORM patgate.web_internal_lock_token(me, token, version);
    SELECT p.name INTO old_name FROM patgate.pats p WHERE p.id = token;
    BEGIN
        UPDATE patgate.pats p SET name = coalesce(new_name, p.name),
            description = coalesce(new_description, p.description)
        WHERE p.id = token;
    EXCEPTION
        WHEN unique_violation THEN
            RAISE EXCEPTION 'you have a token with the name `%`', left(new_name, 200)
                USING ERRCODE = 'PW005';
        WHEN check_violation THEN
            RAISE EXCEPTION 'the name or the description is not valid' USING ERRCODE = 'PW008';
    END;
    PERFORM patgate.web_internal_audit(
        me, address, request, 'token.update', token::text,
        jsonb_build_object('email', (me).email, 'name', coalesce(new_name, old_name),
                           'name_before', old_name, 'described', new_description IS NOT NULL)
        || (patgate.web_internal_scope_facts(token) - '{scopes,scopes_total}'::text[]));
    RETURN patgate.web_internal_changed(patgate.web_internal_token(token), ARRAY[token]);
END
$$;

-- Gives a live token a new secret; the old one stops working. A new secret is a new grant: the actor
-- must be able to grant every scope of the token, and it expires as a new token may. Without `life` and
-- `until`, the expiry stays, unless that is too late now.
CREATE OR REPLACE FUNCTION patgate.web_reset_token(
    proof bytea, address inet, request text, token uuid, version text, token_digest bytea,
    token_key text, life bigint, until timestamptz
) RETURNS jsonb
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    me      CONSTANT patgate.web_actor := patgate.web_internal_changing(proof);
    longest CONSTANT interval := (SELECT p.token_longest FROM patgate.policy p);
    expiry  CONSTANT timestamptz := patgate.web_internal_expiry(life, until);
    wrong   text;
BEGIN
    PERFORM FROM patgate.domains d
    WHERE d.id IN (SELECT s.domain_id FROM patgate.pat_scopes s WHERE s.pat_id = token)
    ORDER BY d.id FOR KEY SHARE;
    PERFORM patgate.web_internal_lock_token(me, token, version);
    PERFORM FROM patgate.pats p
    WHERE p.id = token AND p.revoked_at IS NULL AND p.expires_at > clock_timestamp();
    IF NOT FOUND THEN
        RAISE EXCEPTION 'the token is revoked or expired; create a new one'
            USING ERRCODE = 'PW011';
    END IF;
    SELECT patgate.web_internal_scope_text(d.slug, s.entity_type, s.entity_id, s.operation)
        INTO wrong
    FROM (SELECT x.domain_id, patgate.web_internal_held(me, x.domain_id, true) AS operations
          FROM (SELECT DISTINCT y.domain_id FROM patgate.pat_scopes y
                WHERE y.pat_id = token ORDER BY 1) AS x) AS held
    JOIN patgate.pat_scopes s ON s.pat_id = token AND s.domain_id = held.domain_id
    JOIN patgate.domains d ON d.id = s.domain_id
    WHERE s.operation <> ALL (held.operations) LIMIT 1;
    IF FOUND THEN
        RAISE EXCEPTION 'you may not grant the scope `%` of this token any more; remove it first',
            wrong USING ERRCODE = 'PW002';
    END IF;
    -- The trigger of 0021 permits an expiry that was too late already.
    IF expiry > clock_timestamp() + longest THEN
        RAISE EXCEPTION 'a token must expire within %, as an operator has set', longest
            USING ERRCODE = 'PW006', DETAIL = (extract(epoch FROM longest)::bigint)::text;
    END IF;
    BEGIN
        UPDATE patgate.pats p SET digest = token_digest, key_id = token_key,
            issued_at = clock_timestamp(),
            expires_at = coalesce(expiry, least(p.expires_at, clock_timestamp() + longest))
        WHERE p.id = token;
    EXCEPTION WHEN check_violation OR not_null_violation THEN
        RAISE EXCEPTION 'a token must expire in the future' USING ERRCODE = 'PW008';
    END;
    PERFORM patgate.web_internal_audit(
        me, address, request, 'token.reset_secret', token::text,
        jsonb_build_object('email', (me).email, 'name', p.name, 'key_id', p.key_id, 'expires_at',
                           patgate.web_internal_utc(p.expires_at))
        || patgate.web_internal_scope_facts(token))
    FROM patgate.pats p WHERE p.id = token;
    RETURN patgate.web_internal_changed(patgate.web_internal_token(token), ARRAY[token]);
END
$$;

-- Revokes a token for good. One that is revoked already keeps its time.
CREATE OR REPLACE FUNCTION patgate.web_revoke_token(proof bytea, address inet, request text, token uuid)
RETURNS jsonb
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    me CONSTANT patgate.web_actor := patgate.web_internal_changing(proof);
BEGIN
    PERFORM patgate.web_internal_lock_token(me, token, NULL, true);
    UPDATE patgate.pats p SET revoked_at = clock_timestamp()
    WHERE p.id = token AND p.revoked_at IS NULL;
    IF FOUND THEN
        PERFORM patgate.web_internal_audit(
            me, address, request, 'token.revoke', token::text,
            jsonb_build_object('email', u.email, 'name', p.name)
                || patgate.web_internal_scope_facts(token))
        FROM patgate.pats p JOIN patgate.users u ON u.id = p.user_id WHERE p.id = token;
    END IF;
    RETURN patgate.web_internal_changed(patgate.web_internal_token(token), ARRAY[token]);
END
$$;

-- Deletes a token with its scopes.
CREATE OR REPLACE FUNCTION patgate.web_delete_token(
    proof bytea, address inet, request text, token uuid, version text
) RETURNS jsonb
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    me    CONSTANT patgate.web_actor := patgate.web_internal_changing(proof);
    gone  jsonb;
    facts jsonb;
BEGIN
    PERFORM patgate.web_internal_lock_token(me, token, version, true);
    gone := patgate.web_internal_token(token);
    facts := patgate.web_internal_scope_facts(token);
    DELETE FROM patgate.pats p WHERE p.id = token;
    PERFORM patgate.web_internal_audit(
        me, address, request, 'token.delete', token::text,
        jsonb_build_object('email', gone -> 'owner', 'name', gone -> 'name', 'status',
                           gone -> 'status')
        || facts);
    RETURN patgate.web_internal_changed('null', ARRAY[token]);
END
$$;

CREATE OR REPLACE FUNCTION patgate.web_add_scopes(
    proof bytea, address inet, request text, token uuid, version text, scopes jsonb
) RETURNS jsonb
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    me CONSTANT patgate.web_actor := patgate.web_internal_changing(proof);
BEGIN
    PERFORM patgate.web_internal_hold_domains(scopes);
    PERFORM patgate.web_internal_lock_token(me, token, version);
    PERFORM patgate.web_internal_grant(me, token, scopes);
    PERFORM patgate.web_internal_audit(
        me, address, request, 'token.add_scope', token::text,
        jsonb_build_object('email', (me).email)
        || patgate.web_internal_scope_facts(token, (
               SELECT coalesce(jsonb_agg(DISTINCT to_jsonb(s)), '[]')
               FROM patgate.web_internal_scopes(web_add_scopes.scopes) s)));
    RETURN patgate.web_internal_changed(patgate.web_internal_token(token), ARRAY[token]);
END
$$;

-- Removes scopes by their ids and by what they are, or with NULL for both, all of them.
CREATE OR REPLACE FUNCTION patgate.web_remove_scopes(
    proof bytea, address inet, request text, token uuid, version text, ids uuid[], scopes jsonb
) RETURNS jsonb
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    me      CONSTANT patgate.web_actor := patgate.web_internal_changing(proof);
    removed jsonb;
BEGIN
    IF scopes IS NOT NULL THEN
        PERFORM patgate.web_internal_hold_domains(scopes);
    END IF;
    PERFORM patgate.web_internal_lock_token(me, token, version);
    IF EXISTS (SELECT FROM unnest(ids) AS i (id) WHERE NOT EXISTS (
            SELECT FROM patgate.pat_scopes s WHERE s.pat_id = token AND s.id = i.id))
        OR EXISTS (SELECT FROM patgate.web_internal_scopes(scopes) w WHERE NOT EXISTS (
            SELECT FROM patgate.pat_scopes s
            WHERE s.pat_id = token AND s.domain_id = w.domain_id
              AND s.entity_type = w.entity_type AND s.entity_id = w.entity_id
              AND s.operation = w.operation))
    THEN
        RAISE EXCEPTION 'the token does not have one of these scopes' USING ERRCODE = 'PW003';
    END IF;
    WITH gone AS (
        DELETE FROM patgate.pat_scopes s
        WHERE s.pat_id = token AND (
            (ids IS NULL AND scopes IS NULL) OR s.id = ANY (ids)
            OR EXISTS (
                SELECT FROM patgate.web_internal_scopes(scopes) w
                WHERE w.domain_id = s.domain_id AND w.entity_type = s.entity_type
                  AND w.entity_id = s.entity_id AND w.operation = s.operation))
        RETURNING s.*)
    SELECT coalesce(jsonb_agg(to_jsonb(g)), '[]') INTO removed FROM gone g;
    PERFORM patgate.web_internal_audit(
        me, address, request, 'token.remove_scope', token::text,
        jsonb_build_object('email', (me).email)
        || patgate.web_internal_scope_facts(token, removed));
    RETURN patgate.web_internal_changed(patgate.web_internal_token(token), ARRAY[token]);
END
$$;

-- Replaces a live token by a new one with the same name, description and scopes, and with the duration
-- of the old one, or the longest that is permitted. The old one is renamed after its id, and expires
-- after `overlap` microseconds, or when it would have; without an overlap, it is revoked. The new token
-- is a new grant, as a new secret is.
CREATE FUNCTION patgate.web_rotate_token(
    proof bytea, address inet, request text, token uuid, version text, new_token uuid,
    new_digest bytea, new_key text, overlap bigint
) RETURNS jsonb
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    me      CONSTANT patgate.web_actor := patgate.web_internal_creating(proof);
    allowed patgate.policy;
    -- A century is the same as for ever, and can be added to a time.
    grace   CONSTANT interval :=
        least(overlap, 3155760000000000) * interval '1 microsecond';
    it      record;
    expiry  timestamptz;
    wrong   text;
BEGIN
    IF overlap IS NULL OR overlap < 0 THEN
        RAISE EXCEPTION 'the overlap must not be negative' USING ERRCODE = 'PW008';
    END IF;
    PERFORM FROM patgate.domains d
    WHERE d.id IN (SELECT s.domain_id FROM patgate.pat_scopes s WHERE s.pat_id = token)
    ORDER BY d.id FOR KEY SHARE;
    PERFORM patgate.web_internal_lock_token(me, token, version);
    SELECT p.name, p.description, p.expires_at - p.issued_at AS life INTO it
    FROM patgate.pats p
    WHERE p.id = token AND p.revoked_at IS NULL AND p.expires_at > clock_timestamp();
    IF NOT FOUND THEN
        RAISE EXCEPTION 'the token is revoked or expired; create a new one'
            USING ERRCODE = 'PW011';
    END IF;
    SELECT patgate.web_internal_scope_text(d.slug, s.entity_type, s.entity_id, s.operation)
        INTO wrong
    FROM (SELECT x.domain_id, patgate.web_internal_held(me, x.domain_id, true) AS operations
          FROM (SELECT DISTINCT y.domain_id FROM patgate.pat_scopes y
                WHERE y.pat_id = token ORDER BY 1) AS x) AS held
    JOIN patgate.pat_scopes s ON s.pat_id = token AND s.domain_id = held.domain_id
    JOIN patgate.domains d ON d.id = s.domain_id
    WHERE s.operation <> ALL (held.operations) LIMIT 1;
    IF FOUND THEN
        RAISE EXCEPTION 'you may not grant the scope `%` of this token any more; remove it first',
            wrong USING ERRCODE = 'PW002';
    END IF;
    SELECT * INTO allowed FROM patgate.policy;
    IF (SELECT count(*) FROM patgate.pats p WHERE p.user_id = (me).user_id)
        >= allowed.tokens_per_user
    THEN
        RAISE EXCEPTION 'you have % tokens; delete some first', allowed.tokens_per_user
            USING ERRCODE = 'PW013';
    END IF;
    BEGIN
        -- The name is unique, so the old token makes room first.
        UPDATE patgate.pats p SET
            name = left(p.name, 176) || ' (replaced ' || right(p.id::text, 12) || ')',
            revoked_at = CASE WHEN overlap = 0 THEN clock_timestamp() END,
            expires_at = CASE WHEN overlap = 0 THEN p.expires_at
                ELSE least(p.expires_at, clock_timestamp() + grace) END
        WHERE p.id = token;
        INSERT INTO patgate.pats
            (id, user_id, name, description, digest, key_id, issued_at, expires_at)
        SELECT new_token, (me).user_id, it.name, it.description, new_digest, new_key, c.now,
               c.now + least(it.life, allowed.token_longest)
        FROM (SELECT clock_timestamp() AS now) AS c
        RETURNING expires_at INTO expiry;
    EXCEPTION
        WHEN unique_violation THEN
            RAISE EXCEPTION 'a token with this name exists' USING ERRCODE = 'PW005';
        WHEN check_violation OR not_null_violation THEN
            RAISE EXCEPTION 'the token is not valid' USING ERRCODE = 'PW008';
    END;
    INSERT INTO patgate.pat_scopes (id, pat_id, domain_id, entity_type, entity_id, operation)
    SELECT gen_random_uuid(), new_token, s.domain_id, s.entity_type, s.entity_id, s.operation
    FROM patgate.pat_scopes s WHERE s.pat_id = token;
    PERFORM patgate.web_internal_audit(
        me, address, request, 'token.rotate', token::text,
        jsonb_build_object('name', it.name, 'email', (me).email, 'replaced_by', new_token,
                           'grace_seconds', overlap / 1000000)
        || patgate.web_internal_scope_facts(token));
    PERFORM patgate.web_internal_audit(
        me, address, request, 'token.create', new_token::text,
        jsonb_build_object('name', it.name, 'email', (me).email, 'replaces', token,
                           'expires_at', patgate.web_internal_utc(expiry), 'key_id', new_key)
        || patgate.web_internal_scope_facts(new_token));
    RETURN patgate.web_internal_changed(
        jsonb_build_object('token', patgate.web_internal_token(new_token),
                           'replaced', patgate.web_internal_token(token)),
        ARRAY[token, new_token]);
END
$$;

CREATE OR REPLACE FUNCTION patgate.web_create_role(
    proof bytea, address inet, request text, domain text, role_name text, operations text[]
) RETURNS jsonb
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    me   CONSTANT patgate.web_actor := patgate.web_internal_changing(proof);
    role CONSTANT uuid := gen_random_uuid();
    at   record;
BEGIN
    at := patgate.web_internal_domain(me, domain, true);
    PERFORM patgate.web_internal_need(at.held, 'manage_role');
    PERFORM patgate.web_internal_not_beyond(at.held, operations);
    BEGIN
        INSERT INTO patgate.roles (id, domain_id, name) VALUES (role, at.id, role_name);
    EXCEPTION
        WHEN unique_violation THEN
            RAISE EXCEPTION 'the domain has a role with this name' USING ERRCODE = 'PW005';
        WHEN check_violation OR not_null_violation THEN
            RAISE EXCEPTION 'the name of the role is not valid' USING ERRCODE = 'PW008';
    END;
    INSERT INTO patgate.role_operations (role_id, operation)
    SELECT DISTINCT role, o FROM unnest(operations) o;
    PERFORM patgate.web_internal_audit(
        me, address, request, 'role.create', role::text,
        jsonb_build_object('domain', at.slug, 'role', role_name, 'operations', (
            SELECT coalesce(jsonb_agg(o.operation ORDER BY o.operation), '[]')
            FROM patgate.role_operations o WHERE o.role_id = role)));
    RETURN patgate.web_internal_changed('null');
END
$$;

-- Adds operations to a role, or takes them from it.
CREATE OR REPLACE FUNCTION patgate.web_change_role(
    proof bytea, address inet, request text, domain text, role_name text, added text[],
    taken text[]
) RETURNS jsonb
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    me CONSTANT patgate.web_actor := patgate.web_internal_changing(proof);
    at record;
    it record;
BEGIN
    at := patgate.web_internal_domain(me, domain, true);
    PERFORM patgate.web_internal_need(at.held, 'manage_role');
    it := patgate.web_internal_role(at.held, at.id, role_name);
    PERFORM patgate.web_internal_not_beyond(at.held, added);
    IF cardinality(added) > 0 THEN
        INSERT INTO patgate.role_operations (role_id, operation)
        SELECT it.role, o FROM unnest(added) o ON CONFLICT DO NOTHING;
        PERFORM patgate.web_internal_audit(
            me, address, request, 'role.grant', it.role::text,
            jsonb_build_object('domain', at.slug, 'role', role_name, 'operations', (
                SELECT jsonb_agg(DISTINCT o) FROM unnest(added) o)));
    END IF;
    IF cardinality(taken) > 0 THEN
        DELETE FROM patgate.role_operations o
        WHERE o.role_id = it.role AND o.operation = ANY (taken);
        PERFORM patgate.web_internal_audit(
            me, address, request, 'role.revoke', it.role::text,
            jsonb_build_object('domain', at.slug, 'role', role_name, 'operations', (
                SELECT coalesce(jsonb_agg(o.operation), '[]') FROM patgate.operations o
                WHERE o.operation = ANY (taken))));
    END IF;
    RETURN patgate.web_internal_changed(
        'null', patgate.web_internal_tokens_of_role(it.role));
END
$$;

-- The lines about a domain, its roles, and the tokens that have or had a scope in it, the latest first, for
-- those with `audit_log_read` there. Of a token's scopes, only those in the domain are shown.
--
-- Lines about tokens name their domains by ids, in `domains`. Those of commands, and those from before that,
-- name scopes by the slug, as lines about roles do, which another domain may have had before. So the slug
-- counts only since the domain has it, and a role of another domain is none of this one.
CREATE FUNCTION patgate.web_domain_audit_log(
    proof bytea, domain text, who text, what text, about text, before bigint, most bigint
) RETURNS jsonb
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    me    CONSTANT patgate.web_actor := patgate.web_internal_actor(proof);
    at    record;
    -- The first line in which the slug is this domain's; NULL if the log does not say.
    since bigint;
    made  timestamptz;
    -- A line has a scope as an object with the member `domain`, or as a text that begins with it.
    in_it CONSTANT jsonpath :=
        '$[*] ? (@.domain == $id || @.domain == $slug || @ starts with $by_id || @ starts with $by_slug)';
    its_id    jsonb;
    its_names jsonb;
BEGIN
    at := patgate.web_internal_domain(me, domain, false);
    PERFORM patgate.web_internal_need(at.held, 'audit_log_read');
    SELECT max(l.id) INTO since FROM patgate.audit_log l
    WHERE l.object = at.id::text AND (
        l.action = 'domain.create' OR l.details ->> 'slug_before' <> l.details ->> 'slug');
    SELECT d.created_at INTO made FROM patgate.domains d WHERE d.id = at.id;
    its_id := jsonb_build_object('id', at.id, 'slug', at.id, 'by_id', at.id || ':',
                                 'by_slug', at.id || ':');
    its_names := its_id || jsonb_build_object('slug', at.slug, 'by_slug', at.slug || ':');
    RETURN (
        SELECT coalesce(jsonb_agg(jsonb_build_object(
            'id', l.id, 'at', patgate.web_internal_utc(l.at), 'actor', l.actor,
            'action', l.action, 'object', l.object,
            'details', CASE
                WHEN l.details ? 'domains' AND l.details ? 'scopes' THEN l.details - 'domains'
                    || jsonb_build_object(
                        'scopes_total', coalesce(
                            l.details #> ARRAY['domains', at.id::text, 'scopes'], '0'),
                        'scopes', (
                            SELECT coalesce(jsonb_agg(s.scope ORDER BY s.place), '[]')
                            FROM jsonb_array_elements_text(l.details -> 'scopes')
                                WITH ORDINALITY AS s (scope, place)
                            WHERE starts_with(s.scope, (
                                l.details #>> ARRAY['domains', at.id::text, 'slug']) || ':')))
                WHEN l.details ? 'domains' THEN l.details - 'domains'
                WHEN l.details ? 'scopes'
                THEN l.details || jsonb_build_object('scopes', jsonb_path_query_array(
                    l.details -> 'scopes', in_it, l.names))
                ELSE l.details END,
            'request_id', l.request_id, 'method', l.method,
            'address', CASE WHEN (me).elevated OR l.actor = 'web:' || (me).email
                THEN host(l.address) END,
            'session', CASE WHEN (me).elevated OR l.actor = 'web:' || (me).email
                THEN l.session END,
            'login', CASE WHEN (me).elevated THEN l.login END)
            ORDER BY l.id DESC), '[]')
        FROM (
            SELECT a.*, known.names
            FROM patgate.audit_log a
            CROSS JOIN LATERAL (
                SELECT CASE WHEN coalesce(a.id >= since, a.at >= made)
                    THEN its_names ELSE its_id END AS names
                ) AS known
            WHERE (a.object = at.id::text
                   OR (starts_with(a.action, 'role.') AND (
                       a.object IN (SELECT r.id::text FROM patgate.roles r
                                    WHERE r.domain_id = at.id)
                       OR (a.details -> 'domain' IN (known.names -> 'id', known.names -> 'slug')
                           AND a.object NOT IN (SELECT r.id::text FROM patgate.roles r
                                                WHERE r.domain_id <> at.id))))
                   OR (starts_with(a.action, 'token.') AND (
                       CASE WHEN a.details ? 'domains' THEN a.details -> 'domains' ? at.id::text
                       ELSE jsonb_path_exists(a.details -> 'scopes', in_it, known.names)
                           -- Looked up line by line: a set of all tokens may not fit into the memory
                           -- for a hash table, and is then read from its beginning for each line.
                           OR EXISTS (
                               SELECT FROM patgate.pat_scopes s
                               WHERE s.domain_id = at.id AND s.pat_id = CASE
                                   WHEN a.object ~ '^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$'
                                   THEN a.object::uuid END)
                           OR EXISTS (
                               SELECT FROM patgate.former_tokens f
                               WHERE f.token = a.object AND f.domains @> ARRAY[at.id])
                       END)))
              AND (who IS NULL OR a.actor = who)
              AND (what IS NULL OR a.action = what OR starts_with(a.action, what || '.'))
              AND (about IS NULL OR a.object = about)
              AND (before IS NULL OR a.id < before)
            ORDER BY a.id DESC LIMIT least(greatest(most, 0), 1000)) AS l);
END
$$;

SET LOCAL ROLE patgate_migrate;
REVOKE CREATE ON SCHEMA patgate FROM patgate_web_functions;
REVOKE EXECUTE ON ALL FUNCTIONS IN SCHEMA patgate FROM PUBLIC;
GRANT EXECUTE ON FUNCTION
    patgate.web_rotate_token, patgate.web_sessions, patgate.web_domain_audit_log
TO patgate_web;

-- A function that waits for a lock gives up, also one that was made after 0020, or replaced.
DO $$
DECLARE
    own regprocedure;
BEGIN
    FOR own IN SELECT p.oid FROM pg_proc p
        WHERE p.pronamespace = 'patgate'::regnamespace AND p.prosecdef
          AND starts_with(p.proname, 'web_')
    LOOP
        EXECUTE format('ALTER FUNCTION %s SET lock_timeout = %L', own, '5s');
    END LOOP;
END
$$;
