-- The last number given out in each run's log. Appenders lock this row, so numbers become visible in order.
CREATE TABLE event_heads (
    tenant text NOT NULL,
    run_id text NOT NULL,
    last_seq bigint NOT NULL,
    PRIMARY KEY (tenant, run_id)
);
SELECT isolate_tenants('event_heads');

-- What happened in each long-running thing, in order, for whoever watches it now or later.
CREATE TABLE events (
    tenant text NOT NULL,
    run_id text NOT NULL,
    seq bigint NOT NULL,
    time timestamptz NOT NULL DEFAULT clock_timestamp(),
    kind text NOT NULL,
    payload jsonb NOT NULL,
    attempt integer NOT NULL,
    path text[] NOT NULL,
    PRIMARY KEY (tenant, run_id, seq)
);
SELECT isolate_tenants('events');

-- Answers already given, so that a repeated request is the same request.
CREATE TABLE idempotency (
    tenant text NOT NULL,
    method text NOT NULL,
    key text NOT NULL,
    request_hash bytea NOT NULL,
    response bytea,
    created_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (tenant, method, key)
);
CREATE INDEX idempotency_created ON idempotency (created_at);
SELECT isolate_tenants('idempotency');
-- The system scope may not read these rows but may delete those whose day is over; the sweeper does.
CREATE POLICY expired ON idempotency FOR DELETE
    USING (current_setting('app.tenant', true) = '*' AND created_at < now() - interval '1 day');
