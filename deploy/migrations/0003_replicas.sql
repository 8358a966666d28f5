-- Which replicas serve, and how far each has read the change feed. A row is a lease: renewed every
-- second, meaningless once the knowledge of its replica has expired.
CREATE TABLE patgate.replicas (
    id            uuid PRIMARY KEY,
    name          text NOT NULL CHECK (name ~ '^[A-Za-z0-9._:-]{1,200}$'),
    -- What its latest poll saw, and when that was.
    snapshot      pg_snapshot NOT NULL,
    watermark     timestamptz NOT NULL,
    -- How long it may go on answering from that.
    max_staleness interval NOT NULL
);

GRANT SELECT, INSERT, UPDATE, DELETE ON patgate.replicas TO patgate_serve;
GRANT SELECT ON patgate.replicas TO patgate_admin;
