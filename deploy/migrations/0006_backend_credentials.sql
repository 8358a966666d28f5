-- A backend's own credential, which patgate puts into `Authorization` on the way to it. Encrypted
-- under a key that the database does not hold, for this backend alone; see src/credential.rs.
ALTER TABLE patgate.backends
    -- Version (1), nonce (12), text and tag (16).
    ADD COLUMN credential        bytea CHECK (octet_length(credential) BETWEEN 30 AND 8192),
    ADD COLUMN credential_key_id text CHECK (credential_key_id ~ '^[a-z0-9][a-z0-9-]{0,31}$'),
    ADD COLUMN credential_set_at timestamptz CHECK (isfinite(credential_set_at)),
    ADD CONSTRAINT backends_credential_whole_or_absent
        CHECK (num_nulls(credential, credential_key_id, credential_set_at) IN (0, 3));
CREATE INDEX backends_credential_key_id ON patgate.backends (credential_key_id);

-- What is known of a domain rests on its backends by name, not on a list of domains made here: a
-- domain that takes up a backend at the same moment would not be on it.
ALTER TABLE patgate.changes
    DROP CONSTRAINT changes_kind_check,
    ADD CONSTRAINT changes_kind_check CHECK (kind IN (
        'token', 'user', 'domain', 'slug', 'membership', 'backend', 'everything'));

CREATE FUNCTION patgate.backends_changed() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    PERFORM patgate.record_change('backend', OLD.name);
    PERFORM patgate.record_change('backend', NEW.name);
    RETURN NULL;
END
$$;
-- No answer rests on its URL or kind.
CREATE TRIGGER record_change
    AFTER INSERT OR DELETE OR UPDATE OF name, credential, credential_key_id ON patgate.backends
    FOR EACH ROW EXECUTE FUNCTION patgate.backends_changed();
CREATE TRIGGER record_truncation AFTER TRUNCATE ON patgate.backends
    FOR EACH STATEMENT EXECUTE FUNCTION patgate.everything_changed();
ALTER TABLE patgate.backends ENABLE ALWAYS TRIGGER record_change;
ALTER TABLE patgate.backends ENABLE ALWAYS TRIGGER record_truncation;

-- A pattern has one `*`; one with more matches nothing. NOT VALID: where such an entry exists, it
-- may be all that keeps its domain from seeing every model, so it is neither removed nor a reason
-- not to migrate.
ALTER TABLE patgate.domain_models
    ADD CONSTRAINT domain_models_one_wildcard CHECK (model NOT LIKE '%*%*%') NOT VALID;
