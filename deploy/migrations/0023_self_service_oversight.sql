-- What platform administrators see of the replicas. The audit log of a domain is in 0028, without an index:
-- migrations 0016 to 0021 hold locks that lookups wait for, and a long log takes seconds to index. Errors
-- are listed in 0017.

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

SET LOCAL ROLE patgate_migrate;
REVOKE CREATE ON SCHEMA patgate FROM patgate_web_functions;
REVOKE EXECUTE ON ALL FUNCTIONS IN SCHEMA patgate FROM PUBLIC;
GRANT EXECUTE ON FUNCTION patgate.web_fleet TO patgate_web;
