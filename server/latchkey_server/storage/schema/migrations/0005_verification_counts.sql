-- Verifications by outcome. Every one is in one row that is not `tagged`, and in one more for each of its tags; `key_id` is
-- all zeros for secrets that no key has, of which `prefix` tells how they began. `other` marks what is beyond the
-- combinations of caller, model, tag and prefix that are kept apart for a key and day.
CREATE TABLE verification_quarter (
    workspace_id uuid NOT NULL,
    quarter timestamptz NOT NULL,
    key_id uuid NOT NULL,
    code smallint NOT NULL,
    management_key_id uuid NOT NULL,
    model text NOT NULL,
    tag text NOT NULL,
    tagged boolean NOT NULL,
    prefix text NOT NULL,
    other boolean NOT NULL,
    verifications bigint NOT NULL,
    PRIMARY KEY (workspace_id, quarter, key_id, code, management_key_id, model, tag, tagged, prefix, other)
);
CREATE INDEX verification_quarter_by_key ON verification_quarter (workspace_id, key_id, quarter);
