-- The change feed: every change to what an answer may rest on, with its transaction's id.
--
-- Triggers write it, so that an administrator's bare SQL counts, too; they are ALWAYS enabled, so
-- that a replayed change counts as well. A reader asks for the changes that its last snapshot did
-- not see; a notification, which carries nothing, only wakes it.

CREATE TABLE patgate.changes (
    xid  xid8 NOT NULL DEFAULT pg_current_xact_id(),
    kind text NOT NULL CHECK (kind IN ('token', 'user', 'domain', 'slug', 'membership', 'everything')),
    -- A uuid, a slug, `<user>/<domain>`, or nothing.
    key  text NOT NULL,
    PRIMARY KEY (xid, kind, key)
);

-- Changes visible in the horizon may have been pruned. Marks are snapshots that may become it.
CREATE TABLE patgate.change_horizon (
    snapshot  pg_snapshot NOT NULL,
    singleton boolean PRIMARY KEY DEFAULT true CHECK (singleton)
);
CREATE TABLE patgate.change_marks (
    at       timestamptz PRIMARY KEY DEFAULT now(),
    snapshot pg_snapshot NOT NULL DEFAULT pg_current_snapshot()
);

-- Whoever changes a row may not write here: the triggers do, in their owner's name.
CREATE FUNCTION patgate.record_change(kind text, key text) RETURNS void
LANGUAGE sql SET search_path = pg_catalog, pg_temp AS $$
    INSERT INTO patgate.changes (kind, key)
    SELECT record_change.kind, record_change.key WHERE record_change.key IS NOT NULL
    ON CONFLICT DO NOTHING
$$;
REVOKE ALL ON FUNCTION patgate.record_change FROM PUBLIC;

-- OLD and NEW are NULL where there is none, and so is what is read from them.
CREATE FUNCTION patgate.pats_changed() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    PERFORM patgate.record_change('token', OLD.id::text);
    PERFORM patgate.record_change('token', NEW.id::text);
    RETURN NULL;
END
$$;

CREATE FUNCTION patgate.pat_scopes_changed() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    PERFORM patgate.record_change('token', OLD.pat_id::text);
    PERFORM patgate.record_change('token', NEW.pat_id::text);
    RETURN NULL;
END
$$;

CREATE FUNCTION patgate.users_changed() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    PERFORM patgate.record_change('user', OLD.id::text);
    PERFORM patgate.record_change('user', NEW.id::text);
    RETURN NULL;
END
$$;

CREATE FUNCTION patgate.domains_changed() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    PERFORM patgate.record_change('domain', OLD.id::text);
    PERFORM patgate.record_change('domain', NEW.id::text);
    -- For whoever knows only that there was no such domain.
    PERFORM patgate.record_change('slug', OLD.slug);
    PERFORM patgate.record_change('slug', NEW.slug);
    RETURN NULL;
END
$$;

CREATE FUNCTION patgate.domain_models_changed() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    PERFORM patgate.record_change('domain', OLD.domain_id::text);
    PERFORM patgate.record_change('domain', NEW.domain_id::text);
    RETURN NULL;
END
$$;

CREATE FUNCTION patgate.roles_changed() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    PERFORM patgate.record_change('domain', OLD.domain_id::text);
    PERFORM patgate.record_change('domain', NEW.domain_id::text);
    RETURN NULL;
END
$$;

-- A role that is gone already is being deleted in this transaction, and was recorded with it.
CREATE FUNCTION patgate.role_operations_changed() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    PERFORM patgate.record_change('domain', r.domain_id::text)
    FROM patgate.roles r WHERE r.id IN (OLD.role_id, NEW.role_id);
    RETURN NULL;
END
$$;

CREATE FUNCTION patgate.role_members_changed() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    PERFORM patgate.record_change('membership', m.user_id || '/' || r.domain_id)
    FROM (VALUES (OLD.role_id, OLD.user_id), (NEW.role_id, NEW.user_id)) AS m (role_id, user_id)
    JOIN patgate.roles r ON r.id = m.role_id;
    RETURN NULL;
END
$$;

CREATE FUNCTION patgate.everything_changed() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    PERFORM patgate.record_change('everything', '');
    RETURN NULL;
END
$$;

DO $$
DECLARE
    observed text;
BEGIN
    FOREACH observed IN ARRAY ARRAY['pats', 'pat_scopes', 'users', 'domains', 'domain_models',
                                    'roles', 'role_operations', 'role_members']
    LOOP
        -- When a token was last used is nobody's business: an update of that alone is no change.
        EXECUTE format(
            'CREATE TRIGGER record_change AFTER INSERT OR DELETE OR UPDATE %s ON patgate.%I
                 FOR EACH ROW EXECUTE FUNCTION patgate.%I()',
            CASE observed WHEN 'pats'
                THEN 'OF id, user_id, name, digest, key_id, issued_at, expires_at, revoked_at'
                ELSE '' END,
            observed, observed || '_changed');
        EXECUTE format(
            'CREATE TRIGGER record_truncation AFTER TRUNCATE ON patgate.%I
                 FOR EACH STATEMENT EXECUTE FUNCTION patgate.everything_changed()', observed);
        EXECUTE format('ALTER TABLE patgate.%I ENABLE ALWAYS TRIGGER record_change', observed);
        EXECUTE format('ALTER TABLE patgate.%I ENABLE ALWAYS TRIGGER record_truncation', observed);
    END LOOP;
END
$$;

CREATE FUNCTION patgate.announce_change() RETURNS trigger
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    PERFORM pg_notify('patgate_changes', '');
    RETURN NULL;
END
$$;
CREATE TRIGGER announce AFTER INSERT ON patgate.changes
    FOR EACH STATEMENT EXECUTE FUNCTION patgate.announce_change();
ALTER TABLE patgate.changes ENABLE ALWAYS TRIGGER announce;

-- Forgets changes that every reader has had an hour to read. By snapshot, not by a row's time: a
-- long transaction commits rows that are old already. One caller a time does it; the others return.
CREATE FUNCTION patgate.prune_changes() RETURNS void
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    horizon pg_snapshot;
BEGIN
    IF NOT pg_try_advisory_xact_lock(hashtextextended('patgate prune', 0)) THEN
        RETURN;
    END IF;
    -- A dump restored into another cluster brings ids from a future that this one has not reached.
    IF (SELECT pg_snapshot_xmax(snapshot) > pg_snapshot_xmax(pg_current_snapshot())
        FROM patgate.change_horizon)
        OR EXISTS (SELECT FROM patgate.changes
                   WHERE xid >= pg_snapshot_xmax(pg_current_snapshot()))
    THEN
        DELETE FROM patgate.changes;
        DELETE FROM patgate.change_marks;
        UPDATE patgate.change_horizon SET snapshot = pg_current_snapshot();
        RETURN;
    END IF;
    -- Marks are in the order of their snapshots, also when the clock was put back; or else the
    -- horizon would go back, behind changes that are gone.
    DELETE FROM patgate.change_marks WHERE at >= now();
    INSERT INTO patgate.change_marks DEFAULT VALUES;
    SELECT snapshot INTO horizon FROM patgate.change_marks
        WHERE at < now() - interval '1 hour' ORDER BY at DESC LIMIT 1;
    IF horizon IS NOT NULL THEN
        DELETE FROM patgate.change_marks WHERE at < now() - interval '1 hour';
        UPDATE patgate.change_horizon SET snapshot = horizon;
        DELETE FROM patgate.changes
            WHERE xid < pg_snapshot_xmax(horizon) AND pg_visible_in_snapshot(xid, horizon);
    END IF;
END
$$;
REVOKE ALL ON FUNCTION patgate.prune_changes FROM PUBLIC;
GRANT EXECUTE ON FUNCTION patgate.prune_changes TO patgate_serve, patgate_admin;

GRANT SELECT ON patgate.changes, patgate.change_horizon TO patgate_serve, patgate_admin;

-- Not before the triggers are there, which wait for every transaction that writes to their tables:
-- what committed until then is recorded nowhere, and must be seen by the horizon.
INSERT INTO patgate.change_horizon (snapshot) VALUES (pg_current_snapshot());
