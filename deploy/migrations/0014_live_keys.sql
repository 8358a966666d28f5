-- Which keys have signed live tokens is found without reading dead ones. While the index is built,
-- changes of tokens wait, and look-ups do not.
CREATE INDEX pats_live_keys ON patgate.pats (key_id, expires_at DESC) WHERE revoked_at IS NULL;
