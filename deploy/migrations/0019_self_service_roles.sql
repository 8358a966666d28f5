-- What those who govern a domain do with its roles and members, and what platform administrators do.
-- Errors are listed in 0017.
--
-- Nobody makes, changes or gives a role that can do more than they can themselves: an operation that
-- governs roles is no way to every other operation. For taking away the same holds, so that those who
-- may do little do not remove those who may do more.

GRANT CREATE ON SCHEMA patgate TO patgate_web_functions;
SET LOCAL ROLE patgate_web_functions;

-- The domain, by slug or id, if the actor may do something in it. A domain in which they may do
-- nothing does not exist for them.
CREATE FUNCTION patgate.web_internal_domain(
    me patgate.web_actor, reference text, hold boolean,
    OUT id uuid, OUT slug text, OUT held text[]
)
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    SELECT d.id, d.slug INTO web_internal_domain.id, web_internal_domain.slug
    FROM patgate.domains d WHERE d.slug = reference OR d.id::text = reference;
    held := patgate.web_internal_held(me, web_internal_domain.id, hold);
    IF web_internal_domain.id IS NULL OR cardinality(held) = 0 THEN
        RAISE EXCEPTION 'the domain does not exist' USING ERRCODE = 'PW003';
    END IF;
END
$$;

CREATE FUNCTION patgate.web_internal_need(held text[], needed text) RETURNS void
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    IF needed <> ALL (held) THEN
        RAISE EXCEPTION 'this needs the operation `%` in the domain', needed
            USING ERRCODE = 'PW002';
    END IF;
END
$$;

-- Fails if the actor does not hold one of the operations.
CREATE FUNCTION patgate.web_internal_not_beyond(held text[], operations text[]) RETURNS void
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    unknown text;
    beyond  text;
BEGIN
    SELECT left(o, 100) INTO unknown FROM unnest(operations) o
    WHERE o IS NULL OR NOT EXISTS (SELECT FROM patgate.operations w WHERE w.operation = o)
    LIMIT 1;
    IF FOUND THEN
        RAISE EXCEPTION 'there is no operation `%`', unknown USING ERRCODE = 'PW008';
    END IF;
    SELECT o INTO beyond FROM unnest(operations) o WHERE o <> ALL (held) ORDER BY o LIMIT 1;
    IF FOUND THEN
        RAISE EXCEPTION 'the role has the operation `%`, which you do not have yourself', beyond
            USING ERRCODE = 'PW002';
    END IF;
END
$$;

-- Locks a role that does not go beyond what the actor may do, so that it cannot grow meanwhile.
CREATE FUNCTION patgate.web_internal_role(
    held text[], domain uuid, role_name text, OUT role uuid, OUT operations text[]
)
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    SELECT r.id INTO role FROM patgate.roles r
    WHERE r.domain_id = domain AND r.name = role_name FOR UPDATE;
    IF NOT FOUND THEN
        RAISE EXCEPTION 'the role does not exist' USING ERRCODE = 'PW003';
    END IF;
    operations := ARRAY(
        SELECT o.operation FROM patgate.role_operations o WHERE o.role_id = role ORDER BY 1);
    PERFORM patgate.web_internal_not_beyond(held, operations);
END
$$;

CREATE FUNCTION patgate.web_internal_tokens_of_role(role uuid) RETURNS uuid[]
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
    SELECT ARRAY(SELECT p.id FROM patgate.pats p
                 JOIN patgate.role_members m ON m.user_id = p.user_id WHERE m.role_id = role)
$$;

CREATE FUNCTION patgate.web_internal_user(reference text) RETURNS patgate.users
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    found_user patgate.users;
BEGIN
    SELECT u.* INTO found_user FROM patgate.users u
    WHERE (u.email = lower(reference) OR u.id::text = reference)
      AND u.id <> 'ca4a4700-0000-8000-8000-000000000000';
    IF NOT FOUND THEN
        RAISE EXCEPTION 'the user does not exist' USING ERRCODE = 'PW003';
    END IF;
    RETURN found_user;
END
$$;

-- The roles of a domain; their members only for those who may see them.
CREATE FUNCTION patgate.web_roles(proof bytea, domain text) RETURNS jsonb
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    me CONSTANT patgate.web_actor := patgate.web_internal_actor(proof);
    at record;
BEGIN
    at := patgate.web_internal_domain(me, domain, false);
    IF NOT (ARRAY['view_role_users', 'manage_role', 'add_role_users', 'remove_role_users']
            && at.held)
    THEN
        PERFORM patgate.web_internal_need(at.held, 'view_role_users');
    END IF;
    RETURN (
        SELECT coalesce(jsonb_agg(jsonb_build_object(
            'name', r.name,
            'operations', (SELECT coalesce(jsonb_agg(o.operation ORDER BY o.operation), '[]')
                           FROM patgate.role_operations o WHERE o.role_id = r.id),
            'members', CASE WHEN 'view_role_users' = ANY (at.held) THEN (
                SELECT coalesce(jsonb_agg(u.email ORDER BY u.email), '[]')
                FROM patgate.role_members m JOIN patgate.users u ON u.id = m.user_id
                WHERE m.role_id = r.id) END)
            ORDER BY r.name), '[]')
        FROM patgate.roles r WHERE r.domain_id = at.id);
END
$$;

CREATE FUNCTION patgate.web_create_role(
    proof bytea, address inet, request text, domain text, role_name text, operations text[]
) RETURNS jsonb
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    me   CONSTANT patgate.web_actor := patgate.web_internal_changing(proof);
    role CONSTANT uuid := gen_random_uuid();
    at   record;
BEGIN
    at := patgate.web_internal_domain(me, domain, true);
    PERFORM patgate.web_internal_need(at.held, 'manage_role');
    PERFORM patgate.web_internal_not_beyond(at.held, operations);
    BEGIN
        INSERT INTO patgate.roles (id, domain_id, name) VALUES (role, at.id, role_name);
    EXCEPTION
        WHEN unique_violation THEN
            RAISE EXCEPTION 'the domain has a role with this name' USING ERRCODE = 'PW005';
        WHEN check_violation OR not_null_violation THEN
            RAISE EXCEPTION 'the name of the role is not valid' USING ERRCODE = 'PW008';
    END;
    INSERT INTO patgate.role_operations (role_id, operation)
    SELECT DISTINCT role, o FROM unnest(operations) o;
    PERFORM patgate.web_internal_audit(
        me, address, request, 'role.create', role::text,
        jsonb_build_object('domain', at.slug, 'role', role_name, 'operations', operations));
    RETURN patgate.web_internal_changed('null');
END
$$;

CREATE FUNCTION patgate.web_delete_role(
    proof bytea, address inet, request text, domain text, role_name text
) RETURNS jsonb
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    me       CONSTANT patgate.web_actor := patgate.web_internal_changing(proof);
    at       record;
    it       record;
    outdated uuid[];
BEGIN
    at := patgate.web_internal_domain(me, domain, true);
    PERFORM patgate.web_internal_need(at.held, 'manage_role');
    it := patgate.web_internal_role(at.held, at.id, role_name);
    outdated := patgate.web_internal_tokens_of_role(it.role);
    DELETE FROM patgate.roles r WHERE r.id = it.role;
    PERFORM patgate.web_internal_audit(
        me, address, request, 'role.delete', it.role::text,
        jsonb_build_object('domain', at.slug, 'role', role_name));
    RETURN patgate.web_internal_changed('null', outdated);
END
$$;

-- Adds operations to a role, or takes them from it.
CREATE FUNCTION patgate.web_change_role(
    proof bytea, address inet, request text, domain text, role_name text, added text[],
    taken text[]
) RETURNS jsonb
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    me CONSTANT patgate.web_actor := patgate.web_internal_changing(proof);
    at record;
    it record;
BEGIN
    at := patgate.web_internal_domain(me, domain, true);
    PERFORM patgate.web_internal_need(at.held, 'manage_role');
    it := patgate.web_internal_role(at.held, at.id, role_name);
    PERFORM patgate.web_internal_not_beyond(at.held, added);
    IF cardinality(added) > 0 THEN
        INSERT INTO patgate.role_operations (role_id, operation)
        SELECT it.role, o FROM unnest(added) o ON CONFLICT DO NOTHING;
        PERFORM patgate.web_internal_audit(
            me, address, request, 'role.grant', it.role::text,
            jsonb_build_object('domain', at.slug, 'role', role_name, 'operations', added));
    END IF;
    IF cardinality(taken) > 0 THEN
        DELETE FROM patgate.role_operations o
        WHERE o.role_id = it.role AND o.operation = ANY (taken);
        PERFORM patgate.web_internal_audit(
            me, address, request, 'role.revoke', it.role::text,
            jsonb_build_object('domain', at.slug, 'role', role_name, 'operations', taken));
    END IF;
    RETURN patgate.web_internal_changed(
        'null', patgate.web_internal_tokens_of_role(it.role));
END
$$;

CREATE FUNCTION patgate.web_add_member(
    proof bytea, address inet, request text, domain text, role_name text, member text
) RETURNS jsonb
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    me CONSTANT patgate.web_actor := patgate.web_internal_changing(proof);
    at record;
    it record;
    he patgate.users;
BEGIN
    at := patgate.web_internal_domain(me, domain, true);
    PERFORM patgate.web_internal_need(at.held, 'add_role_users');
    it := patgate.web_internal_role(at.held, at.id, role_name);
    he := patgate.web_internal_user(member);
    INSERT INTO patgate.role_members (role_id, user_id) VALUES (it.role, he.id)
    ON CONFLICT DO NOTHING;
    PERFORM patgate.web_internal_audit(
        me, address, request, 'role.add_member', it.role::text,
        jsonb_build_object('domain', at.slug, 'role', role_name, 'email', he.email));
    RETURN patgate.web_internal_changed('null', patgate.web_internal_tokens_of(he.id));
END
$$;

CREATE FUNCTION patgate.web_remove_member(
    proof bytea, address inet, request text, domain text, role_name text, member text
) RETURNS jsonb
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    me    CONSTANT patgate.web_actor := patgate.web_internal_changing(proof);
    at    record;
    it    record;
    gone  uuid;
    email text;
BEGIN
    at := patgate.web_internal_domain(me, domain, true);
    PERFORM patgate.web_internal_need(at.held, 'remove_role_users');
    it := patgate.web_internal_role(at.held, at.id, role_name);
    -- Only a member is found: who is no member may as well not exist.
    DELETE FROM patgate.role_members m USING patgate.users u
    WHERE m.role_id = it.role AND m.user_id = u.id
      AND (u.email = lower(member) OR u.id::text = member)
    RETURNING u.id, u.email INTO gone, email;
    IF NOT FOUND THEN
        RAISE EXCEPTION 'the role does not have this member' USING ERRCODE = 'PW003';
    END IF;
    PERFORM patgate.web_internal_audit(
        me, address, request, 'role.remove_member', it.role::text,
        jsonb_build_object('domain', at.slug, 'role', role_name, 'email', email));
    RETURN patgate.web_internal_changed('null', patgate.web_internal_tokens_of(gone));
END
$$;

-- The lines of the audit log, the latest first: all of them for a platform administrator; otherwise
-- those about the actor, and about the tokens that they have.
CREATE FUNCTION patgate.web_audit_log(
    proof bytea, everything boolean, who text, what text, about text, before bigint, most bigint
) RETURNS jsonb
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    me  CONSTANT patgate.web_actor := patgate.web_internal_actor(proof);
    own CONSTANT text[] := CASE WHEN NOT everything THEN
        ARRAY(SELECT p.id::text FROM patgate.pats p WHERE p.user_id = (me).user_id)
        || (me).user_id::text END;
BEGIN
    IF everything IS NOT FALSE AND NOT (me).elevated THEN
        PERFORM patgate.web_internal_refuse_admin(me);
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
GRANT EXECUTE ON FUNCTION
    patgate.web_roles, patgate.web_create_role, patgate.web_delete_role, patgate.web_change_role,
    patgate.web_add_member, patgate.web_remove_member, patgate.web_audit_log
TO patgate_web;
