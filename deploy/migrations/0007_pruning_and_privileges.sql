-- Forgets changes that every reader has had an hour to read, as much at once as any time-out allows,
-- and tells whether there is more. By snapshot, not by a row's time: a long transaction commits rows
-- that are old already. One caller a time does it; the others return.
DROP FUNCTION patgate.prune_changes();
CREATE FUNCTION patgate.prune_changes() RETURNS boolean
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    slice CONSTANT integer := 10000;
    pruned  integer;
    horizon pg_snapshot;
BEGIN
    IF NOT pg_try_advisory_xact_lock(hashtextextended('patgate prune', 0)) THEN
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
REVOKE ALL ON FUNCTION patgate.prune_changes FROM PUBLIC;
GRANT EXECUTE ON FUNCTION patgate.prune_changes TO patgate_serve, patgate_admin;

-- Everybody may execute a function unless told otherwise, and whoever may execute a trigger's
-- function may put it on a table of their own: with the login of a replica, on a temporary one, to
-- fill the feed in the owner's name. Triggers that exist go on without it.
REVOKE EXECUTE ON ALL FUNCTIONS IN SCHEMA patgate FROM PUBLIC;
