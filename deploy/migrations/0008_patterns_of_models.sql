-- A pattern is written with what occurs in the names of models; one with anything else would look as
-- if it worked, and matches nothing. NOT VALID, as in 0006.
ALTER TABLE patgate.domain_models
    ADD CONSTRAINT domain_models_pattern
        CHECK (model NOT LIKE '%*%' OR model ~ '^[A-Za-z0-9._:/@+*-]+$') NOT VALID;
