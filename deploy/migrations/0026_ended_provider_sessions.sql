-- Disabling a provider and removing a link of its subjects end their sessions for good.
--
-- A session counts only if it began after the provider was last enabled, and after the link was made.
-- So nothing has to be deleted, and no open transaction of a patgate_web login can hold that up.

ALTER TABLE patgate.issuers ADD COLUMN enabled_at timestamptz NOT NULL DEFAULT '-infinity';

CREATE FUNCTION patgate.enable_issuer() RETURNS trigger
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    NEW.enabled_at := clock_timestamp();
    RETURN NEW;
END
$$;
CREATE TRIGGER enable_issuer BEFORE UPDATE OF enabled ON patgate.issuers
    FOR EACH ROW WHEN (NEW.enabled AND NOT OLD.enabled)
    EXECUTE FUNCTION patgate.enable_issuer();

GRANT CREATE ON SCHEMA patgate TO patgate_web_functions;
SET LOCAL ROLE patgate_web_functions;

-- The user of a session, if the session still counts.
CREATE OR REPLACE FUNCTION patgate.web_internal_actor(proof bytea) RETURNS patgate.web_actor
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    me patgate.web_actor;
BEGIN
    PERFORM patgate.web_internal_guard();
    SELECT s.id, u.id, u.email, s.method,
           s.method = 'local' AND u.platform_admin AND s.elevated_until > clock_timestamp()
        INTO me
    FROM patgate.sessions s
    JOIN patgate.users u ON u.id = s.user_id AND u.enabled AND u.session_epoch = s.epoch
    CROSS JOIN patgate.policy p
    WHERE s.proof_hash = sha256(proof)
      AND s.begun_at + p.session_longest > clock_timestamp()
      AND s.used_at + p.session_idle > clock_timestamp()
      AND CASE s.method
          WHEN 'local' THEN EXISTS (
              SELECT FROM patgate.local_accounts a WHERE a.user_id = u.id)
          ELSE EXISTS (
              SELECT FROM patgate.identities i
              JOIN patgate.issuers t ON t.issuer = i.issuer AND t.enabled
              WHERE i.issuer = s.issuer AND i.subject = s.subject AND i.user_id = u.id
                AND s.begun_at >= i.linked_at AND s.begun_at >= t.enabled_at)
          END;
    IF me.session IS NULL THEN
        RAISE EXCEPTION 'not signed in' USING ERRCODE = 'PW001';
    END IF;
    -- Not at each use, which would write a row per request.
    UPDATE patgate.sessions s SET used_at = clock_timestamp()
    WHERE s.id = me.session AND s.used_at < clock_timestamp() - interval '30 seconds';
    RETURN me;
END
$$;

SET LOCAL ROLE patgate_migrate;
REVOKE CREATE ON SCHEMA patgate FROM patgate_web_functions;
REVOKE EXECUTE ON ALL FUNCTIONS IN SCHEMA patgate FROM PUBLIC;
