-- Ends the sessions of a user who is disabled, and bounds the life of tokens. Last, because this locks
-- tables of which lookups read until the migrations are committed.

-- A session counts only in the epoch in which it began. So disabling a user ends their sessions for
-- good, also one that is just being begun, and waits for no lock on a session.
ALTER TABLE patgate.users ADD COLUMN session_epoch bigint NOT NULL DEFAULT 0;
CREATE FUNCTION patgate.end_sessions() RETURNS trigger
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    NEW.session_epoch := OLD.session_epoch + 1;
    RETURN NEW;
END
$$;
CREATE TRIGGER end_sessions BEFORE UPDATE OF enabled ON patgate.users
    FOR EACH ROW WHEN (OLD.enabled AND NOT NEW.enabled)
    EXECUTE FUNCTION patgate.end_sessions();

-- The longest life of a token holds for every way to make one. From now, and not from its issue,
-- which whoever writes SQL can put into the past. Tokens that exist keep their expiry. Canaries are no
-- tokens that anyone can use.
CREATE FUNCTION patgate.refuse_long_life() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    longest CONSTANT interval := (SELECT p.token_longest FROM patgate.policy p);
BEGIN
    IF NEW.expires_at > clock_timestamp() + longest
        AND NEW.user_id <> 'ca4a4700-0000-8000-8000-000000000000'
    THEN
        RAISE EXCEPTION 'a token must expire within %, as an operator has set', longest
            USING ERRCODE = 'PW006', DETAIL = (extract(epoch FROM longest)::bigint)::text;
    END IF;
    RETURN NEW;
END
$$;
CREATE TRIGGER new_within_longest BEFORE INSERT ON patgate.pats
    FOR EACH ROW EXECUTE FUNCTION patgate.refuse_long_life();
CREATE TRIGGER extended_within_longest BEFORE UPDATE OF expires_at ON patgate.pats
    FOR EACH ROW WHEN (NEW.expires_at > OLD.expires_at)
    EXECUTE FUNCTION patgate.refuse_long_life();

REVOKE EXECUTE ON ALL FUNCTIONS IN SCHEMA patgate FROM PUBLIC;
