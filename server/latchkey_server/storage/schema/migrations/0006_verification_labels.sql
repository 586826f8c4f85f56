-- breaking: servers of the release before count by key only, and fold usage only.
--
-- Verifications are summed twice, like usage: by key, and by the label under which the keys' usage is folded
-- (key.folded_environment), both in one transaction. Secrets that no key has lie under an api of all zeros and no label.

-- A server of the release before that is still running must not make the two disagree: what it does by itself ends with
-- its portion, and for what it counts from now on it finds no table.
UPDATE lease SET holder = 'migration 0006', end_time = now() + interval '1 minute';
LOCK TABLE workspace IN EXCLUSIVE MODE;
ALTER TABLE verification_quarter RENAME TO verification_key_quarter;
ALTER INDEX verification_quarter_pkey RENAME TO verification_key_quarter_pkey;
ALTER INDEX verification_quarter_by_key RENAME TO verification_key_quarter_by_key;

-- Every question is either about rows that are `tagged` or about those that are not. Reads add the keys whose label has
-- changed since under their label of now and subtract them here, until upkeep has moved them.
CREATE TABLE verification_label_quarter (
    workspace_id uuid NOT NULL,
    quarter timestamptz NOT NULL,
    environment text NOT NULL,
    api_id uuid NOT NULL,
    code smallint NOT NULL,
    management_key_id uuid NOT NULL,
    model text NOT NULL,
    tag text NOT NULL,
    tagged boolean NOT NULL,
    prefix text NOT NULL,
    other boolean NOT NULL,
    verifications bigint NOT NULL,
    PRIMARY KEY (
        workspace_id, quarter, tagged, environment, api_id, code, management_key_id, model, tag, prefix, other
    )
);

INSERT INTO verification_label_quarter
SELECT v.workspace_id, v.quarter, coalesce(k.folded_environment, ''),
    coalesce(k.api_id, '00000000-0000-0000-0000-000000000000'), v.code, v.management_key_id, v.model, v.tag, v.tagged,
    v.prefix, v.other, sum(v.verifications)
FROM verification_key_quarter v LEFT JOIN key k ON k.workspace_id = v.workspace_id AND k.key_id = v.key_id
GROUP BY 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11;
ANALYZE verification_label_quarter;
