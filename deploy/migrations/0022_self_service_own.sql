-- What users see of, and do with, their own sessions and tokens beyond 0017 and 0018: the end of one
-- session, and the facts behind a decision. The list of sessions, and rotation, are in 0028. Errors are
-- listed in 0017.

-- Operators list the sessions that count, which are those of the user's present epoch.
GRANT SELECT (epoch) ON patgate.sessions TO patgate_admin;

GRANT CREATE ON SCHEMA patgate TO patgate_web_functions;
SET LOCAL ROLE patgate_web_functions;

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
    patgate.web_end_own_session, patgate.web_why
TO patgate_web;
