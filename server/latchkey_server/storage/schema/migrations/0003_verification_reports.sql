-- The last report of each client cache that was taken: a repeated one changes nothing. Pruned a day after the last.
CREATE TABLE verification_report (
    workspace_id uuid NOT NULL,
    client_id text NOT NULL,
    sequence bigint NOT NULL,
    report_time timestamptz NOT NULL,
    PRIMARY KEY (workspace_id, client_id)
);
CREATE INDEX verification_report_by_time ON verification_report (workspace_id, report_time);
