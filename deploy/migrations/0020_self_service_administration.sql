-- What platform administrators do in the page and by the API: users, domains, models and backends.
-- Not the credentials of backends, which these functions' owner cannot even read. Errors are listed
-- in 0017.

GRANT CREATE ON SCHEMA patgate TO patgate_web_functions;
SET LOCAL ROLE patgate_web_functions;

-- A platform administrator who has lately proven the password; fails for everyone else.
CREATE FUNCTION patgate.web_internal_admin(proof bytea, changes boolean) RETURNS patgate.web_actor
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    me CONSTANT patgate.web_actor := CASE WHEN changes
        THEN patgate.web_internal_changing(proof) ELSE patgate.web_internal_actor(proof) END;
BEGIN
    IF (me).elevated IS NOT TRUE THEN
        PERFORM patgate.web_internal_refuse_admin(me);
    END IF;
    RETURN me;
END
$$;

CREATE FUNCTION patgate.web_users(proof bytea, part text, skip bigint, most bigint) RETURNS jsonb
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    PERFORM patgate.web_internal_admin(proof, false);
    RETURN (
        WITH matching AS (
            SELECT u.* FROM patgate.users u
            WHERE u.id <> 'ca4a4700-0000-8000-8000-000000000000'
              AND (part IS NULL OR strpos(u.email, lower(part)) > 0
                   OR strpos(lower(u.name), lower(part)) > 0))
        SELECT jsonb_build_object(
            'total', (SELECT count(*) FROM matching),
            'users', coalesce(jsonb_agg(jsonb_build_object(
                'id', u.id, 'email', u.email, 'name', u.name, 'enabled', u.enabled,
                'platform_admin', u.platform_admin,
                'created_at', patgate.web_internal_utc(u.created_at),
                'has_password', EXISTS (
                    SELECT FROM patgate.local_accounts a WHERE a.user_id = u.id),
                'live_tokens', (
                    SELECT count(*) FROM patgate.pats p
                    WHERE p.user_id = u.id AND p.revoked_at IS NULL
                      AND p.expires_at > clock_timestamp()))
                ORDER BY u.email), '[]'))
        FROM (SELECT * FROM matching m ORDER BY m.email
              OFFSET greatest(skip, 0) LIMIT least(greatest(most, 0), 1000)) AS u);
END
$$;

CREATE FUNCTION patgate.web_create_user(
    proof bytea, address inet, request text, new_email text, new_name text, admin boolean
) RETURNS jsonb
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    me   CONSTANT patgate.web_actor := patgate.web_internal_admin(proof, true);
    made CONSTANT uuid := gen_random_uuid();
BEGIN
    BEGIN
        INSERT INTO patgate.users (id, email, name, platform_admin)
        VALUES (made, lower(new_email), new_name, admin);
    EXCEPTION
        WHEN unique_violation THEN
            RAISE EXCEPTION 'a user has this address' USING ERRCODE = 'PW005';
        WHEN check_violation OR not_null_violation THEN
            RAISE EXCEPTION 'the address or the name is not valid' USING ERRCODE = 'PW008';
    END;
    PERFORM patgate.web_internal_audit(
        me, address, request, 'user.create', made::text,
        jsonb_build_object('email', lower(new_email), 'name', new_name, 'platform_admin', admin));
    RETURN patgate.web_internal_changed(jsonb_build_object('id', made));
END
$$;

-- Enables or disables a user, or gives or takes the platform administrator's rights; NULL leaves it.
CREATE FUNCTION patgate.web_update_user(
    proof bytea, address inet, request text, who text, now_enabled boolean, now_admin boolean
) RETURNS jsonb
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    me CONSTANT patgate.web_actor := patgate.web_internal_admin(proof, true);
    he CONSTANT patgate.users := patgate.web_internal_user(who);
BEGIN
    IF he.id = (me).user_id THEN
        RAISE EXCEPTION 'ask another platform administrator to change your own user'
            USING ERRCODE = 'PW008';
    END IF;
    IF now_enabled IS NOT NULL THEN
        UPDATE patgate.users u SET enabled = now_enabled WHERE u.id = he.id;
        PERFORM patgate.web_internal_audit(
            me, address, request, CASE WHEN now_enabled THEN 'user.enable' ELSE 'user.disable' END,
            he.id::text, jsonb_build_object('email', he.email));
    END IF;
    IF now_admin IS NOT NULL THEN
        UPDATE patgate.users u SET platform_admin = now_admin WHERE u.id = he.id;
        PERFORM patgate.web_internal_audit(
            me, address, request, 'user.set_platform_admin', he.id::text,
            jsonb_build_object('email', he.email, 'platform_admin', now_admin));
    END IF;
    RETURN patgate.web_internal_changed('null', patgate.web_internal_tokens_of(he.id));
END
$$;

CREATE FUNCTION patgate.web_delete_user(proof bytea, address inet, request text, who text)
RETURNS jsonb
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    me       CONSTANT patgate.web_actor := patgate.web_internal_admin(proof, true);
    he       CONSTANT patgate.users := patgate.web_internal_user(who);
    outdated uuid[];
BEGIN
    IF he.id = (me).user_id THEN
        RAISE EXCEPTION 'ask another platform administrator to delete your own user'
            USING ERRCODE = 'PW008';
    END IF;
    PERFORM FROM patgate.users u WHERE u.id = he.id FOR UPDATE;
    outdated := patgate.web_internal_tokens_of(he.id);
    DELETE FROM patgate.users u WHERE u.id = he.id;
    PERFORM patgate.web_internal_audit(
        me, address, request, 'user.delete', he.id::text,
        jsonb_build_object('email', he.email, 'tokens', cardinality(outdated)));
    RETURN patgate.web_internal_changed('null', outdated);
END
$$;

-- Invites a user to set a password. A later invitation replaces an earlier one.
CREATE FUNCTION patgate.web_invite(
    proof bytea, address inet, request text, who text, invitation bytea, life bigint
) RETURNS jsonb
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    me      CONSTANT patgate.web_actor := patgate.web_internal_admin(proof, true);
    he      CONSTANT patgate.users := patgate.web_internal_user(who);
    expires CONSTANT timestamptz := clock_timestamp()
        + least(life * interval '1 microsecond', interval '7 days');
BEGIN
    IF octet_length(invitation) IS DISTINCT FROM 32 OR expires IS NULL THEN
        RAISE EXCEPTION 'an invitation needs a proof and a time' USING ERRCODE = 'PW008';
    END IF;
    DELETE FROM patgate.invitations i
    WHERE i.user_id = he.id OR i.expires_at < clock_timestamp();
    INSERT INTO patgate.invitations (proof_hash, user_id, expires_at)
    VALUES (sha256(invitation), he.id, expires);
    PERFORM patgate.web_internal_audit(
        me, address, request, 'account.invite', he.id::text,
        jsonb_build_object('email', he.email, 'expires_at', patgate.web_internal_utc(expires)));
    RETURN patgate.web_internal_changed(
        jsonb_build_object('email', he.email, 'expires_at', patgate.web_internal_utc(expires)));
END
$$;

CREATE FUNCTION patgate.web_domains(proof bytea) RETURNS jsonb
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    PERFORM patgate.web_internal_admin(proof, false);
    RETURN (
        SELECT coalesce(jsonb_agg(jsonb_build_object(
            'id', d.id, 'slug', d.slug, 'name', d.name, 'enabled', d.enabled, 'mode', d.mode,
            'enforced_share', d.enforced_share, 'upstream', d.upstream,
            'all_models', d.all_models,
            'created_at', patgate.web_internal_utc(d.created_at),
            'models', (SELECT coalesce(jsonb_agg(jsonb_build_object(
                           'model', m.model, 'upstream', m.upstream) ORDER BY m.model), '[]')
                       FROM patgate.domain_models m
                       WHERE m.domain_id = d.id AND m.model <> '(none) *'))
            ORDER BY d.slug), '[]')
        FROM patgate.domains d);
END
$$;

CREATE FUNCTION patgate.web_internal_outdated_domain(domain uuid) RETURNS uuid[]
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
    SELECT ARRAY(SELECT DISTINCT s.pat_id FROM patgate.pat_scopes s WHERE s.domain_id = domain)
$$;

-- Creates a domain with a role `admin` that holds every operation. Without `models`, it sees every
-- model.
CREATE FUNCTION patgate.web_create_domain(
    proof bytea, address inet, request text, new_slug text, new_name text, backend text,
    models text[]
) RETURNS jsonb
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    me   CONSTANT patgate.web_actor := patgate.web_internal_admin(proof, true);
    made CONSTANT uuid := gen_random_uuid();
    role CONSTANT uuid := gen_random_uuid();
BEGIN
    BEGIN
        INSERT INTO patgate.domains (id, slug, name, upstream, all_models)
        VALUES (made, new_slug, new_name, backend, models IS NULL);
        INSERT INTO patgate.domain_models (domain_id, model, upstream)
        SELECT DISTINCT made, m, backend FROM unnest(models) m;
    EXCEPTION
        WHEN unique_violation THEN
            RAISE EXCEPTION 'a domain has this slug' USING ERRCODE = 'PW005';
        WHEN foreign_key_violation THEN
            RAISE EXCEPTION 'the backend does not exist' USING ERRCODE = 'PW003';
        WHEN check_violation OR not_null_violation THEN
            RAISE EXCEPTION 'the slug, the name or a model is not valid' USING ERRCODE = 'PW008';
    END;
    INSERT INTO patgate.roles (id, domain_id, name) VALUES (role, made, 'admin');
    INSERT INTO patgate.role_operations (role_id, operation)
    SELECT role, o.operation FROM patgate.operations o;
    PERFORM patgate.web_internal_audit(
        me, address, request, 'domain.create', made::text,
        jsonb_build_object('slug', new_slug, 'name', new_name, 'upstream', backend,
                           'all_models', models IS NULL, 'models', models));
    RETURN patgate.web_internal_changed(
        jsonb_build_object('id', made), '{}', ARRAY[made::text, new_slug]);
END
$$;

-- Changes a domain; NULL leaves a part as it is. With `sees_all`, its list of models is deleted.
CREATE FUNCTION patgate.web_update_domain(
    proof bytea, address inet, request text, domain text, new_slug text, now_enabled boolean,
    backend text, new_mode text, new_share smallint, sees_all boolean
) RETURNS jsonb
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    me     CONSTANT patgate.web_actor := patgate.web_internal_admin(proof, true);
    at     record;
    before patgate.domains;
BEGIN
    at := patgate.web_internal_domain(me, domain, false);
    SELECT * INTO before FROM patgate.domains d WHERE d.id = at.id FOR UPDATE;
    BEGIN
        IF sees_all THEN
            DELETE FROM patgate.domain_models m WHERE m.domain_id = at.id;
        END IF;
        UPDATE patgate.domains d SET slug = coalesce(new_slug, d.slug),
            enabled = coalesce(now_enabled, d.enabled), upstream = coalesce(backend, d.upstream),
            mode = coalesce(new_mode, d.mode),
            enforced_share = coalesce(new_share, d.enforced_share),
            all_models = d.all_models OR coalesce(sees_all, false)
        WHERE d.id = at.id;
    EXCEPTION
        WHEN unique_violation THEN
            RAISE EXCEPTION 'a domain has this slug' USING ERRCODE = 'PW005';
        WHEN foreign_key_violation THEN
            RAISE EXCEPTION 'the backend does not exist' USING ERRCODE = 'PW003';
        WHEN check_violation THEN
            RAISE EXCEPTION 'the slug, the mode or the share is not valid'
                USING ERRCODE = 'PW008';
    END;
    PERFORM patgate.web_internal_audit(
        me, address, request, 'domain.update', d.id::text, jsonb_strip_nulls(jsonb_build_object(
            'slug', d.slug, 'slug_before', before.slug, 'enabled', d.enabled,
            'enabled_before', before.enabled, 'upstream', d.upstream,
            'upstream_before', before.upstream, 'mode', d.mode, 'mode_before', before.mode,
            'enforced_share', d.enforced_share, 'enforced_share_before', before.enforced_share,
            'all_models', d.all_models, 'all_models_before', before.all_models)))
    FROM patgate.domains d WHERE d.id = at.id;
    RETURN patgate.web_internal_changed(
        'null', patgate.web_internal_outdated_domain(at.id),
        ARRAY[at.id::text, before.slug, coalesce(new_slug, before.slug)]);
END
$$;

CREATE FUNCTION patgate.web_delete_domain(proof bytea, address inet, request text, domain text)
RETURNS jsonb
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    me       CONSTANT patgate.web_actor := patgate.web_internal_admin(proof, true);
    at       record;
    outdated uuid[];
BEGIN
    at := patgate.web_internal_domain(me, domain, false);
    PERFORM FROM patgate.domains d WHERE d.id = at.id FOR UPDATE;
    outdated := patgate.web_internal_outdated_domain(at.id);
    DELETE FROM patgate.domains d WHERE d.id = at.id;
    PERFORM patgate.web_internal_audit(
        me, address, request, 'domain.delete', at.id::text,
        jsonb_build_object('slug', at.slug, 'tokens', cardinality(outdated)));
    RETURN patgate.web_internal_changed('null', outdated, ARRAY[at.id::text, at.slug]);
END
$$;

-- Lets a domain see a model, served by a backend; without a backend, takes the model off its list.
CREATE FUNCTION patgate.web_set_model(
    proof bytea, address inet, request text, domain text, listed text, backend text
) RETURNS jsonb
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    me CONSTANT patgate.web_actor := patgate.web_internal_admin(proof, true);
    at record;
BEGIN
    at := patgate.web_internal_domain(me, domain, false);
    PERFORM FROM patgate.domains d WHERE d.id = at.id FOR UPDATE;
    IF listed = '(none) *' THEN
        RAISE EXCEPTION 'the name of the model is not valid' USING ERRCODE = 'PW008';
    END IF;
    IF backend IS NULL THEN
        DELETE FROM patgate.domain_models m WHERE m.domain_id = at.id AND m.model = listed;
        IF NOT FOUND THEN
            RAISE EXCEPTION 'the domain does not list this model' USING ERRCODE = 'PW003';
        END IF;
    ELSE
        BEGIN
            INSERT INTO patgate.domain_models (domain_id, model, upstream)
            VALUES (at.id, listed, backend)
            ON CONFLICT (domain_id, model) DO UPDATE SET upstream = excluded.upstream;
        EXCEPTION
            WHEN foreign_key_violation THEN
                RAISE EXCEPTION 'the backend does not exist' USING ERRCODE = 'PW003';
            WHEN check_violation OR not_null_violation THEN
                RAISE EXCEPTION 'the name of the model is not valid' USING ERRCODE = 'PW008';
        END;
    END IF;
    PERFORM patgate.web_internal_audit(
        me, address, request,
        CASE WHEN backend IS NULL THEN 'domain.unset_model' ELSE 'domain.set_model' END,
        at.id::text,
        jsonb_build_object('slug', at.slug, 'model', listed, 'upstream', backend));
    RETURN patgate.web_internal_changed(
        'null', patgate.web_internal_outdated_domain(at.id), ARRAY[at.id::text, at.slug]);
END
$$;

CREATE FUNCTION patgate.web_internal_domains_of_backend(backend text) RETURNS text[]
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
    SELECT ARRAY(
        SELECT x FROM patgate.domains d CROSS JOIN LATERAL unnest(ARRAY[d.slug, d.id::text]) x
        WHERE d.upstream = backend OR EXISTS (
            SELECT FROM patgate.domain_models m
            WHERE m.domain_id = d.id AND m.upstream = backend)
        ORDER BY 1)
$$;

CREATE FUNCTION patgate.web_backends(proof bytea) RETURNS jsonb
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    PERFORM patgate.web_internal_admin(proof, false);
    RETURN (
        SELECT coalesce(jsonb_agg(jsonb_build_object(
            'name', b.name, 'url', b.url, 'kind', b.kind,
            'created_at', patgate.web_internal_utc(b.created_at),
            'domains', (SELECT coalesce(jsonb_agg(d.slug ORDER BY d.slug), '[]')
                        FROM patgate.domains d
                        WHERE d.upstream = b.name OR EXISTS (
                            SELECT FROM patgate.domain_models m
                            WHERE m.domain_id = d.id AND m.upstream = b.name)))
            ORDER BY b.name), '[]')
        FROM patgate.backends b);
END
$$;

-- Creates a backend, or changes its address or kind.
CREATE FUNCTION patgate.web_set_backend(
    proof bytea, address inet, request text, creates boolean, backend text, new_url text,
    new_kind text
) RETURNS jsonb
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    me CONSTANT patgate.web_actor := patgate.web_internal_admin(proof, true);
BEGIN
    BEGIN
        IF creates THEN
            INSERT INTO patgate.backends (name, url, kind) VALUES (backend, new_url, new_kind);
        ELSE
            UPDATE patgate.backends b SET url = coalesce(new_url, b.url),
                kind = coalesce(new_kind, b.kind)
            WHERE b.name = backend;
            IF NOT FOUND THEN
                RAISE EXCEPTION 'the backend does not exist' USING ERRCODE = 'PW003';
            END IF;
        END IF;
    EXCEPTION
        WHEN unique_violation THEN
            RAISE EXCEPTION 'a backend has this name' USING ERRCODE = 'PW005';
        WHEN check_violation OR not_null_violation THEN
            RAISE EXCEPTION 'the name, the URL or the kind is not valid' USING ERRCODE = 'PW008';
    END;
    PERFORM patgate.web_internal_audit(
        me, address, request, CASE WHEN creates THEN 'backend.create' ELSE 'backend.update' END,
        backend, jsonb_build_object('url', new_url, 'kind', new_kind));
    RETURN patgate.web_internal_changed(
        'null', '{}', patgate.web_internal_domains_of_backend(backend), ARRAY[backend]);
END
$$;

CREATE FUNCTION patgate.web_delete_backend(proof bytea, address inet, request text, backend text)
RETURNS jsonb
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    me CONSTANT patgate.web_actor := patgate.web_internal_admin(proof, true);
BEGIN
    BEGIN
        DELETE FROM patgate.backends b WHERE b.name = backend;
        IF NOT FOUND THEN
            RAISE EXCEPTION 'the backend does not exist' USING ERRCODE = 'PW003';
        END IF;
    EXCEPTION WHEN foreign_key_violation THEN
        RAISE EXCEPTION 'domains use the backend; give them another one first'
            USING ERRCODE = 'PW008';
    END;
    PERFORM patgate.web_internal_audit(
        me, address, request, 'backend.delete', backend, '{}');
    RETURN patgate.web_internal_changed('null', '{}', '{}', ARRAY[backend]);
END
$$;

SET LOCAL ROLE patgate_migrate;
REVOKE CREATE ON SCHEMA patgate FROM patgate_web_functions;
REVOKE EXECUTE ON ALL FUNCTIONS IN SCHEMA patgate FROM PUBLIC;
GRANT EXECUTE ON FUNCTION
    patgate.web_users, patgate.web_create_user, patgate.web_update_user, patgate.web_delete_user,
    patgate.web_invite, patgate.web_domains, patgate.web_create_domain,
    patgate.web_update_domain, patgate.web_delete_domain, patgate.web_set_model,
    patgate.web_backends, patgate.web_set_backend, patgate.web_delete_backend
TO patgate_web;

-- A function that waits for a lock gives up.
DO $$
DECLARE
    own regprocedure;
BEGIN
    FOR own IN SELECT p.oid FROM pg_proc p
        WHERE p.pronamespace = 'patgate'::regnamespace AND p.prosecdef
          AND starts_with(p.proname, 'web_')
    LOOP
        EXECUTE format('ALTER FUNCTION %s SET lock_timeout = %L', own, '5s');
    END LOOP;
END
$$;
