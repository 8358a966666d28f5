-- A canary is a token that a replica owns, to revoke it and issue it again and measure how long it
-- takes to obey. Nothing is here until a replica is told to keep one.
--
-- Replicas may write no tokens. They call these functions, which touch canaries only: tokens of
-- one user, who is disabled and has no role. A canary has no scope, its digest is random, and it
-- lives for as long as it is flipped.

-- Revokes or issues again, and tells whether it is revoked now. Removes those that nobody flips.
CREATE FUNCTION patgate.flip_canary(canary uuid, lifetime interval) RETURNS boolean
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    keeper  CONSTANT uuid := 'ca4a4700-0000-8000-8000-000000000000';
    until   CONSTANT timestamptz := now() + least(lifetime, interval '7 days');
    revoked boolean;
BEGIN
    INSERT INTO patgate.users (id, email, name, enabled)
        VALUES (keeper, 'revocation-canary@patgate.invalid', 'revocation canary', false)
        ON CONFLICT (id) DO NOTHING;
    DELETE FROM patgate.pats WHERE id IN (
        SELECT p.id FROM patgate.pats p
        WHERE p.user_id = keeper AND p.expires_at < now() AND p.id <> canary
        FOR UPDATE SKIP LOCKED);
    UPDATE patgate.pats p
        SET revoked_at = CASE WHEN p.revoked_at IS NULL THEN now() END, expires_at = until
        WHERE p.id = canary AND p.user_id = keeper
        RETURNING p.revoked_at IS NOT NULL INTO revoked;
    IF FOUND THEN
        RETURN revoked;
    END IF;
    -- Whoever has the login of a replica shall not fill the table.
    IF (SELECT count(*) FROM patgate.pats p WHERE p.user_id = keeper) >= 1000 THEN
        RAISE EXCEPTION 'there are 1000 canaries already';
    END IF;
    INSERT INTO patgate.pats (id, user_id, name, digest, key_id, expires_at)
        VALUES (canary, keeper, canary,
                uuid_send(gen_random_uuid()) || uuid_send(gen_random_uuid()), 'canary', until);
    RETURN false;
END
$$;

CREATE FUNCTION patgate.remove_canary(canary uuid) RETURNS void
LANGUAGE sql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
    DELETE FROM patgate.pats
    WHERE id = canary AND user_id = 'ca4a4700-0000-8000-8000-000000000000'
$$;

REVOKE ALL ON FUNCTION patgate.flip_canary, patgate.remove_canary FROM PUBLIC;
GRANT EXECUTE ON FUNCTION patgate.flip_canary, patgate.remove_canary TO patgate_serve;
