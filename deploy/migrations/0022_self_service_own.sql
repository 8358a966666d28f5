-- What users see of, and do with, their own sessions and tokens beyond 0017 and 0018: rotation, the list
-- of sessions, and the facts behind a decision. Errors are listed in 0017.

-- Operators list the sessions that count, which are those of the user's present epoch.
GRANT SELECT (epoch) ON patgate.sessions TO patgate_admin;

GRANT CREATE ON SCHEMA patgate TO patgate_web_functions;
SET LOCAL ROLE patgate_web_functions;

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
    me      CONSTANT patgate.web_actor := patgate.web_internal_changing(proof);
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
                           'grace_seconds', overlap / 1000000));
    PERFORM patgate.web_internal_audit(
        me, address, request, 'token.create', new_token::text,
        jsonb_build_object('name', it.name, 'email', (me).email, 'replaces', token,
                           'expires_at', patgate.web_internal_utc(expiry), 'key_id', new_key));
    RETURN patgate.web_internal_changed(
        jsonb_build_object('token', patgate.web_internal_token(new_token),
                           'replaced', patgate.web_internal_token(token)),
        ARRAY[token, new_token]);
END
$$;

-- The actor's sessions that count, the latest first. The same conditions as in `web_internal_actor`,
-- as 0026 has it.
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
            'last_used_at', patgate.web_internal_utc(s.used_at),
            'ends_at', patgate.web_internal_utc(s.begun_at + p.session_longest))
            ORDER BY s.begun_at DESC, s.id), '[]')
        FROM patgate.sessions s
        JOIN patgate.users u ON u.id = s.user_id AND u.enabled AND u.session_epoch = s.epoch
        CROSS JOIN patgate.policy p
        WHERE s.user_id = (me).user_id
          AND s.begun_at + p.session_longest > clock_timestamp()
          AND s.used_at + p.session_idle > clock_timestamp()
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

-- Ends one of the actor's sessions, by its id. Another user's session does not exist.
CREATE FUNCTION patgate.web_end_own_session(
    proof bytea, address inet, request text, session uuid
) RETURNS void
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    me CONSTANT patgate.web_actor := patgate.web_internal_changing(proof);
BEGIN
    DELETE FROM patgate.sessions s
    WHERE s.id = web_end_own_session.session AND s.user_id = (me).user_id;
    IF NOT FOUND THEN
        RAISE EXCEPTION 'the session does not exist, or has ended' USING ERRCODE = 'PW003';
    END IF;
    PERFORM patgate.web_internal_audit(
        me, web_end_own_session.address, request, 'session.end', (me).user_id::text,
        jsonb_build_object('email', (me).email, 'ended', web_end_own_session.session));
END
$$;

-- What decides a request with one of the actor's own tokens, as src/resolve/postgres.rs reads it, without
-- digests, backends and credentials. `domain` is what the request names.
--
-- A domain in which the actor may do nothing does not exist here. If a scope of the token names it all
-- the same, the token already shows its slug; then it is said to exist, and nothing more is said: the
-- owner has no right in it, so nothing else of it takes part in the decision. A platform administrator's
-- token has every right in the domains that its scopes name, whatever the session.
CREATE FUNCTION patgate.web_why(proof bytea, token uuid, domain text) RETURNS jsonb
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    me      CONSTANT patgate.web_actor := patgate.web_internal_actor(proof);
    it      patgate.domains;
    facts   jsonb;
    of_all  boolean;
    scoped  boolean;
    visible boolean;
BEGIN
    SELECT u.platform_admin, jsonb_build_object(
        'owner', p.user_id, 'owner_enabled', u.enabled, 'platform_admin', u.platform_admin,
        'revoked', p.revoked_at IS NOT NULL,
        'issued_at', (least(greatest(extract(epoch FROM p.issued_at), -9e12), 9e12)
                      * 1000000)::bigint,
        'expires_at', (least(extract(epoch FROM p.expires_at), 9e12) * 1000000)::bigint,
        'grants', (
            SELECT coalesce(jsonb_agg(jsonb_build_object(
                'domain', d.id, 'slug', d.slug, 'scopes', s.scopes,
                'permitted', (
                    SELECT coalesce(jsonb_agg(DISTINCT o.operation), '[]')
                    FROM patgate.roles r
                    JOIN patgate.role_members m ON m.role_id = r.id AND m.user_id = p.user_id
                    JOIN patgate.role_operations o ON o.role_id = r.id
                    WHERE r.domain_id = d.id))), '[]')
            FROM (SELECT x.domain_id, jsonb_agg(jsonb_build_array(
                      x.entity_type, x.entity_id, x.operation)) AS scopes
                  FROM patgate.pat_scopes x WHERE x.pat_id = p.id GROUP BY x.domain_id) s
            JOIN patgate.domains d ON d.id = s.domain_id))
        INTO of_all, facts
    FROM patgate.pats p JOIN patgate.users u ON u.id = p.user_id
    WHERE p.id = token AND p.user_id = (me).user_id;
    IF NOT FOUND THEN
        RAISE EXCEPTION 'the token does not exist' USING ERRCODE = 'PW003';
    END IF;
    SELECT d.* INTO it FROM patgate.domains d
    WHERE d.slug = web_why.domain OR d.id::text = web_why.domain;
    scoped := EXISTS (SELECT FROM patgate.pat_scopes s
                      WHERE s.pat_id = token AND s.domain_id = it.id);
    visible := it.id IS NOT NULL AND (
        (of_all AND scoped) OR cardinality(patgate.web_internal_held(me, it.id, false)) > 0);
    RETURN jsonb_build_object(
        'now', (extract(epoch FROM clock_timestamp()) * 1000000)::bigint,
        'token', facts,
        'domain', CASE
            WHEN visible THEN jsonb_build_object(
                'id', it.id, 'slug', it.slug, 'enabled', it.enabled, 'all_models', it.all_models,
                'models', (SELECT coalesce(jsonb_agg(m.model ORDER BY m.model), '[]')
                           FROM patgate.domain_models m
                           WHERE m.domain_id = it.id AND m.model <> '(none) *'))
            WHEN scoped THEN jsonb_build_object(
                'id', it.id, 'slug', it.slug, 'enabled', true, 'all_models', false,
                'models', jsonb_build_array()) END);
END
$$;

SET LOCAL ROLE patgate_migrate;
REVOKE CREATE ON SCHEMA patgate FROM patgate_web_functions;
REVOKE EXECUTE ON ALL FUNCTIONS IN SCHEMA patgate FROM PUBLIC;
GRANT EXECUTE ON FUNCTION
    patgate.web_rotate_token, patgate.web_sessions, patgate.web_end_own_session, patgate.web_why
TO patgate_web;
