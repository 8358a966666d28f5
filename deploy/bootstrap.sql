-- The roles and the schema, whose owner is patgate_migrate. `patgate migrate` runs this first.
-- If the migrating login cannot create roles, an administrator of the cluster runs it once
-- (psql -v ON_ERROR_STOP=1 -f bootstrap.sql) and then grants patgate_migrate to that login.
--
-- Roles belong to the cluster, not to the database: they may exist already. An operator grants
-- patgate_serve, patgate_admin, patgate_web and patgate_sync to login roles of their own.
-- patgate_web_functions owns the functions that patgate_web may execute, and is granted to no login.
DO $$
DECLARE
    wanted text;
BEGIN
    FOREACH wanted IN ARRAY ARRAY['patgate_serve', 'patgate_admin', 'patgate_web',
                                  'patgate_sync', 'patgate_web_functions', 'patgate_migrate'] LOOP
        BEGIN
            IF NOT EXISTS (SELECT FROM pg_catalog.pg_roles WHERE rolname = wanted) THEN
                EXECUTE format('CREATE ROLE %I NOLOGIN', wanted);
            END IF;
        EXCEPTION WHEN duplicate_object OR unique_violation THEN
            -- Another database of this cluster is being migrated at the same time.
            NULL;
        END;
    END LOOP;

    -- From Postgres 16 on, a login that created a role can grant it, but cannot act as it yet.
    IF NOT pg_catalog.pg_has_role(
        current_user, 'patgate_migrate',
        CASE WHEN current_setting('server_version_num')::integer >= 160000
             THEN 'SET' ELSE 'MEMBER' END)
    THEN
        EXECUTE format('GRANT patgate_migrate TO %I', current_user);
    END IF;

    -- Migrations create the functions as their owner.
    IF NOT pg_catalog.pg_has_role(
        'patgate_migrate', 'patgate_web_functions',
        CASE WHEN current_setting('server_version_num')::integer >= 160000
             THEN 'SET' ELSE 'MEMBER' END)
    THEN
        GRANT patgate_web_functions TO patgate_migrate;
    END IF;

    -- Not CREATE SCHEMA IF NOT EXISTS, which needs CREATE on the database even if the schema exists.
    IF pg_catalog.to_regnamespace('patgate') IS NULL THEN
        CREATE SCHEMA patgate AUTHORIZATION patgate_migrate;
    END IF;
END
$$;
