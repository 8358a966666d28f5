-- What users do with their own tokens. Errors are listed in 0017.
--
-- A token is granted what its owner may do in that session: by their roles, or as a platform
-- administrator who has lately proven the password. So a session that only a process vouches for gives
-- a platform administrator's token nothing that their roles do not give.

GRANT CREATE ON SCHEMA patgate TO patgate_web_functions;
SET LOCAL ROLE patgate_web_functions;

-- The operations that the actor holds in a domain. With `hold`, the rows that give them are locked
-- until the transaction ends.
CREATE FUNCTION patgate.web_internal_held(me patgate.web_actor, domain uuid, hold boolean)
RETURNS text[]
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    IF (me).elevated THEN
        RETURN ARRAY(SELECT o.operation FROM patgate.operations o ORDER BY 1);
    END IF;
    IF hold THEN
        RETURN ARRAY(
            SELECT DISTINCT held.operation FROM (
                SELECT o.operation
                FROM patgate.role_members m
                JOIN patgate.roles r ON r.id = m.role_id
                JOIN patgate.role_operations o ON o.role_id = r.id
                WHERE m.user_id = (me).user_id AND r.domain_id = domain
                FOR KEY SHARE) AS held
            ORDER BY 1);
    END IF;
    RETURN ARRAY(
        SELECT DISTINCT o.operation
        FROM patgate.role_members m
        JOIN patgate.roles r ON r.id = m.role_id
        JOIN patgate.role_operations o ON o.role_id = r.id
        WHERE m.user_id = (me).user_id AND r.domain_id = domain
        ORDER BY 1);
END
$$;

-- The scopes that a request lists: [{domain, entity_type, entity_id, operations}], where the domain is
-- a slug or an id. `domain_id` is NULL if there is no such domain.
CREATE FUNCTION patgate.web_internal_scopes(scopes jsonb)
RETURNS TABLE (domain text, domain_id uuid, entity_type text, entity_id text, operation text)
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
    SELECT s.domain, d.id, s.entity_type, s.entity_id, o.operation
    FROM jsonb_to_recordset(scopes)
        AS s (domain text, entity_type text, entity_id text, operations jsonb)
    CROSS JOIN LATERAL jsonb_array_elements_text(s.operations) AS o (operation)
    LEFT JOIN patgate.domains d ON d.slug = s.domain OR d.id::text = s.domain
$$;

CREATE FUNCTION patgate.web_internal_scope_text(
    domain text, entity_type text, entity_id text, operation text
) RETURNS text
LANGUAGE sql IMMUTABLE SET search_path = pg_catalog, pg_temp AS $$
    SELECT left(concat_ws(':', domain, entity_type, entity_id, operation), 300)
$$;

-- Gives a token scopes that the actor may grant, or fails.
CREATE FUNCTION patgate.web_internal_grant(me patgate.web_actor, token uuid, scopes jsonb)
RETURNS void
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    most   CONSTANT integer := 500;
    wanted record;
    wrong  text;
BEGIN
    -- The words first, which depend on nobody's rights.
    SELECT patgate.web_internal_scope_text(s.domain, s.entity_type, s.entity_id, s.operation)
        INTO wrong
    FROM patgate.web_internal_scopes(scopes) s
    WHERE s.domain IS NULL OR s.entity_id IS NULL
       OR length(s.entity_id) NOT BETWEEN 1 AND 256 OR s.entity_id ~ '[[:cntrl:]]'
       OR (s.entity_id <> '*' AND strpos(s.entity_id, '*') > 0)
       OR (s.entity_type = 'domains' AND s.entity_id <> '*'
           AND s.entity_id IS DISTINCT FROM s.domain_id::text)
       OR NOT EXISTS (SELECT FROM patgate.entity_operations e
                      WHERE e.entity_type = s.entity_type AND e.operation = s.operation)
    LIMIT 1;
    IF FOUND THEN
        RAISE EXCEPTION 'the scope `%` is not valid', wrong USING ERRCODE = 'PW008';
    END IF;
    -- A domain that does not exist, and one in which the actor may do nothing, are the same.
    FOR wanted IN
        SELECT s.domain, s.domain_id, patgate.web_internal_held(me, s.domain_id, true) AS held
        FROM (SELECT DISTINCT x.domain, x.domain_id
              FROM patgate.web_internal_scopes(scopes) x ORDER BY 2, 1) s
    LOOP
        SELECT patgate.web_internal_scope_text(s.domain, s.entity_type, s.entity_id, s.operation)
            INTO wrong
        FROM patgate.web_internal_scopes(scopes) s
        WHERE s.domain = wanted.domain
          AND (wanted.domain_id IS NULL OR s.operation <> ALL (wanted.held))
        LIMIT 1;
        IF FOUND THEN
            RAISE EXCEPTION 'you may not grant the scope `%`: you may not do that yourself', wrong
                USING ERRCODE = 'PW002';
        END IF;
    END LOOP;
    INSERT INTO patgate.pat_scopes (id, pat_id, domain_id, entity_type, entity_id, operation)
    SELECT gen_random_uuid(), token, s.domain_id, s.entity_type, s.entity_id, s.operation
    FROM patgate.web_internal_scopes(scopes) s
    ON CONFLICT DO NOTHING;
    IF (SELECT count(*) FROM patgate.pat_scopes s WHERE s.pat_id = token) > most THEN
        RAISE EXCEPTION 'a token may have at most % scopes', most USING ERRCODE = 'PW013';
    END IF;
END
$$;

-- Keeps the domains of scopes from being deleted. Before the token is locked: a revocation of all
-- tokens of a domain locks in this order.
CREATE FUNCTION patgate.web_internal_hold_domains(scopes jsonb) RETURNS void
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    IF (CASE WHEN jsonb_typeof(scopes) = 'array' THEN EXISTS (
            SELECT FROM jsonb_array_elements(scopes) AS s (scope)
            WHERE CASE WHEN jsonb_typeof(s.scope -> 'operations') = 'array'
                  THEN jsonb_array_length(s.scope -> 'operations') = 0 ELSE true END)
        ELSE true END)
    THEN
        RAISE EXCEPTION 'scopes are a list of objects that list operations'
            USING ERRCODE = 'PW008';
    END IF;
    PERFORM FROM patgate.domains d
    WHERE d.id IN (SELECT s.domain_id FROM patgate.web_internal_scopes(scopes) s)
    ORDER BY d.id FOR KEY SHARE;
END
$$;

-- Changes with everything that is shown of a token. Not with its last use.
CREATE FUNCTION patgate.web_internal_version(token uuid) RETURNS text
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
    SELECT substr(encode(sha256(convert_to(jsonb_build_array(
        p.id, p.user_id, p.name, p.description, p.key_id, extract(epoch FROM p.issued_at),
        extract(epoch FROM p.expires_at), extract(epoch FROM p.revoked_at),
        (SELECT jsonb_agg(jsonb_build_array(s.domain_id, s.entity_type, s.entity_id, s.operation)
                          ORDER BY s.domain_id, s.entity_type, s.entity_id, s.operation)
         FROM patgate.pat_scopes s WHERE s.pat_id = p.id)
        )::text, 'UTF8')), 'hex'), 1, 32)
    FROM patgate.pats p WHERE p.id = token
$$;

CREATE FUNCTION patgate.web_internal_token(token uuid) RETURNS jsonb
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
        'scopes', coalesce((
            SELECT jsonb_agg(jsonb_build_object(
                'id', s.id, 'domain', d.slug, 'entity_type', s.entity_type,
                'entity_id', s.entity_id, 'operation', s.operation,
                'permitted', u.platform_admin OR EXISTS (
                    SELECT FROM patgate.role_members m
                    JOIN patgate.roles r ON r.id = m.role_id
                    JOIN patgate.role_operations o ON o.role_id = r.id
                    WHERE m.user_id = u.id AND r.domain_id = s.domain_id
                      AND o.operation = s.operation))
                ORDER BY d.slug, s.entity_type, s.entity_id, s.operation)
            FROM patgate.pat_scopes s JOIN patgate.domains d ON d.id = s.domain_id
            WHERE s.pat_id = p.id), '[]'))
    FROM patgate.pats p JOIN patgate.users u ON u.id = p.user_id
    WHERE p.id = token
$$;

-- Locks a token of the actor; with `anyones`, a platform administrator's hand reaches every token.
-- Fails if there is none, or if it is not at the version that the caller has seen.
CREATE FUNCTION patgate.web_internal_lock_token(
    me patgate.web_actor, token uuid, version text, anyones boolean DEFAULT false
) RETURNS void
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    PERFORM FROM patgate.pats p
    WHERE p.id = token AND (p.user_id = (me).user_id OR (anyones AND (me).elevated
          AND p.user_id <> 'ca4a4700-0000-8000-8000-000000000000'))
    FOR UPDATE;
    IF NOT FOUND THEN
        RAISE EXCEPTION 'the token does not exist' USING ERRCODE = 'PW003';
    END IF;
    IF version <> patgate.web_internal_version(token) THEN
        RAISE EXCEPTION 'the token was changed meanwhile' USING ERRCODE = 'PW004';
    END IF;
END
$$;

-- When a token expires: at that moment, or so many microseconds from now; NULL if neither is given.
CREATE FUNCTION patgate.web_internal_expiry(life bigint, until timestamptz) RETURNS timestamptz
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
    SELECT coalesce(until, clock_timestamp() + life * interval '1 microsecond')
$$;

-- Creates a token. The process has made its id, its secret and the digest of that. A request that is
-- repeated under its key creates nothing, and returns the token of the first one without its secret,
-- which is kept nowhere.
CREATE FUNCTION patgate.web_create_token(
    proof bytea, address inet, request text, token uuid, token_name text,
    token_description text, token_digest bytea, token_key text, life bigint, until timestamptz,
    scopes jsonb, idempotency_key text
) RETURNS jsonb
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    me      CONSTANT patgate.web_actor := patgate.web_internal_changing(proof);
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
                           patgate.web_internal_utc(expiry), 'key_id', token_key,
                           'scopes', scopes));
    RETURN patgate.web_internal_changed(jsonb_build_object(
        'created', true, 'token_id', token, 'token', patgate.web_internal_token(token)),
        ARRAY[token]);
END
$$;

-- The actor's tokens, or with `everyones` those of all users. `part` occurs in their names; `state` is
-- one that `web_internal_token` shows, or NULL.
CREATE FUNCTION patgate.web_tokens(
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
    SELECT coalesce(jsonb_agg(patgate.web_internal_token(i.id) ORDER BY i.place), '[]') INTO result
    FROM unnest(ids) WITH ORDINALITY AS i (id, place);
    RETURN jsonb_build_object('total', total, 'tokens', result);
END
$$;

CREATE FUNCTION patgate.web_internal_refuse_admin(me patgate.web_actor) RETURNS void
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    IF (me).method = 'local'
        AND EXISTS (SELECT FROM patgate.users u WHERE u.id = (me).user_id AND u.platform_admin)
    THEN
        RAISE EXCEPTION 'confirm your password first' USING ERRCODE = 'PW009';
    END IF;
    RAISE EXCEPTION 'only a platform administrator who signed in with a password may do this'
        USING ERRCODE = 'PW002';
END
$$;

CREATE FUNCTION patgate.web_token(proof bytea, token uuid) RETURNS jsonb
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    me CONSTANT patgate.web_actor := patgate.web_internal_actor(proof);
BEGIN
    PERFORM FROM patgate.pats p
    WHERE p.id = token AND (p.user_id = (me).user_id OR ((me).elevated
          AND p.user_id <> 'ca4a4700-0000-8000-8000-000000000000'));
    IF NOT FOUND THEN
        RAISE EXCEPTION 'the token does not exist' USING ERRCODE = 'PW003';
    END IF;
    RETURN patgate.web_internal_token(token);
END
$$;

-- Changes name or description; NULL leaves it.
CREATE FUNCTION patgate.web_update_token(
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
                           'name_before', old_name, 'described', new_description IS NOT NULL));
    RETURN patgate.web_internal_changed(patgate.web_internal_token(token), ARRAY[token]);
END
$$;

-- Gives a live token a new secret; the old one stops working. A new secret is a new grant: the actor
-- must be able to grant every scope of the token. Without `life` and `until`, the expiry stays.
CREATE FUNCTION patgate.web_reset_token(
    proof bytea, address inet, request text, token uuid, version text, token_digest bytea,
    token_key text, life bigint, until timestamptz
) RETURNS jsonb
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    me    CONSTANT patgate.web_actor := patgate.web_internal_changing(proof);
    wrong text;
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
    BEGIN
        UPDATE patgate.pats p SET digest = token_digest, key_id = token_key,
            issued_at = clock_timestamp(),
            expires_at = coalesce(patgate.web_internal_expiry(life, until), p.expires_at)
        WHERE p.id = token;
    EXCEPTION WHEN check_violation OR not_null_violation THEN
        RAISE EXCEPTION 'a token must expire in the future' USING ERRCODE = 'PW008';
    END;
    PERFORM patgate.web_internal_audit(
        me, address, request, 'token.reset_secret', token::text,
        jsonb_build_object('email', (me).email, 'name', p.name, 'key_id', p.key_id, 'expires_at',
                           patgate.web_internal_utc(p.expires_at)))
    FROM patgate.pats p WHERE p.id = token;
    RETURN patgate.web_internal_changed(patgate.web_internal_token(token), ARRAY[token]);
END
$$;

-- Revokes a token for good. One that is revoked already keeps its time.
CREATE FUNCTION patgate.web_revoke_token(proof bytea, address inet, request text, token uuid)
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
            jsonb_build_object('email', u.email, 'name', p.name))
        FROM patgate.pats p JOIN patgate.users u ON u.id = p.user_id WHERE p.id = token;
    END IF;
    RETURN patgate.web_internal_changed(patgate.web_internal_token(token), ARRAY[token]);
END
$$;

-- Deletes a token with its scopes.
CREATE FUNCTION patgate.web_delete_token(
    proof bytea, address inet, request text, token uuid, version text
) RETURNS jsonb
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    me   CONSTANT patgate.web_actor := patgate.web_internal_changing(proof);
    gone jsonb;
BEGIN
    PERFORM patgate.web_internal_lock_token(me, token, version, true);
    gone := patgate.web_internal_token(token);
    DELETE FROM patgate.pats p WHERE p.id = token;
    PERFORM patgate.web_internal_audit(
        me, address, request, 'token.delete', token::text,
        jsonb_build_object('email', gone -> 'owner', 'name', gone -> 'name', 'status',
                           gone -> 'status'));
    RETURN patgate.web_internal_changed('null', ARRAY[token]);
END
$$;

CREATE FUNCTION patgate.web_add_scopes(
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
        jsonb_build_object('email', (me).email, 'scopes', scopes));
    RETURN patgate.web_internal_changed(patgate.web_internal_token(token), ARRAY[token]);
END
$$;

-- Removes scopes by their ids and by what they are, or with NULL for both, all of them.
CREATE FUNCTION patgate.web_remove_scopes(
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
    SELECT coalesce(jsonb_agg(patgate.web_internal_scope_text(
            d.slug, g.entity_type, g.entity_id, g.operation)), '[]') INTO removed
    FROM gone g JOIN patgate.domains d ON d.id = g.domain_id;
    PERFORM patgate.web_internal_audit(
        me, address, request, 'token.remove_scope', token::text,
        jsonb_build_object('email', (me).email, 'scopes', removed));
    RETURN patgate.web_internal_changed(patgate.web_internal_token(token), ARRAY[token]);
END
$$;

-- What the actor may grant: the domains in which they may do something, what that is, and the models
-- that these domains list.
CREATE FUNCTION patgate.web_grantable(proof bytea) RETURNS jsonb
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    me CONSTANT patgate.web_actor := patgate.web_internal_actor(proof);
BEGIN
    RETURN (
        SELECT coalesce(jsonb_agg(jsonb_build_object(
            'id', d.id, 'slug', d.slug, 'name', d.name, 'enabled', d.enabled,
            'all_models', d.all_models, 'operations', to_jsonb(held.operations),
            'models', (SELECT coalesce(jsonb_agg(m.model ORDER BY m.model), '[]')
                       FROM patgate.domain_models m
                       WHERE m.domain_id = d.id AND m.model <> '(none) *'))
            ORDER BY d.slug), '[]')
        FROM patgate.domains d
        CROSS JOIN LATERAL (
            SELECT patgate.web_internal_held(me, d.id, false) AS operations) AS held
        WHERE cardinality(held.operations) > 0);
END
$$;

-- How many replicas have applied a change, and how many have not, by its transaction and the
-- microseconds since then; and to a platform administrator, which.
CREATE FUNCTION patgate.web_applied(proof bytea, xid text, ago bigint) RETURNS jsonb
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    me CONSTANT patgate.web_actor := patgate.web_internal_actor(proof);
BEGIN
    RETURN (
        SELECT jsonb_build_object(
            'applied', count(*) FILTER (WHERE r.applied),
            'missing', count(*) FILTER (WHERE NOT r.applied),
            'replicas', CASE WHEN (me).elevated THEN coalesce(jsonb_agg(jsonb_build_object(
                'name', r.name, 'applied', r.applied,
                'watermark', patgate.web_internal_utc(r.watermark)) ORDER BY r.name), '[]') END)
        FROM (SELECT x.name, x.watermark, coalesce(
                  pg_visible_in_snapshot(web_applied.xid::xid8, x.snapshot), true) AS applied
              FROM patgate.replicas x
              WHERE x.installation = patgate.identity()
                AND x.max_staleness + greatest(
                    x.watermark, clock_timestamp() - ago * interval '1 microsecond')
                    > clock_timestamp()
                AND pg_snapshot_xmax(x.snapshot) < '9223372036854775807') AS r);
END
$$;

SET LOCAL ROLE patgate_migrate;
REVOKE CREATE ON SCHEMA patgate FROM patgate_web_functions;
REVOKE EXECUTE ON ALL FUNCTIONS IN SCHEMA patgate FROM PUBLIC;
GRANT EXECUTE ON FUNCTION
    patgate.web_create_token, patgate.web_tokens, patgate.web_token, patgate.web_update_token,
    patgate.web_reset_token, patgate.web_revoke_token, patgate.web_delete_token,
    patgate.web_add_scopes, patgate.web_remove_scopes, patgate.web_grantable, patgate.web_applied
TO patgate_web;
