-- Which migrations the database has. A release asks before it uses the database: one that lacks a
-- migration of the release is refused, also if the schema version is the same. The version goes up
-- once per release, and a release may have several migrations.

CREATE FUNCTION patgate.applied_migrations() RETURNS bigint[]
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
    SELECT ARRAY(SELECT m.version FROM patgate.migrations m ORDER BY m.version)
$$;
REVOKE EXECUTE ON FUNCTION patgate.applied_migrations FROM PUBLIC;
GRANT EXECUTE ON FUNCTION patgate.applied_migrations
    TO patgate_serve, patgate_admin, patgate_web_functions;

GRANT CREATE ON SCHEMA patgate TO patgate_web_functions;
SET LOCAL ROLE patgate_web_functions;

-- As in 0017, with the migrations. Replacing a function ends its settings.
CREATE OR REPLACE FUNCTION patgate.web_status() RETURNS jsonb
LANGUAGE sql SECURITY DEFINER SET search_path = pg_catalog, pg_temp SET lock_timeout = '5s' AS $$
    SELECT jsonb_build_object(
        'version', (SELECT v.version FROM patgate.schema_version v),
        'migrations', to_jsonb(patgate.applied_migrations()),
        'identity', patgate.identity(),
        'issuers', (SELECT coalesce(jsonb_agg(t.issuer ORDER BY t.issuer), '[]')
                    FROM patgate.issuers t WHERE t.enabled))
$$;

SET LOCAL ROLE patgate_migrate;
REVOKE CREATE ON SCHEMA patgate FROM patgate_web_functions;

UPDATE patgate.schema_version SET version = 3;
