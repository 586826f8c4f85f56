-- breaking: servers of the release before add to roll-ups of another shape.
--
-- Usage is summed twice, in the transaction of its rows: by key, and by label. Both keep quarters of an hour, the widest
-- step on which the days of every time zone begin. `other` marks what is beyond the combinations of (member, model, task)
-- that are kept apart for a key and day; there those three are ''. Sums of money are NUMERIC, because a sum must never
-- overflow.
DROP TABLE usage_key_day;
DROP TABLE usage_key_total;

-- What ingestion adds to. Upkeep packs days that are over into the three tables below and removes them here: the sums of
-- a key are always those of both.
CREATE TABLE usage_key_quarter (
    workspace_id uuid NOT NULL,
    key_id uuid NOT NULL,
    quarter timestamptz NOT NULL,
    member text NOT NULL,
    model text NOT NULL,
    task text NOT NULL,
    other boolean NOT NULL,
    events bigint NOT NULL,
    spend_nanos numeric NOT NULL,
    adjustment_nanos numeric NOT NULL,
    requests bigint NOT NULL,
    input_tokens bigint NOT NULL,
    output_tokens bigint NOT NULL,
    cached_tokens bigint NOT NULL,
    PRIMARY KEY (workspace_id, key_id, quarter, member, model, task, other)
);

-- Whole UTC days of a key.
CREATE TABLE usage_key_day (
    workspace_id uuid NOT NULL,
    key_id uuid NOT NULL,
    day date NOT NULL,
    member text NOT NULL,
    model text NOT NULL,
    task text NOT NULL,
    other boolean NOT NULL,
    events bigint NOT NULL,
    spend_nanos numeric NOT NULL,
    adjustment_nanos numeric NOT NULL,
    requests bigint NOT NULL,
    input_tokens bigint NOT NULL,
    output_tokens bigint NOT NULL,
    cached_tokens bigint NOT NULL,
    PRIMARY KEY (workspace_id, key_id, day, member, model, task, other)
);
CREATE INDEX usage_key_day_by_day ON usage_key_day (workspace_id, day);

-- The same days from quarter to quarter, as running sums: quarters are those of the day with usage, 0 to 95, ascending;
-- what a part of the day holds is the difference of two elements, so that a day that a zone's midnight cuts costs two
-- look-ups and not its events.
CREATE TABLE usage_key_day_running (
    workspace_id uuid NOT NULL,
    key_id uuid NOT NULL,
    day date NOT NULL,
    member text NOT NULL,
    model text NOT NULL,
    task text NOT NULL,
    other boolean NOT NULL,
    quarters smallint[] NOT NULL,
    events bigint[] NOT NULL,
    spend_nanos numeric[] NOT NULL,
    adjustment_nanos numeric[] NOT NULL,
    requests bigint[] NOT NULL,
    input_tokens bigint[] NOT NULL,
    output_tokens bigint[] NOT NULL,
    cached_tokens bigint[] NOT NULL,
    PRIMARY KEY (workspace_id, key_id, day, member, model, task, other)
);
CREATE INDEX usage_key_day_running_by_day ON usage_key_day_running (workspace_id, day);

-- All packed days of a key, for caps that never begin anew.
CREATE TABLE usage_key_total (
    workspace_id uuid NOT NULL,
    key_id uuid NOT NULL,
    events bigint NOT NULL,
    spend_nanos numeric NOT NULL,
    adjustment_nanos numeric NOT NULL,
    requests numeric NOT NULL,
    input_tokens numeric NOT NULL,
    output_tokens numeric NOT NULL,
    cached_tokens numeric NOT NULL,
    PRIMARY KEY (workspace_id, key_id)
);

-- By the label under which the keys' usage is folded (key.folded_environment). Reads add the keys whose label has changed
-- since under their label of now and subtract them here, until upkeep has moved them.
CREATE TABLE usage_label_quarter (
    workspace_id uuid NOT NULL,
    quarter timestamptz NOT NULL,
    environment text NOT NULL,
    api_id uuid NOT NULL,
    model text NOT NULL,
    task text NOT NULL,
    other boolean NOT NULL,
    events bigint NOT NULL,
    spend_nanos numeric NOT NULL,
    adjustment_nanos numeric NOT NULL,
    requests bigint NOT NULL,
    input_tokens bigint NOT NULL,
    output_tokens bigint NOT NULL,
    cached_tokens bigint NOT NULL,
    PRIMARY KEY (workspace_id, quarter, environment, api_id, model, task, other)
);

-- Until when one transaction has the workspace's usage to itself.
ALTER TABLE workspace ADD COLUMN usage_fence timestamptz;

-- The first UTC day whose events are all there: those before it were dropped by retention. One row, or none.
CREATE TABLE usage_retained (
    one boolean PRIMARY KEY DEFAULT true CHECK (one),
    first_day date NOT NULL
);

CREATE INDEX key_retagged ON key (workspace_id, key_id) WHERE environment <> folded_environment;

INSERT INTO usage_key_quarter
SELECT workspace_id, key_id, date_bin('15 minutes', occurred_time, '2000-01-01 00:00+00'), member, model, task, false,
    count(*), coalesce(sum(cost_nanos) FILTER (WHERE type = 1), 0),
    coalesce(sum(cost_nanos) FILTER (WHERE type <> 1), 0), sum(requests), sum(input_tokens), sum(output_tokens),
    sum(cached_tokens)
FROM usage_event
GROUP BY 1, 2, 3, 4, 5, 6;

INSERT INTO usage_label_quarter
SELECT q.workspace_id, q.quarter, k.folded_environment, k.api_id, q.model, q.task, q.other, sum(q.events),
    sum(q.spend_nanos), sum(q.adjustment_nanos), sum(q.requests), sum(q.input_tokens), sum(q.output_tokens),
    sum(q.cached_tokens)
FROM usage_key_quarter q JOIN key k ON k.workspace_id = q.workspace_id AND k.key_id = q.key_id
GROUP BY 1, 2, 3, 4, 5, 6, 7;

-- Who does what one server at a time is to do, until when, and when it was last done. A reference table.
CREATE TABLE lease (
    name text PRIMARY KEY,
    holder text NOT NULL,
    end_time timestamptz NOT NULL,
    done_time timestamptz
);

-- Identities are removed by time where they need not hold for ever; in the order of time they lie in already.
CREATE INDEX usage_event_id_by_time ON usage_event_id USING brin (workspace_id, occurred_time);
