-- The history of users and domains keeps the lines about tokens that are deleted.
--
-- Lines of the audit log name a token by its id, and only the row of the token says whose it is. So the
-- owner, and the domains of the scopes, are kept when that row goes, by whatever means. Not in the lines:
-- each way to write one would have to state the owner. Tokens deleted before this migration are not known.

CREATE TABLE patgate.former_tokens (
    token   text NOT NULL,
    user_id uuid NOT NULL,
    -- Until when it was this user's. A deleted token is nobody else's later: its last lines are written
    -- after the deletion.
    until   timestamptz NOT NULL,
    -- Those in which it had a scope when it was deleted.
    domains uuid[] NOT NULL DEFAULT '{}',
    PRIMARY KEY (token, until)
);
CREATE INDEX former_tokens_user_id ON patgate.former_tokens (user_id);
CREATE INDEX former_tokens_domains ON patgate.former_tokens USING gin (domains);
GRANT SELECT ON patgate.former_tokens TO patgate_admin, patgate_web_functions;

CREATE FUNCTION patgate.keep_former_token() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    IF TG_OP = 'UPDATE' AND NEW.id = OLD.id THEN
        INSERT INTO patgate.former_tokens (token, user_id, until)
        VALUES (OLD.id::text, OLD.user_id, clock_timestamp());
        RETURN NEW;
    END IF;
    INSERT INTO patgate.former_tokens (token, user_id, until, domains)
    VALUES (OLD.id::text, OLD.user_id, 'infinity', ARRAY(
        SELECT DISTINCT s.domain_id FROM patgate.pat_scopes s WHERE s.pat_id = OLD.id))
    ON CONFLICT (token, until) DO UPDATE SET domains = excluded.domains;
    RETURN CASE WHEN TG_OP = 'DELETE' THEN OLD ELSE NEW END;
END
$$;
-- Before, while the scopes are still there.
CREATE TRIGGER keep_former BEFORE DELETE ON patgate.pats
    FOR EACH ROW WHEN (OLD.user_id <> 'ca4a4700-0000-8000-8000-000000000000')
    EXECUTE FUNCTION patgate.keep_former_token();
CREATE TRIGGER keep_former_owner BEFORE UPDATE OF id, user_id ON patgate.pats
    FOR EACH ROW WHEN (OLD.user_id <> NEW.user_id OR OLD.id <> NEW.id)
    EXECUTE FUNCTION patgate.keep_former_token();

-- The process that faces the web makes the ids of tokens. With the id of a deleted one, a user would see
-- lines about another user's token. After, so that a deletion of the same id is seen which the insertion
-- had to wait for.
CREATE FUNCTION patgate.refuse_former_token() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    IF EXISTS (SELECT FROM patgate.former_tokens f
               WHERE f.token = NEW.id::text AND f.until = 'infinity' AND f.user_id <> NEW.user_id)
    THEN
        RAISE EXCEPTION 'the id was that of another user''s token' USING ERRCODE = 'PW008';
    END IF;
    RETURN NULL;
END
$$;
CREATE TRIGGER refuse_former AFTER INSERT OR UPDATE OF id ON patgate.pats
    FOR EACH ROW WHEN (NEW.user_id <> 'ca4a4700-0000-8000-8000-000000000000')
    EXECUTE FUNCTION patgate.refuse_former_token();

GRANT CREATE ON SCHEMA patgate TO patgate_web_functions;
SET LOCAL ROLE patgate_web_functions;

-- The lines of the audit log, the latest first: all of them for a platform administrator; otherwise
-- those about the actor, and those about a token from when it was the actor's.
CREATE OR REPLACE FUNCTION patgate.web_audit_log(
    proof bytea, everything boolean, who text, what text, about text, before bigint, most bigint
) RETURNS jsonb
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    me     CONSTANT patgate.web_actor := patgate.web_internal_actor(proof);
    myself CONSTANT uuid := (me).user_id;
    tokens text[];
    own    text[];
BEGIN
    IF everything IS NOT FALSE AND NOT (me).elevated THEN
        PERFORM patgate.web_internal_refuse_admin(me);
    END IF;
    IF NOT everything THEN
        tokens := ARRAY(SELECT p.id::text FROM patgate.pats p WHERE p.user_id = myself);
        own := tokens || myself::text || ARRAY(
            SELECT f.token FROM patgate.former_tokens f WHERE f.user_id = myself);
    END IF;
    RETURN (
        SELECT coalesce(jsonb_agg(jsonb_build_object(
            'id', l.id, 'at', patgate.web_internal_utc(l.at), 'actor', l.actor,
            'action', l.action, 'object', l.object, 'details', l.details,
            'request_id', l.request_id, 'method', l.method,
            'address', CASE WHEN (me).elevated OR l.actor = 'web:' || (me).email
                THEN host(l.address) END,
            'session', CASE WHEN (me).elevated OR l.actor = 'web:' || (me).email
                THEN l.session END,
            'login', CASE WHEN (me).elevated THEN l.login END)
            ORDER BY l.id DESC), '[]')
        FROM (SELECT * FROM patgate.audit_log a
              WHERE (own IS NULL OR a.object = ANY (own))
                AND (own IS NULL OR CASE WHEN starts_with(a.action, 'token.')
                    THEN coalesce(
                        (SELECT f.user_id = myself FROM patgate.former_tokens f
                         WHERE f.token = a.object AND f.until >= a.at ORDER BY f.until LIMIT 1),
                        a.object = ANY (tokens))
                    ELSE a.object = myself::text END)
                AND (who IS NULL OR a.actor = who)
                AND (what IS NULL OR a.action = what OR starts_with(a.action, what || '.'))
                AND (about IS NULL OR a.object = about)
                AND (before IS NULL OR a.id < before)
              ORDER BY a.id DESC LIMIT least(greatest(most, 0), 1000)) AS l);
END
$$;

SET LOCAL ROLE patgate_migrate;
REVOKE CREATE ON SCHEMA patgate FROM patgate_web_functions;
REVOKE EXECUTE ON ALL FUNCTIONS IN SCHEMA patgate FROM PUBLIC;
