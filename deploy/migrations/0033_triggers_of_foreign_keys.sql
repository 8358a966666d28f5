-- Triggers of foreign keys count as well. `ALTER TABLE … DISABLE TRIGGER ALL` by a superuser switches
-- them off with patgate's own: then a deletion leaves rows behind that refer to what is gone, and the
-- changes of these rows are not recorded either. Only a superuser can switch them.
CREATE OR REPLACE FUNCTION patgate.recording(OUT off text, OUT switched bigint, OUT triggers bigint)
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    ended CONSTANT bigint := pg_snapshot_xmax(pg_current_snapshot())::text::bigint - 1;
    tables CONSTANT text[] := '{pats,pat_scopes,users,domains,domain_models,roles,role_operations,
                                role_members,backends}';
    keys text;
BEGIN
    SELECT string_agg(relation || '.' || name, ', ' ORDER BY relation, name)
               FILTER (WHERE t.tgenabled IS DISTINCT FROM 'A'),
           coalesce(max(ended - ((ended - t.xmin::text::bigint) & 4294967295)), 0),
           coalesce(hashtextextended(
               string_agg(t.oid || ':' || t.xmin, ',' ORDER BY t.oid), 0), 0)
        INTO off, switched, triggers
    FROM unnest(tables) AS relation
    CROSS JOIN unnest('{record_change,record_truncation}'::text[]) AS name
    LEFT JOIN pg_trigger t
        ON t.tgrelid = to_regclass('patgate.' || relation) AND t.tgname = name;

    SELECT string_agg(DISTINCT relation || '.' || k.conname || ' (foreign key)', ', ')
        INTO keys
    FROM unnest(tables) AS relation
    JOIN pg_trigger t ON t.tgrelid = to_regclass('patgate.' || relation)
    JOIN pg_constraint k ON k.oid = t.tgconstraint
    WHERE t.tgisinternal AND t.tgenabled NOT IN ('O', 'A');
    off := nullif(concat_ws(', ', off, keys), '');
END
$$;
