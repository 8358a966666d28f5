-- What was changed in the database without patgate's commands and self-service: for psql, with a login
-- that may read all of it, such as the owner of the tables.
--
--     psql "$DATABASE_URL" -f deploy/audit/unaudited.sql
--
-- It changes nothing. docs/operations.md, "What was changed in Postgres", says how to read the result.

\set ON_ERROR_STOP on
\pset footer off
BEGIN READ ONLY ISOLATION LEVEL REPEATABLE READ;

-- Every command writes its line of the audit log in the transaction of its change, and a row keeps the id
-- of the transaction that wrote it last. So a row is genuine if a line of the log, or a run of the
-- migrations, has the same id. The rows of canaries have no line; their owner has this id.
\echo 'Rows that were last written by a transaction without a line in the audit log:'
WITH audited (xid) AS (
    SELECT xmin::text FROM patgate.audit_log UNION SELECT xmin::text FROM patgate.migrations
), canaries (id) AS (
    VALUES ('ca4a4700-0000-8000-8000-000000000000'::uuid)
), stored (kind, object, xid) AS (
    SELECT 'user', format('%s (%s)%s%s', u.email, u.id,
                          CASE WHEN u.platform_admin THEN ', platform administrator' END,
                          CASE WHEN NOT u.enabled THEN ', disabled' END), u.xmin::text
        FROM patgate.users u WHERE u.id NOT IN (SELECT id FROM canaries)
    UNION ALL
    SELECT 'token', format('%s (%s) of %s, key %s%s', p.name, p.id, u.email, p.key_id,
                           CASE WHEN p.revoked_at IS NOT NULL THEN ', revoked'
                                WHEN p.expires_at <= now() THEN ', expired' END), p.xmin::text
        FROM patgate.pats p JOIN patgate.users u ON u.id = p.user_id
        WHERE p.user_id NOT IN (SELECT id FROM canaries)
    UNION ALL
    SELECT 'scope of a token', format('%s: %s:%s:%s:%s', s.pat_id, d.slug, s.entity_type, s.entity_id,
                                      s.operation), s.xmin::text
        FROM patgate.pat_scopes s JOIN patgate.domains d ON d.id = s.domain_id
    UNION ALL
    SELECT 'domain', format('%s (%s), backend %s%s', d.slug, d.id, d.upstream,
                            CASE WHEN NOT d.enabled THEN ', disabled' END), d.xmin::text
        FROM patgate.domains d
    UNION ALL
    SELECT 'model of a domain', format('%s: %s, backend %s', d.slug, m.model, m.upstream), m.xmin::text
        FROM patgate.domain_models m JOIN patgate.domains d ON d.id = m.domain_id
    UNION ALL
    SELECT 'role', format('%s: %s', d.slug, r.name), r.xmin::text
        FROM patgate.roles r JOIN patgate.domains d ON d.id = r.domain_id
    UNION ALL
    SELECT 'operation of a role', format('%s: %s may %s', d.slug, r.name, o.operation), o.xmin::text
        FROM patgate.role_operations o JOIN patgate.roles r ON r.id = o.role_id
        JOIN patgate.domains d ON d.id = r.domain_id
    UNION ALL
    SELECT 'member of a role', format('%s: %s has %s', d.slug, u.email, r.name), m.xmin::text
        FROM patgate.role_members m JOIN patgate.roles r ON r.id = m.role_id
        JOIN patgate.domains d ON d.id = r.domain_id JOIN patgate.users u ON u.id = m.user_id
    UNION ALL
    SELECT 'backend', format('%s: %s%s', b.name, b.url,
                             ', credential sealed with key ' || b.credential_key_id), b.xmin::text
        FROM patgate.backends b
    UNION ALL
    SELECT 'provider of sign-ins', i.issuer, i.xmin::text FROM patgate.issuers i
    UNION ALL
    SELECT 'subject of a provider', format('%s of %s is %s', i.subject, i.issuer, u.email), i.xmin::text
        FROM patgate.identities i JOIN patgate.users u ON u.id = i.user_id
    UNION ALL
    SELECT 'password', u.email, a.xmin::text
        FROM patgate.local_accounts a JOIN patgate.users u ON u.id = a.user_id
    UNION ALL
    SELECT 'invitation', format('of user %s, until %s', i.user_id, i.expires_at), i.xmin::text
        FROM patgate.invitations i
    UNION ALL
    SELECT 'policy', 'patgate policy show', p.xmin::text FROM patgate.policy p
    UNION ALL
    SELECT 'installation', i.id::text, i.xmin::text FROM patgate.installation i
)
SELECT s.kind, s.object, s.xid AS transaction FROM stored s
WHERE s.xid NOT IN (SELECT a.xid FROM audited a)
ORDER BY s.xid::bigint, s.kind, s.object;

\echo 'Triggers that are off, or not always on, among them those that keep the audit log and the feed of changes:'
SELECT t.tgrelid::regclass AS "table", t.tgname AS trigger
FROM pg_trigger t JOIN pg_class c ON c.oid = t.tgrelid
WHERE c.relnamespace = 'patgate'::regnamespace
  AND CASE WHEN t.tgname IN ('record_change', 'record_truncation', 'append_only')
           THEN t.tgenabled <> 'A' ELSE t.tgenabled NOT IN ('O', 'A') END
ORDER BY 1, 2;

\echo 'Lines of the audit log by login and actor:'
SELECT a.login, a.actor, count(*) AS lines, min(a.at) AS first, max(a.at) AS last
FROM patgate.audit_log a GROUP BY 1, 2 ORDER BY 1, 2;

\echo 'Logins that can change what patgate decides, and by which role:'
SELECT l.rolname AS login, CASE WHEN l.rolsuper THEN 'superuser'
                                ELSE string_agg(r.rolname, ', ' ORDER BY r.rolname) END AS through
FROM pg_roles l CROSS JOIN pg_roles r
WHERE l.rolcanlogin AND pg_has_role(l.oid, r.oid, 'MEMBER')
  AND (r.rolsuper OR r.rolcreaterole OR r.oid = (SELECT d.datdba FROM pg_database d
                                                  WHERE d.datname = current_database())
       OR r.rolname IN ('patgate_admin', 'patgate_migrate', 'patgate_web', 'patgate_web_functions',
                        'patgate_serve', 'pg_write_all_data', 'pg_execute_server_program',
                        'pg_write_server_files'))
GROUP BY l.rolname, l.rolsuper ORDER BY 1;

\echo 'Grants on patgate''s tables and functions to others than its roles and their owners:'
SELECT c.object, coalesce(g.rolname, 'PUBLIC') AS grantee, string_agg(DISTINCT a.privilege_type, ', ') AS privileges
FROM (SELECT c.oid::regclass::text AS object, c.relacl AS acl, c.relowner AS owner FROM pg_class c
          WHERE c.relnamespace = 'patgate'::regnamespace
      UNION ALL
      SELECT att.attrelid::regclass || '.' || att.attname, att.attacl, c.relowner
          FROM pg_attribute att JOIN pg_class c ON c.oid = att.attrelid
          WHERE c.relnamespace = 'patgate'::regnamespace
      UNION ALL
      SELECT p.oid::regprocedure::text, p.proacl, p.proowner FROM pg_proc p
          WHERE p.pronamespace = 'patgate'::regnamespace) c
CROSS JOIN LATERAL aclexplode(c.acl) a
LEFT JOIN pg_roles g ON g.oid = a.grantee
WHERE a.grantee <> c.owner AND coalesce(g.rolname, 'PUBLIC') NOT IN (
    'patgate_admin', 'patgate_migrate', 'patgate_web', 'patgate_web_functions', 'patgate_serve',
    'patgate_sync')
GROUP BY 1, 2 ORDER BY 1, 2;

ROLLBACK;
