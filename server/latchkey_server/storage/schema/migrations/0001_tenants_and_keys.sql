-- Every table of a tenant begins its keys with workspace_id, so that all of them can be distributed by it (Citus):
-- no triggers, no sequences, no locks across workspaces. Ids are UUIDv7 made by the application.

-- Which peppers are in use, recognised without being stored. A reference table.
CREATE TABLE pepper (
    pepper_id text PRIMARY KEY,
    check_value bytea NOT NULL,
    create_time timestamptz NOT NULL
);

CREATE TABLE workspace (
    workspace_id uuid PRIMARY KEY,
    name text NOT NULL,
    enabled boolean NOT NULL,
    root boolean NOT NULL,
    default_api_id uuid NOT NULL,
    default_prefix text NOT NULL,
    max_cacheable_for interval NOT NULL,
    create_time timestamptz NOT NULL,
    update_time timestamptz NOT NULL,
    revision bigint NOT NULL
);

-- Incremented under its row lock by each mutation: contiguous and in commit order per workspace.
CREATE TABLE workspace_revision (
    workspace_id uuid PRIMARY KEY,
    revision bigint NOT NULL
);

-- What changed, for caches; pruned after a day.
CREATE TABLE change (
    workspace_id uuid NOT NULL,
    revision bigint NOT NULL,
    kind smallint NOT NULL,
    target_id uuid NOT NULL,
    create_time timestamptz NOT NULL,
    PRIMARY KEY (workspace_id, revision)
);

CREATE TABLE api (
    workspace_id uuid NOT NULL REFERENCES workspace,
    api_id uuid NOT NULL,
    name text NOT NULL,
    is_default boolean NOT NULL,
    create_time timestamptz NOT NULL,
    update_time timestamptz NOT NULL,
    revision bigint NOT NULL,
    PRIMARY KEY (workspace_id, api_id)
);

CREATE TABLE identity (
    workspace_id uuid NOT NULL REFERENCES workspace,
    identity_id uuid NOT NULL,
    external_id text NOT NULL CHECK (external_id <> ''),
    metadata jsonb NOT NULL,
    ratelimits jsonb NOT NULL,
    create_time timestamptz NOT NULL,
    update_time timestamptz NOT NULL,
    revision bigint NOT NULL,
    PRIMARY KEY (workspace_id, identity_id),
    UNIQUE (workspace_id, external_id)
);

CREATE TABLE key (
    workspace_id uuid NOT NULL REFERENCES workspace,
    key_id uuid NOT NULL,
    api_id uuid NOT NULL,
    identity_id uuid,
    prefix text NOT NULL,
    name text NOT NULL,
    -- '' is unlabeled. Normalised by the application; usage never carries it.
    environment text NOT NULL CHECK (char_length(environment) <= 32),
    -- The label under which the key's usage was last folded into roll-ups by label.
    folded_environment text NOT NULL,
    enabled boolean NOT NULL,
    expire_time timestamptz,
    not_before_time timestamptz,
    models_enabled boolean,
    models text[],
    allow_ips text[] NOT NULL,
    scopes text[] NOT NULL,
    spend_limit_nanos bigint CHECK (spend_limit_nanos > 0),
    spend_reset smallint,
    credits_amount bigint,
    refill_interval smallint,
    refill_amount bigint,
    refill_day smallint,
    ratelimits jsonb NOT NULL,
    guardrail_id text NOT NULL,
    firewall_policy_id text NOT NULL,
    member text NOT NULL,
    metadata jsonb NOT NULL,
    revoke_reason smallint,
    revoke_note text NOT NULL DEFAULT '',
    revoke_time timestamptz,
    create_time timestamptz NOT NULL,
    update_time timestamptz NOT NULL,
    delete_time timestamptz,
    revision bigint NOT NULL,
    PRIMARY KEY (workspace_id, key_id),
    FOREIGN KEY (workspace_id, api_id) REFERENCES api,
    FOREIGN KEY (workspace_id, identity_id) REFERENCES identity
);
CREATE INDEX key_by_api ON key (workspace_id, api_id, key_id);
CREATE INDEX key_by_identity ON key (workspace_id, identity_id, key_id) WHERE identity_id IS NOT NULL;
CREATE INDEX key_by_environment ON key (workspace_id, environment, key_id);
CREATE INDEX key_by_expiry ON key (workspace_id, expire_time) WHERE expire_time IS NOT NULL;

-- Kept apart from the key, so that using a key never rewrites its row.
CREATE TABLE key_last_used (
    workspace_id uuid NOT NULL,
    key_id uuid NOT NULL,
    last_used_time timestamptz NOT NULL,
    PRIMARY KEY (workspace_id, key_id)
);

CREATE TABLE credit_balance (
    workspace_id uuid NOT NULL,
    key_id uuid NOT NULL,
    remaining bigint NOT NULL CHECK (remaining >= 0),
    -- Refills that came due by then are in `remaining`.
    settled_time timestamptz NOT NULL,
    PRIMARY KEY (workspace_id, key_id)
);

CREATE TABLE management_key (
    workspace_id uuid NOT NULL REFERENCES workspace,
    management_key_id uuid NOT NULL,
    name text NOT NULL,
    role smallint NOT NULL,
    member text NOT NULL,
    api_ids uuid[] NOT NULL,
    all_workspaces boolean NOT NULL,
    expire_time timestamptz,
    revoke_reason smallint,
    revoke_note text NOT NULL DEFAULT '',
    revoke_time timestamptz,
    create_time timestamptz NOT NULL,
    update_time timestamptz NOT NULL,
    revision bigint NOT NULL,
    PRIMARY KEY (workspace_id, management_key_id)
);

-- The one global uniqueness, distributed by hash: a secret's hash leads to its workspace and holder.
CREATE TABLE secret_hash (
    hash bytea PRIMARY KEY,
    workspace_id uuid NOT NULL,
    holder smallint NOT NULL,
    holder_id uuid NOT NULL,
    secret_id uuid NOT NULL
);

CREATE TABLE secret (
    workspace_id uuid NOT NULL,
    holder_id uuid NOT NULL,
    secret_id uuid NOT NULL,
    holder smallint NOT NULL,
    hash bytea NOT NULL,
    pepper_id text NOT NULL,
    mask text NOT NULL,
    create_time timestamptz NOT NULL,
    end_time timestamptz,
    ended boolean NOT NULL,
    PRIMARY KEY (workspace_id, holder_id, secret_id)
);

CREATE TABLE audit_event (
    workspace_id uuid NOT NULL,
    audit_event_id uuid NOT NULL,
    -- NULL is the bootstrap.
    actor_id uuid,
    actor_member text NOT NULL,
    action text NOT NULL,
    target_id text NOT NULL,
    before jsonb,
    after jsonb,
    call_id text NOT NULL,
    peer text NOT NULL,
    event_time timestamptz NOT NULL,
    PRIMARY KEY (workspace_id, audit_event_id)
);
CREATE INDEX audit_event_by_target ON audit_event (workspace_id, target_id, audit_event_id);

-- Mutations answered within 24 hours, by the caller's request_id; pruned after. The outcome never holds a secret.
CREATE TABLE answered_request (
    workspace_id uuid NOT NULL,
    caller_id uuid NOT NULL,
    method text NOT NULL,
    request_id text NOT NULL,
    content_hash bytea NOT NULL,
    outcome jsonb NOT NULL,
    create_time timestamptz NOT NULL,
    PRIMARY KEY (workspace_id, caller_id, method, request_id)
);
CREATE INDEX answered_request_by_time ON answered_request (workspace_id, create_time);
