-- What the login of a replica, or a stranger's, can lock or flood holds up no change, and what an
-- administrator's login writes to the audit log cannot be forged.

-- A login that may write pats.last_used_at can lock any token: SELECT … FOR UPDATE needs the right to
-- update some column. 0010 has moved the notes. The column stays for the release before, which can
-- no longer write it: it drops its notes, and counts them.
REVOKE UPDATE (last_used_at) ON patgate.pats FROM patgate_serve;
GRANT SELECT ON patgate.pat_uses TO patgate_serve, patgate_admin;

-- Replicas write by this function: only that tokens that exist are used now. Returns how many notes
-- were written. Notes that are a minute old at most stay; those that others have locked are passed
-- over.
CREATE FUNCTION patgate.note_uses(used uuid[]) RETURNS bigint
LANGUAGE sql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
    WITH due AS (
        SELECT u.pat_id FROM patgate.pat_uses u
        WHERE u.pat_id = ANY (used) AND u.last_used_at < now() - interval '1 minute'
          AND EXISTS (SELECT FROM patgate.pats p WHERE p.id = u.pat_id)
        ORDER BY u.pat_id FOR NO KEY UPDATE SKIP LOCKED
    ), renewed AS (
        UPDATE patgate.pat_uses u SET last_used_at = now() FROM due WHERE u.pat_id = due.pat_id
        RETURNING u.pat_id
    ), added AS (
        INSERT INTO patgate.pat_uses (pat_id, last_used_at)
        SELECT p.id, now() FROM patgate.pats p
        WHERE p.id = ANY (used)
          AND NOT EXISTS (SELECT FROM patgate.pat_uses u WHERE u.pat_id = p.id)
        ORDER BY p.id
        ON CONFLICT DO NOTHING
        RETURNING pat_id
    )
    SELECT (SELECT count(*) FROM renewed) + (SELECT count(*) FROM added)
$$;

-- Looks at the next 100 notes, deletes those of tokens that are gone, and returns where to go on;
-- NULL at the end.
CREATE FUNCTION patgate.sweep_uses(after uuid) RETURNS uuid
LANGUAGE sql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
    WITH looked AS (
        SELECT u.pat_id FROM patgate.pat_uses u WHERE u.pat_id > after ORDER BY u.pat_id LIMIT 100
    ), gone AS (
        SELECT u.pat_id FROM patgate.pat_uses u
        WHERE u.pat_id IN (SELECT l.pat_id FROM looked l)
          AND NOT EXISTS (SELECT FROM patgate.pats p WHERE p.id = u.pat_id)
        FOR UPDATE SKIP LOCKED
    ), swept AS (
        DELETE FROM patgate.pat_uses u USING gone WHERE u.pat_id = gone.pat_id
    )
    SELECT l.pat_id FROM looked l ORDER BY l.pat_id DESC LIMIT 1
$$;

-- The id and the time of a line are the database's to set, and so is the login. A login that could
-- choose an id could take the next one, and so make every audited command fail.
ALTER TABLE patgate.audit_log ADD COLUMN login text;
-- Not in one statement: lines that exist would get the login that migrates.
ALTER TABLE patgate.audit_log ALTER COLUMN login SET DEFAULT session_user;
REVOKE INSERT ON patgate.audit_log FROM patgate_admin;
GRANT INSERT (actor, action, object, details) ON patgate.audit_log TO patgate_admin;

-- All databases of a cluster share one queue of notifications, and any login can fill it. Then a
-- transaction that notifies fails as it commits: no token could be revoked. A notification only
-- saves the readers a part of 400 ms, so it is left out where the queue is half full.
CREATE OR REPLACE TRIGGER announce AFTER INSERT ON patgate.changes
    FOR EACH STATEMENT WHEN (pg_notification_queue_usage() < 0.5)
    EXECUTE FUNCTION patgate.announce_change();
ALTER TABLE patgate.changes ENABLE ALWAYS TRIGGER announce;

-- No token is issued in the future. A trigger, and not a constraint: a row that came about otherwise
-- must not be kept from being revoked.
CREATE FUNCTION patgate.refuse_issue_in_the_future() RETURNS trigger
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    IF NEW.issued_at > clock_timestamp() THEN
        RAISE EXCEPTION 'token % is issued in the future, at %', NEW.id, NEW.issued_at
            USING ERRCODE = 'check_violation';
    END IF;
    RETURN NEW;
END
$$;
CREATE TRIGGER issued_until_now BEFORE INSERT OR UPDATE OF issued_at ON patgate.pats
    FOR EACH ROW EXECUTE FUNCTION patgate.refuse_issue_in_the_future();

REVOKE EXECUTE ON ALL FUNCTIONS IN SCHEMA patgate FROM PUBLIC;
GRANT EXECUTE ON FUNCTION patgate.note_uses, patgate.sweep_uses TO patgate_serve;
