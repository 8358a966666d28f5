-- How far a domain is enforced, for replicas whose configuration leaves that to domains. A change
-- is recorded for the feed like that of any column of patgate.domains.
ALTER TABLE patgate.domains
    ADD COLUMN mode text NOT NULL DEFAULT 'enforce'
        CHECK (mode IN ('enforce', 'shadow')),
    -- Per cent of the domain's tokens, where the mode is to enforce.
    ADD COLUMN enforced_share smallint NOT NULL DEFAULT 100
        CHECK (enforced_share BETWEEN 0 AND 100);
