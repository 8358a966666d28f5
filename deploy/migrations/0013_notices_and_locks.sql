-- Nothing that other logins of the cluster do delays a change, and what each statement says about
-- the server costs little.

-- All databases of a cluster share one queue of notifications, and one lock that a transaction which
-- notifies takes as it commits. Any login can hold that lock for seconds, and fill the queue. So no
-- change notifies. The commands notify after they have committed, and replicas poll all the same.
DROP TRIGGER announce ON patgate.changes;
DROP FUNCTION patgate.announce_change();

-- Where this is: the system identifier and the database's oid. Neither changes while a backend lives,
-- which is as long as a plan is kept. So it is IMMUTABLE to the plan of patgate.identity(), which
-- asks once for each backend; reading the control file each time would take longer than the rest.
CREATE FUNCTION patgate.place() RETURNS text
LANGUAGE plpgsql IMMUTABLE SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    RETURN (SELECT s.system_identifier || '/' || d.oid
            FROM pg_control_system() s, pg_database d WHERE d.datname = current_database());
END
$$;
CREATE OR REPLACE FUNCTION patgate.identity() RETURNS text
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    RETURN (SELECT patgate.place() || '/' || i.id FROM patgate.installation i);
END
$$;

-- Whether the triggers that record changes are on; src/feed/recording.rs says what it is for. A
-- function, so that its plan is kept. It is STABLE: it sees what the statement sees that calls it.
--
-- The ids in pg_trigger have 32 bits; they become the latest ones before the end of the snapshot that
-- end so. Older ones than that are taken for newer than they are, which costs reading again, once in
-- four billion transactions.
CREATE FUNCTION patgate.recording(OUT off text, OUT switched bigint, OUT triggers bigint)
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    ended CONSTANT bigint := pg_snapshot_xmax(pg_current_snapshot())::text::bigint - 1;
BEGIN
    SELECT string_agg(relation || '.' || name, ', ' ORDER BY relation, name)
               FILTER (WHERE t.tgenabled IS DISTINCT FROM 'A'),
           coalesce(max(ended - ((ended - t.xmin::text::bigint) & 4294967295)), 0),
           coalesce(hashtextextended(
               string_agg(t.oid || ':' || t.xmin, ',' ORDER BY t.oid), 0), 0)
        INTO off, switched, triggers
    FROM unnest('{pats,pat_scopes,users,domains,domain_models,roles,role_operations,role_members,
                  backends}'::text[]) AS relation
    CROSS JOIN unnest('{record_change,record_truncation}'::text[]) AS name
    LEFT JOIN pg_trigger t
        ON t.tgrelid = to_regclass('patgate.' || relation) AND t.tgname = name;
END
$$;

-- As in 0010, but for its lock: a row that only patgate's own roles can lock, by this function, and
-- no key that any login may take. And it comes first in its transaction: what that had written before
-- would look like changes from the future to it.
CREATE OR REPLACE FUNCTION patgate.prune_changes() RETURNS boolean
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    slice CONSTANT integer := 10000;
    pruned  integer;
    horizon pg_snapshot;
BEGIN
    IF pg_current_xact_id_if_assigned() IS NOT NULL THEN
        RAISE EXCEPTION 'patgate.prune_changes() was called in a transaction that has written'
            USING ERRCODE = 'active_sql_transaction', HINT = 'Call it in a transaction of its own.';
    END IF;
    PERFORM FROM patgate.change_horizon FOR UPDATE SKIP LOCKED;
    IF NOT FOUND THEN
        RETURN false;
    END IF;
    -- A dump restored into another cluster brings ids from a future that this one has not reached.
    IF (SELECT pg_snapshot_xmax(snapshot) > pg_snapshot_xmax(pg_current_snapshot())
        FROM patgate.change_horizon)
        OR EXISTS (SELECT FROM patgate.changes
                   WHERE xid >= pg_snapshot_xmax(pg_current_snapshot())
                       AND xid <> pg_current_xact_id())
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

REVOKE EXECUTE ON ALL FUNCTIONS IN SCHEMA patgate FROM PUBLIC;
GRANT EXECUTE ON FUNCTION patgate.place, patgate.recording TO patgate_serve, patgate_admin;

UPDATE patgate.schema_version SET version = 2;
