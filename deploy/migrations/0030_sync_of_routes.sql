-- What `patgate sync` and `patgate export` read: where backends are, and nothing of their credentials.

GRANT USAGE ON SCHEMA patgate TO patgate_sync;
GRANT SELECT (name, url, kind) ON patgate.backends TO patgate_sync;
GRANT SELECT ON patgate.schema_version, patgate.installation TO patgate_sync;
GRANT EXECUTE ON FUNCTION patgate.identity, patgate.place, patgate.applied_migrations
    TO patgate_sync;
