-- What those who watch over others see: the replicas, for platform administrators, and the audit log of a
-- domain, for its auditors. Errors are listed in 0017.
--
-- No index on the audit log: the migrations before this one hold locks that lookups wait for, and a long
-- log takes seconds to index.

GRANT CREATE ON SCHEMA patgate TO patgate_web_functions;
SET LOCAL ROLE patgate_web_functions;

-- The replicas that serve from this database, or did until lately. `counts` means that a replica may
-- still answer from what it has read. `position` is the end of what its latest read could see, as a
-- transaction id; that of the database is beside it.
CREATE FUNCTION patgate.web_fleet(proof bytea) RETURNS jsonb
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    me  CONSTANT patgate.web_actor := patgate.web_internal_actor(proof);
    now CONSTANT timestamptz := clock_timestamp();
BEGIN
    IF NOT (me).elevated THEN
        PERFORM patgate.web_internal_refuse_admin(me);
    END IF;
    RETURN jsonb_build_object(
        'at', patgate.web_internal_utc(now),
        'position', pg_snapshot_xmax(pg_current_snapshot())::text::bigint,
        'replicas', (
            SELECT coalesce(jsonb_agg(jsonb_build_object(
                'name', x.name, 'counts', x.watermark + x.max_staleness > now,
                'position', pg_snapshot_xmax(x.snapshot)::text::bigint,
                'read_at', patgate.web_internal_utc(x.watermark),
                'lag_ms', greatest(0, extract(epoch FROM now - x.watermark) * 1000)::bigint,
                'max_staleness_ms', (extract(epoch FROM x.max_staleness) * 1000)::bigint)
                ORDER BY x.name, x.id), '[]')
            FROM patgate.replicas x
            WHERE x.installation = patgate.identity()
              AND x.watermark + 2 * x.max_staleness > now
              -- One that has ended may leave a lease that does not say how far it had read.
              AND pg_snapshot_xmax(x.snapshot) < '9223372036854775807'));
END
$$;

-- The lines about a domain, its roles, and the tokens that have a scope in it, the latest first, for
-- those with `audit_log_read` there. Of a token's scopes, only those in the domain are shown.
--
-- Lines about roles and scopes name the domain by its slug, which another domain may have had before. So
-- the slug counts only since the domain has it, and a role of another domain is none of this one.
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
            'details', CASE WHEN l.details ? 'scopes'
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
                       jsonb_path_exists(a.details -> 'scopes', in_it, known.names)
                       OR a.object IN (SELECT s.pat_id::text FROM patgate.pat_scopes s
                                       WHERE s.domain_id = at.id))))
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
GRANT EXECUTE ON FUNCTION patgate.web_fleet, patgate.web_domain_audit_log TO patgate_web;
