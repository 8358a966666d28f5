-- When tokens were last used, which 0012 has replicas write here and no longer beside the token. The
-- table has no foreign key: its check would lock the token, and a cascade would wait for a lock of
-- the note. It is filled first of all. All migrations are one transaction, the next statements lock
-- tables of which look-ups read, and a million notes take seconds.
CREATE TABLE patgate.pat_uses (
    pat_id       uuid PRIMARY KEY,
    last_used_at timestamptz NOT NULL
);
INSERT INTO patgate.pat_uses (pat_id, last_used_at)
SELECT id, last_used_at FROM patgate.pats WHERE last_used_at IS NOT NULL;

-- Names this installation, so that nothing which several of them share (a cluster, a Redis, a login)
-- makes one take another's knowledge for its own.
--
-- A database is one of a cluster (its oid, and the cluster's system identifier), but a cluster that
-- is copied file by file has both in common with its original. Hence a random id, which a copy is
-- given anew by `patgate installation renew`. A standby has all three of its primary, and keeps them
-- when it is promoted.
CREATE TABLE patgate.installation (
    id        uuid NOT NULL,
    singleton boolean PRIMARY KEY DEFAULT true CHECK (singleton)
);
INSERT INTO patgate.installation (id) VALUES (gen_random_uuid());

GRANT SELECT ON patgate.installation TO patgate_serve, patgate_admin;
GRANT UPDATE (id) ON patgate.installation TO patgate_admin;

-- All three, as src/installation.rs writes them.
CREATE FUNCTION patgate.identity() RETURNS text
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
    SELECT s.system_identifier || '/' || d.oid || '/' || i.id
    FROM pg_control_system() s, pg_database d, patgate.installation i
    WHERE d.datname = current_database()
$$;
REVOKE ALL ON FUNCTION patgate.identity FROM PUBLIC;
GRANT EXECUTE ON FUNCTION patgate.identity TO patgate_serve, patgate_admin;

-- Leases that came with a dump or a copy are not those of our replicas. The default is for replicas
-- of the release before, which do not write it.
ALTER TABLE patgate.replicas ADD COLUMN installation text NOT NULL DEFAULT patgate.identity();

-- Replicas of the release before listen on the old channel, and poll until they are replaced.
CREATE OR REPLACE FUNCTION patgate.announce_change() RETURNS trigger
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    PERFORM pg_notify('patgate_changes_' || replace(i.id::text, '-', ''), '')
    FROM patgate.installation i;
    RETURN NULL;
END
$$;

-- As in 0007, but for the key of its lock.
CREATE OR REPLACE FUNCTION patgate.prune_changes() RETURNS boolean
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    slice CONSTANT integer := 10000;
    pruned  integer;
    horizon pg_snapshot;
BEGIN
    IF NOT (SELECT pg_try_advisory_xact_lock(hashtextextended('patgate prune ' || i.id, 0))
            FROM patgate.installation i)
    THEN
        RETURN false;
    END IF;
    -- A dump restored into another cluster brings ids from a future that this one has not reached.
    IF (SELECT pg_snapshot_xmax(snapshot) > pg_snapshot_xmax(pg_current_snapshot())
        FROM patgate.change_horizon)
        OR EXISTS (SELECT FROM patgate.changes
                   WHERE xid >= pg_snapshot_xmax(pg_current_snapshot()))
    THEN
        -- Those first; what is left goes the usual way. The horizon comes last: it has to see
        -- whatever was deleted, and what commits in between may be.
        DELETE FROM patgate.changes WHERE ctid = ANY (ARRAY(
            SELECT ctid FROM patgate.changes ORDER BY xid DESC LIMIT slice));
        GET DIAGNOSTICS pruned = ROW_COUNT;
        DELETE FROM patgate.change_marks;
        UPDATE patgate.change_horizon SET snapshot = pg_current_snapshot();
        RETURN pruned = slice;
    END IF;
    -- Marks are in the order of their snapshots, also when the clock was put back; or else the
    -- horizon would go back, behind changes that are gone.
    DELETE FROM patgate.change_marks WHERE at >= now();
    INSERT INTO patgate.change_marks DEFAULT VALUES;
    -- The horizon goes ahead of what is deleted: it says what may be gone, not what is.
    SELECT snapshot INTO horizon FROM patgate.change_marks
        WHERE at < now() - interval '1 hour' ORDER BY at DESC LIMIT 1;
    IF horizon IS NOT NULL THEN
        DELETE FROM patgate.change_marks WHERE at < now() - interval '1 hour';
        UPDATE patgate.change_horizon SET snapshot = horizon;
    ELSE
        SELECT snapshot INTO horizon FROM patgate.change_horizon;
    END IF;
    DELETE FROM patgate.changes WHERE ctid = ANY (ARRAY(
        SELECT ctid FROM patgate.changes
        WHERE xid < pg_snapshot_xmax(horizon) AND pg_visible_in_snapshot(xid, horizon)
        ORDER BY xid LIMIT slice));
    GET DIAGNOSTICS pruned = ROW_COUNT;
    RETURN pruned = slice;
END
$$;
