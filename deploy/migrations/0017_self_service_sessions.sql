-- Signing in, and acting in a session.
--
-- Rules of these functions, here and in 0018 to 0020:
-- - `web_…` may be executed by patgate_web; `web_internal_…` by no login.
-- - Time is that of the clock, and not that of the transaction, which a client can keep open.
-- - They refuse every isolation level in which a transaction does not see what others committed.
-- - What a change is based on is locked until its end: the user, and the rows that give them a right.
--   So a right that is lost meanwhile either prevents the change, or is lost after it.
-- - A change writes its line of the audit log itself.
--
-- Errors have codes of a class of their own, which src/admin/web/error.rs knows:
-- PW001 not signed in, PW002 not permitted, PW003 not found (also what is not the caller's),
-- PW004 changed meanwhile, PW005 exists already, PW006 expires too late, PW007 too many attempts,
-- PW008 not valid, PW009 needs a platform administrator's password again, PW010 another request
-- under the same idempotency key, PW011 token revoked or expired, PW012 wrong isolation level,
-- PW013 too many, PW014 sign-in failed.

CREATE TYPE patgate.web_actor AS (
    session  uuid,
    user_id  uuid,
    email    text,
    method   text,
    -- A platform administrator who has lately proven the password.
    elevated boolean
);

GRANT CREATE ON SCHEMA patgate TO patgate_web_functions;
SET LOCAL ROLE patgate_web_functions;

CREATE FUNCTION patgate.web_internal_guard() RETURNS void
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    IF current_setting('transaction_isolation') <> 'read committed' THEN
        RAISE EXCEPTION 'the transaction must be READ COMMITTED'
            USING ERRCODE = 'PW012';
    END IF;
END
$$;

-- A moment as RFC 3339 text in UTC, whatever the session's settings are.
CREATE FUNCTION patgate.web_internal_utc(moment timestamptz) RETURNS text
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
    SELECT to_char(moment AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS"Z"')
$$;

-- The user of a session, if the session still counts.
CREATE FUNCTION patgate.web_internal_actor(proof bytea) RETURNS patgate.web_actor
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
              WHERE i.issuer = s.issuer AND i.subject = s.subject AND i.user_id = u.id)
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

-- The same for a change: the user stays enabled, and keeps or lacks the platform administrator's
-- rights, until the transaction ends.
CREATE FUNCTION patgate.web_internal_changing(proof bytea) RETURNS patgate.web_actor
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    PERFORM patgate.web_internal_guard();
    PERFORM FROM patgate.users u
    WHERE u.id = (SELECT s.user_id FROM patgate.sessions s WHERE s.proof_hash = sha256(proof))
    FOR SHARE;
    RETURN patgate.web_internal_actor(proof);
END
$$;

CREATE FUNCTION patgate.web_internal_audit(
    me patgate.web_actor, address inet, request text, what text, about text, facts jsonb
) RETURNS void
LANGUAGE sql SET search_path = pg_catalog, pg_temp AS $$
    INSERT INTO patgate.audit_log
        (actor, action, object, details, address, request_id, method, session)
    VALUES ('web:' || (me).email, what, about, facts, web_internal_audit.address, request,
            (me).method, (me).session)
$$;

-- What a change returns: its value, its transaction, and whose cached copies it has made outdated.
CREATE FUNCTION patgate.web_internal_changed(
    value jsonb, tokens uuid[] DEFAULT '{}', domains text[] DEFAULT '{}',
    backends text[] DEFAULT '{}'
) RETURNS jsonb
LANGUAGE sql SET search_path = pg_catalog, pg_temp AS $$
    SELECT jsonb_build_object(
        'value', value, 'xid', pg_current_xact_id()::text, 'tokens', to_jsonb(tokens),
        'domains', to_jsonb(domains), 'backends', to_jsonb(backends))
$$;

CREATE FUNCTION patgate.web_internal_tokens_of(owner uuid) RETURNS uuid[]
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
    SELECT ARRAY(SELECT p.id FROM patgate.pats p WHERE p.user_id = owner)
$$;

-- Who this is: what a process may know that has not signed anybody in.
CREATE FUNCTION patgate.web_status() RETURNS jsonb
LANGUAGE sql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
    SELECT jsonb_build_object(
        'version', (SELECT v.version FROM patgate.schema_version v),
        'identity', patgate.identity(),
        'issuers', (SELECT coalesce(jsonb_agg(t.issuer ORDER BY t.issuer), '[]')
                    FROM patgate.issuers t WHERE t.enabled))
$$;

-- Wakes the replicas after a change was committed, as src/admin/store/notify.rs does.
CREATE FUNCTION patgate.web_wake() RETURNS void
LANGUAGE sql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
    SELECT pg_notify('patgate_changes_' || replace(i.id::text, '-', ''), '')
    FROM patgate.installation i
$$;

CREATE FUNCTION patgate.web_internal_account(email text) RETURNS bytea
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
    SELECT sha256(s.secret || convert_to('account ' || lower(email), 'UTF8'))
    FROM patgate.sign_in_secret s
$$;

-- The salt of an address is the same for ever, whether or not a user has it.
CREATE FUNCTION patgate.web_internal_salt(email text) RETURNS bytea
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
    SELECT substr(sha256(s.secret || convert_to('salt ' || lower(email), 'UTF8')), 1, 16)
    FROM patgate.sign_in_secret s
$$;

CREATE FUNCTION patgate.web_password_salt(email text) RETURNS bytea
LANGUAGE sql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
    SELECT coalesce(
        (SELECT a.salt FROM patgate.local_accounts a
         JOIN patgate.users u ON u.id = a.user_id
         WHERE u.email = lower(web_password_salt.email)),
        patgate.web_internal_salt(web_password_salt.email))
$$;

-- Records an attempt to prove a password. `commitment` is the SHA-256 of the answer that the attempt
-- will try, after this transaction has committed.
CREATE FUNCTION patgate.web_begin_attempt(
    address inet, request text, email text, commitment bytea
) RETURNS uuid
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    which  CONSTANT bytea := patgate.web_internal_account(email);
    allowed patgate.policy;
    failed integer;
    made   uuid;
BEGIN
    PERFORM patgate.web_internal_guard();
    IF which IS NULL OR octet_length(commitment) IS DISTINCT FROM 32 THEN
        RAISE EXCEPTION 'an attempt needs an address and a commitment' USING ERRCODE = 'PW008';
    END IF;
    SELECT * INTO allowed FROM patgate.policy;
    DELETE FROM patgate.sign_in_attempts t WHERE t.ctid = ANY (ARRAY(
        SELECT o.ctid FROM patgate.sign_in_attempts o
        WHERE o.at < clock_timestamp() - greatest(allowed.failed_within, interval '1 minute')
        ORDER BY o.at LIMIT 100 FOR UPDATE SKIP LOCKED));
    SELECT count(*) INTO failed FROM patgate.sign_in_attempts t
    WHERE t.account = which AND t.at > clock_timestamp() - allowed.failed_within;
    IF failed >= allowed.failed_attempts
        OR (SELECT count(*) FROM (
                SELECT FROM patgate.sign_in_attempts t
                WHERE t.at > clock_timestamp() - interval '1 minute'
                LIMIT allowed.attempts_per_minute) AS latest) >= allowed.attempts_per_minute
    THEN
        RAISE EXCEPTION 'too many attempts to sign in' USING ERRCODE = 'PW007';
    END IF;
    INSERT INTO patgate.sign_in_attempts (account, commitment, address)
    VALUES (which, web_begin_attempt.commitment, web_begin_attempt.address)
    RETURNING id INTO made;
    -- For an account that does not exist, too: what is written must not tell.
    IF failed + 1 = allowed.failed_attempts THEN
        INSERT INTO patgate.audit_log (actor, action, object, details, address, request_id)
        VALUES ('web', 'account.lock',
                coalesce((SELECT u.id::text FROM patgate.users u
                          WHERE u.email = lower(web_begin_attempt.email)), 'unknown'),
                jsonb_build_object('attempts', allowed.failed_attempts),
                web_begin_attempt.address, request);
    END IF;
    RETURN made;
END
$$;

-- The user whose password the answer is; fails otherwise. An attempt counts even if the transaction
-- that tries its answer is rolled back, because another one has committed it.
CREATE FUNCTION patgate.web_internal_try(attempt uuid, email text, answer bytea)
RETURNS patgate.users
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    which   CONSTANT bytea := patgate.web_internal_account(email);
    allowed patgate.policy;
    found_user patgate.users;
BEGIN
    PERFORM patgate.web_internal_guard();
    SELECT * INTO allowed FROM patgate.policy;
    PERFORM FROM patgate.sign_in_attempts t
    WHERE t.id = attempt AND t.account = which AND t.commitment = sha256(answer)
      AND t.login = session_user AND t.xid <> pg_current_xact_id()
      AND t.at > clock_timestamp() - interval '1 minute';
    IF NOT FOUND THEN
        RAISE EXCEPTION 'the sign-in failed' USING ERRCODE = 'PW014';
    END IF;
    -- More than were allowed, if they were begun at the same time.
    IF (SELECT count(*) FROM patgate.sign_in_attempts t
        WHERE t.account = which AND t.at > clock_timestamp() - allowed.failed_within)
        > allowed.failed_attempts
    THEN
        RAISE EXCEPTION 'too many attempts to sign in' USING ERRCODE = 'PW007';
    END IF;
    SELECT u.* INTO found_user
    FROM patgate.users u JOIN patgate.local_accounts a ON a.user_id = u.id
    WHERE u.email = lower(web_internal_try.email) AND a.verifier = sha256(answer) AND u.enabled;
    IF NOT FOUND THEN
        RAISE EXCEPTION 'the sign-in failed' USING ERRCODE = 'PW014';
    END IF;
    DELETE FROM patgate.sign_in_attempts t WHERE t.account = which;
    RETURN found_user;
END
$$;

-- Removes sessions that have ended, a few at a time.
CREATE FUNCTION patgate.web_internal_sweep() RETURNS void
LANGUAGE sql SET search_path = pg_catalog, pg_temp AS $$
    DELETE FROM patgate.sessions s WHERE s.ctid = ANY (ARRAY(
        SELECT o.ctid FROM patgate.sessions o CROSS JOIN patgate.policy p
        WHERE o.begun_at + p.session_longest < clock_timestamp()
           OR o.used_at + p.session_idle < clock_timestamp()
        ORDER BY o.begun_at LIMIT 100 FOR UPDATE OF o SKIP LOCKED))
$$;

CREATE FUNCTION patgate.web_internal_begun(
    address inet, request text, session uuid, owner patgate.users, method text, facts jsonb
) RETURNS jsonb
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    me CONSTANT patgate.web_actor := ROW(session, owner.id, owner.email, method, false);
BEGIN
    PERFORM patgate.web_internal_audit(
        me, address, request, 'session.begin', owner.id::text,
        jsonb_build_object('email', owner.email) || facts);
    RETURN jsonb_build_object('session', session, 'user', owner.id, 'email', owner.email);
END
$$;

-- Begins a session for the user whose password the answer of the attempt is.
CREATE FUNCTION patgate.web_begin_local_session(
    address inet, request text, attempt uuid, email text, answer bytea, proof bytea
) RETURNS jsonb
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    owner   CONSTANT patgate.users := patgate.web_internal_try(attempt, email, answer);
    session uuid;
BEGIN
    PERFORM patgate.web_internal_sweep();
    INSERT INTO patgate.sessions (proof_hash, user_id, epoch, method, address)
    VALUES (sha256(proof), owner.id, owner.session_epoch, 'local',
            web_begin_local_session.address)
    RETURNING id INTO session;
    RETURN patgate.web_internal_begun(address, request, session, owner, 'local', '{}');
END
$$;

-- Begins a session for a subject of a provider. That the provider has signed the subject in is the
-- process's word, so these sessions are few, they are recorded with the database login, and they never
-- have the rights of a platform administrator.
CREATE FUNCTION patgate.web_begin_oidc_session(
    address inet, request text, issuer text, subject text, verified_email text, proof bytea
) RETURNS jsonb
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    allowed  patgate.policy;
    provider patgate.issuers;
    owner    patgate.users;
    session  uuid;
BEGIN
    PERFORM patgate.web_internal_guard();
    SELECT * INTO allowed FROM patgate.policy;
    SELECT * INTO provider FROM patgate.issuers t
    WHERE t.issuer = web_begin_oidc_session.issuer AND t.enabled;
    IF NOT FOUND THEN
        RAISE EXCEPTION 'the sign-in failed' USING ERRCODE = 'PW014';
    END IF;
    -- One after the other, so that they cannot exceed the limits together.
    INSERT INTO patgate.oidc_logins (login) VALUES (session_user)
    ON CONFLICT (login) DO UPDATE SET login = excluded.login;
    PERFORM patgate.web_internal_sweep();
    IF (SELECT count(*) FROM patgate.sessions s
        WHERE s.login = session_user AND s.method = 'oidc'
          AND s.begun_at > clock_timestamp() - interval '1 minute') >= allowed.oidc_per_minute
        OR (SELECT count(*) FROM patgate.sessions s
            WHERE s.login = session_user AND s.method = 'oidc') >= allowed.oidc_sessions
    THEN
        RAISE EXCEPTION 'too many sessions begin' USING ERRCODE = 'PW013';
    END IF;

    SELECT u.* INTO owner FROM patgate.identities i JOIN patgate.users u ON u.id = i.user_id
    WHERE i.issuer = web_begin_oidc_session.issuer AND i.subject = web_begin_oidc_session.subject;
    IF NOT FOUND AND provider.trusts_email AND verified_email IS NOT NULL THEN
        SELECT u.* INTO owner FROM patgate.users u
        WHERE u.email = lower(verified_email) AND u.enabled AND NOT u.platform_admin
          AND NOT EXISTS (SELECT FROM patgate.identities i
                          WHERE i.issuer = provider.issuer AND i.user_id = u.id)
        FOR KEY SHARE;
        IF FOUND THEN
            INSERT INTO patgate.identities (issuer, subject, user_id)
            VALUES (provider.issuer, web_begin_oidc_session.subject, owner.id);
            PERFORM patgate.web_internal_audit(
                ROW(NULL, owner.id, owner.email, 'oidc', false), address, request,
                'identity.link', owner.id::text,
                jsonb_build_object('issuer', provider.issuer,
                                   'subject', web_begin_oidc_session.subject));
        END IF;
    END IF;
    IF owner.id IS NULL OR NOT owner.enabled THEN
        RAISE EXCEPTION 'the sign-in failed' USING ERRCODE = 'PW014';
    END IF;
    INSERT INTO patgate.sessions (proof_hash, user_id, epoch, method, issuer, subject, address)
    VALUES (sha256(proof), owner.id, owner.session_epoch, 'oidc', provider.issuer,
            web_begin_oidc_session.subject, web_begin_oidc_session.address)
    RETURNING id INTO session;
    RETURN patgate.web_internal_begun(
        address, request, session, owner, 'oidc',
        jsonb_build_object('issuer', provider.issuer, 'subject',
                           web_begin_oidc_session.subject));
END
$$;

-- Whom an invitation is for, and the salt for the password that the link sets.
CREATE FUNCTION patgate.web_invitation(invitation bytea) RETURNS jsonb
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    address text;
BEGIN
    PERFORM patgate.web_internal_guard();
    SELECT u.email INTO address
    FROM patgate.invitations i JOIN patgate.users u ON u.id = i.user_id AND u.enabled
    WHERE i.proof_hash = sha256(invitation) AND i.expires_at > clock_timestamp();
    IF NOT FOUND THEN
        RAISE EXCEPTION 'the invitation does not exist, was used or has expired'
            USING ERRCODE = 'PW003';
    END IF;
    RETURN jsonb_build_object(
        'email', address, 'salt', encode(patgate.web_password_salt(address), 'hex'));
END
$$;

-- Stores a password, and ends all sessions of the user.
CREATE FUNCTION patgate.web_internal_set_password(owner uuid, answer bytea) RETURNS void
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    IF octet_length(answer) IS DISTINCT FROM 32 THEN
        RAISE EXCEPTION 'the password is not hashed' USING ERRCODE = 'PW008';
    END IF;
    UPDATE patgate.users u SET session_epoch = u.session_epoch + 1 WHERE u.id = owner;
    INSERT INTO patgate.local_accounts AS a (user_id, salt, verifier)
    SELECT u.id, patgate.web_internal_salt(u.email), sha256(answer)
    FROM patgate.users u WHERE u.id = owner
    ON CONFLICT (user_id) DO UPDATE
        SET verifier = excluded.verifier, set_at = clock_timestamp();
    DELETE FROM patgate.invitations i WHERE i.user_id = owner;
    DELETE FROM patgate.sign_in_attempts t
    WHERE t.account = (SELECT patgate.web_internal_account(u.email)
                       FROM patgate.users u WHERE u.id = owner);
END
$$;

-- Sets the password of the user who was invited. The link works once.
CREATE FUNCTION patgate.web_accept_invitation(
    address inet, request text, invitation bytea, answer bytea
) RETURNS jsonb
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    owner patgate.users;
BEGIN
    PERFORM patgate.web_internal_guard();
    SELECT u.* INTO owner
    FROM patgate.users u
    WHERE u.id = (SELECT i.user_id FROM patgate.invitations i
                  WHERE i.proof_hash = sha256(invitation))
    FOR NO KEY UPDATE;
    DELETE FROM patgate.invitations i
    WHERE i.proof_hash = sha256(invitation) AND i.user_id = owner.id
      AND i.expires_at > clock_timestamp();
    IF NOT FOUND OR NOT owner.enabled THEN
        RAISE EXCEPTION 'the invitation does not exist, was used or has expired'
            USING ERRCODE = 'PW003';
    END IF;
    PERFORM patgate.web_internal_set_password(owner.id, answer);
    PERFORM patgate.web_internal_audit(
        ROW(NULL, owner.id, owner.email, 'invitation', false), address, request,
        'account.set_password', owner.id::text, jsonb_build_object('email', owner.email));
    RETURN jsonb_build_object('email', owner.email);
END
$$;

-- The user of a session, for the page.
CREATE FUNCTION patgate.web_session(proof bytea) RETURNS jsonb
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    me CONSTANT patgate.web_actor := patgate.web_internal_actor(proof);
BEGIN
    RETURN (
        SELECT jsonb_build_object(
            'session', s.id, 'user', u.id, 'email', u.email, 'name', u.name, 'method', s.method,
            'platform_admin', u.platform_admin,
            'has_password', EXISTS (
                SELECT FROM patgate.local_accounts a WHERE a.user_id = u.id),
            'elevated', (me).elevated,
            'elevated_until', CASE WHEN (me).elevated
                THEN patgate.web_internal_utc(s.elevated_until) END,
            'begun_at', patgate.web_internal_utc(s.begun_at),
            'ends_at', patgate.web_internal_utc(s.begun_at + p.session_longest),
            'idle_seconds', extract(epoch FROM p.session_idle)::bigint,
            'token_longest_seconds', extract(epoch FROM p.token_longest)::bigint,
            'token_default_seconds', extract(epoch FROM p.token_default)::bigint)
        FROM patgate.sessions s JOIN patgate.users u ON u.id = s.user_id
        CROSS JOIN patgate.policy p
        WHERE s.id = (me).session);
END
$$;

-- Ends a session. One that has ended already is no error.
CREATE FUNCTION patgate.web_end_session(proof bytea, address inet, request text) RETURNS void
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    ended patgate.sessions;
BEGIN
    PERFORM patgate.web_internal_guard();
    DELETE FROM patgate.sessions s WHERE s.proof_hash = sha256(proof) RETURNING s.* INTO ended;
    IF FOUND THEN
        PERFORM patgate.web_internal_audit(
            ROW(ended.id, u.id, u.email, ended.method, false), web_end_session.address, request,
            'session.end', u.id::text, jsonb_build_object('email', u.email))
        FROM patgate.users u WHERE u.id = ended.user_id;
    END IF;
END
$$;

-- Ends all sessions of the user, this one included.
CREATE FUNCTION patgate.web_end_all_sessions(proof bytea, address inet, request text)
RETURNS void
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    me patgate.web_actor := patgate.web_internal_actor(proof);
BEGIN
    UPDATE patgate.users u SET session_epoch = u.session_epoch + 1 WHERE u.id = (me).user_id;
    PERFORM patgate.web_internal_audit(
        me, address, request, 'session.end_all', (me).user_id::text,
        jsonb_build_object('email', (me).email));
END
$$;

-- Gives the session of a platform administrator these rights for a while. The answer proves the
-- password again.
CREATE FUNCTION patgate.web_elevate(
    proof bytea, address inet, request text, attempt uuid, answer bytea
) RETURNS void
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    me    CONSTANT patgate.web_actor := patgate.web_internal_changing(proof);
    owner patgate.users;
BEGIN
    owner := patgate.web_internal_try(attempt, (me).email, answer);
    IF owner.id <> (me).user_id OR NOT owner.platform_admin OR (me).method <> 'local' THEN
        RAISE EXCEPTION 'only a platform administrator who signed in with a password may do this'
            USING ERRCODE = 'PW002';
    END IF;
    UPDATE patgate.sessions s SET elevated_until = clock_timestamp() + p.elevation
    FROM patgate.policy p WHERE s.id = (me).session;
    PERFORM patgate.web_internal_audit(
        me, address, request, 'session.elevate', (me).user_id::text,
        jsonb_build_object('email', (me).email));
END
$$;

-- Gives these rights back.
CREATE FUNCTION patgate.web_lower(proof bytea) RETURNS void
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    me CONSTANT patgate.web_actor := patgate.web_internal_actor(proof);
BEGIN
    UPDATE patgate.sessions s SET elevated_until = '-infinity' WHERE s.id = (me).session;
END
$$;

-- Replaces the password, which the first answer proves, and ends all sessions of the user.
CREATE FUNCTION patgate.web_change_password(
    proof bytea, address inet, request text, attempt uuid, answer bytea, new_answer bytea
) RETURNS void
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    me CONSTANT patgate.web_actor := patgate.web_internal_actor(proof);
BEGIN
    PERFORM patgate.web_internal_try(attempt, (me).email, answer);
    PERFORM patgate.web_internal_set_password((me).user_id, new_answer);
    PERFORM patgate.web_internal_audit(
        me, address, request, 'account.set_password', (me).user_id::text,
        jsonb_build_object('email', (me).email));
END
$$;

SET LOCAL ROLE patgate_migrate;
REVOKE CREATE ON SCHEMA patgate FROM patgate_web_functions;
REVOKE EXECUTE ON ALL FUNCTIONS IN SCHEMA patgate FROM PUBLIC;
GRANT EXECUTE ON FUNCTION
    patgate.web_status, patgate.web_wake, patgate.web_password_salt, patgate.web_begin_attempt,
    patgate.web_begin_local_session, patgate.web_begin_oidc_session, patgate.web_invitation,
    patgate.web_accept_invitation, patgate.web_session, patgate.web_end_session,
    patgate.web_end_all_sessions, patgate.web_elevate, patgate.web_lower,
    patgate.web_change_password
TO patgate_web;
