-- Users of a platform, as one of its domains serves them: what a scope or a rule may be about.
-- A release that does not know the type ignores scopes on it.

INSERT INTO patgate.entity_operations (entity_type, operation)
SELECT 'users', operation
FROM unnest(ARRAY['read', 'create', 'update', 'delete', 'enable', 'disable']) AS operation;
