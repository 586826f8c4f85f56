-- The identity of every usage event, for ever: unpartitioned, so that it holds across partitions and retention.
CREATE TABLE usage_event_id (
    workspace_id uuid NOT NULL,
    id_hash bytea NOT NULL,
    content_hash bytea NOT NULL,
    occurred_time timestamptz NOT NULL,
    PRIMARY KEY (workspace_id, id_hash)
);

-- The events themselves, a partition a UTC day. Empty dimensions are '', never NULL; the label is never here.
CREATE TABLE usage_event (
    workspace_id uuid NOT NULL,
    occurred_time timestamptz NOT NULL,
    id_hash bytea NOT NULL,
    key_id uuid NOT NULL,
    type smallint NOT NULL,
    source text NOT NULL,
    event_id text NOT NULL,
    member text NOT NULL,
    model text NOT NULL,
    task text NOT NULL,
    requests bigint NOT NULL,
    input_tokens bigint NOT NULL,
    output_tokens bigint NOT NULL,
    cached_tokens bigint NOT NULL,
    cost_nanos bigint NOT NULL,
    operation_id text NOT NULL,
    metadata jsonb,
    record_time timestamptz NOT NULL,
    PRIMARY KEY (workspace_id, occurred_time, id_hash)
) PARTITION BY RANGE (occurred_time);
CREATE INDEX usage_event_by_key ON usage_event (workspace_id, key_id, occurred_time);

-- Holds what no daily partition was made for in time, so that nothing acknowledged can be lost.
CREATE TABLE usage_event_default PARTITION OF usage_event DEFAULT;

-- Spend in a window is the sum of these rows; NUMERIC, because a sum must never overflow.
CREATE TABLE usage_key_day (
    workspace_id uuid NOT NULL,
    key_id uuid NOT NULL,
    day date NOT NULL,
    spend_nanos numeric NOT NULL,
    adjustment_nanos numeric NOT NULL,
    requests numeric NOT NULL,
    input_tokens numeric NOT NULL,
    output_tokens numeric NOT NULL,
    cached_tokens numeric NOT NULL,
    PRIMARY KEY (workspace_id, key_id, day)
);

-- The same over a key's life, for caps that never begin anew.
CREATE TABLE usage_key_total (
    workspace_id uuid NOT NULL,
    key_id uuid NOT NULL,
    spend_nanos numeric NOT NULL,
    adjustment_nanos numeric NOT NULL,
    requests numeric NOT NULL,
    input_tokens numeric NOT NULL,
    output_tokens numeric NOT NULL,
    cached_tokens numeric NOT NULL,
    PRIMARY KEY (workspace_id, key_id)
);

-- For ListKeys: whoever asks for the keys of one member or prefix finds them together, newest first.
CREATE INDEX key_by_member ON key (workspace_id, member, key_id);
CREATE INDEX key_by_prefix ON key (workspace_id, prefix, key_id);
