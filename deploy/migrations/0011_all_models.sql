-- Whether a domain sees all models is said explicitly. Before, an empty list meant "all", so that
-- taking the last model off a list opened every model.
--
-- A domain without `all_models` sees what it lists in patgate.domain_models, and nothing if it lists
-- nothing. The previous release does not know the column and takes a domain without rows for one
-- that sees all. So every domain that does not see all models has one row that names none: the name
-- contains a `*`, so no release takes it for the name of a model, and a space and parentheses, so no
-- release takes it for a pattern. No command can write or remove it; triggers keep it.

ALTER TABLE patgate.domain_models
    DROP CONSTRAINT domain_models_pattern,
    ADD CONSTRAINT domain_models_pattern
        CHECK (model NOT LIKE '%*%' OR model ~ '^[A-Za-z0-9._:/@+*-]+$' OR model = '(none) *')
        NOT VALID;

-- Closed unless said otherwise, also for a domain that the previous release creates.
ALTER TABLE patgate.domains ADD COLUMN all_models boolean NOT NULL DEFAULT false;

-- Both statements above lock their table until the end, so no list changes in between.
UPDATE patgate.domains d SET all_models = true
WHERE NOT EXISTS (SELECT FROM patgate.domain_models m WHERE m.domain_id = d.id);
INSERT INTO patgate.domain_models (domain_id, model, upstream)
SELECT id, '(none) *', upstream FROM patgate.domains WHERE NOT all_models;

-- The row that names no model is there exactly if the domain does not see all, and names the
-- domain's own backend, so that it keeps no other one in use.
CREATE FUNCTION patgate.keep_domain_closed() RETURNS trigger
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    IF NEW.all_models THEN
        DELETE FROM patgate.domain_models WHERE domain_id = NEW.id AND model = '(none) *';
        IF EXISTS (SELECT FROM patgate.domain_models WHERE domain_id = NEW.id) THEN
            RAISE EXCEPTION 'domain % lists models, so it cannot see all of them', NEW.slug
                USING ERRCODE = 'check_violation',
                      HINT = 'Delete its rows in patgate.domain_models first.';
        END IF;
    ELSE
        INSERT INTO patgate.domain_models AS m (domain_id, model, upstream)
        VALUES (NEW.id, '(none) *', NEW.upstream)
        ON CONFLICT (domain_id, model) DO UPDATE SET upstream = excluded.upstream
            WHERE m.upstream <> excluded.upstream;
    END IF;
    RETURN NULL;
END
$$;

-- A domain that lists a model does not see all, whichever release or statement listed it.
CREATE FUNCTION patgate.keep_list_closed() RETURNS trigger
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    IF TG_OP <> 'DELETE' THEN
        UPDATE patgate.domains SET all_models = false WHERE id = NEW.domain_id AND all_models;
    END IF;
    IF TG_OP <> 'INSERT' AND OLD.model = '(none) *' THEN
        -- There is no such domain if this row went with it.
        INSERT INTO patgate.domain_models (domain_id, model, upstream)
        SELECT id, '(none) *', upstream FROM patgate.domains
        WHERE id = OLD.domain_id AND NOT all_models
        ON CONFLICT DO NOTHING;
    END IF;
    RETURN NULL;
END
$$;

CREATE FUNCTION patgate.keep_lists_closed() RETURNS trigger
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    INSERT INTO patgate.domain_models (domain_id, model, upstream)
    SELECT id, '(none) *', upstream FROM patgate.domains WHERE NOT all_models
    ON CONFLICT DO NOTHING;
    RETURN NULL;
END
$$;

-- Not ALWAYS: where rows are replayed or restored, this one is among them.
CREATE TRIGGER keep_closed AFTER INSERT OR UPDATE OF all_models, upstream ON patgate.domains
    FOR EACH ROW EXECUTE FUNCTION patgate.keep_domain_closed();
CREATE TRIGGER keep_closed AFTER INSERT OR DELETE OR UPDATE OF domain_id, model
    ON patgate.domain_models
    FOR EACH ROW EXECUTE FUNCTION patgate.keep_list_closed();
CREATE TRIGGER keep_closed_after_truncation AFTER TRUNCATE ON patgate.domain_models
    FOR EACH STATEMENT EXECUTE FUNCTION patgate.keep_lists_closed();

REVOKE EXECUTE ON ALL FUNCTIONS IN SCHEMA patgate FROM PUBLIC;
