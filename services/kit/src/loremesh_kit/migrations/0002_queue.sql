-- Work accepted and not yet given up: the record of what we owe. JetStream only carries the ids of these rows.
CREATE TABLE jobs (
    tenant text NOT NULL,
    id text NOT NULL,
    kind text NOT NULL,
    -- The resource the job works for, such as a document's id.
    subject_id text NOT NULL,
    principal text NOT NULL,
    request_id text NOT NULL,
    traceparent text NOT NULL DEFAULT '',
    payload jsonb NOT NULL,
    priority smallint NOT NULL DEFAULT 0,
    state text NOT NULL DEFAULT 'QUEUED'
        CHECK (state IN ('QUEUED', 'RUNNING', 'SUCCEEDED', 'FAILED', 'CANCELLED')),
    -- Claims so far.
    attempt integer NOT NULL DEFAULT 0,
    max_attempts integer NOT NULL CHECK (max_attempts > 0),
    -- Grows at each claim and at a cancellation; only the holder of the latest may write.
    fence bigint NOT NULL DEFAULT 0,
    lease_until timestamptz,
    due_at timestamptz NOT NULL DEFAULT now(),
    -- When its id last went into the outbox, and how often; null means it still has to.
    announced_at timestamptz,
    announcements integer NOT NULL DEFAULT 0,
    -- After this instant it is not worth doing.
    deadline timestamptz,
    -- Of the latest failed attempt.
    error_reason text,
    created_at timestamptz NOT NULL DEFAULT now(),
    finished_at timestamptz,
    PRIMARY KEY (tenant, id),
    CHECK ((state = 'RUNNING') = (lease_until IS NOT NULL))
);
CREATE INDEX jobs_by_subject ON jobs (tenant, subject_id);
CREATE INDEX jobs_queued ON jobs (due_at) WHERE state = 'QUEUED';
CREATE INDEX jobs_running ON jobs (lease_until) WHERE state = 'RUNNING';
CREATE INDEX jobs_finished ON jobs (finished_at) WHERE finished_at IS NOT NULL;
SELECT isolate_tenants('jobs', queue => true);

-- Messages to publish, written in the transaction that makes them true.
CREATE TABLE outbox (
    tenant text NOT NULL,
    -- Also the message id by which JetStream drops a second copy.
    id text NOT NULL,
    -- Without its prefix `loremesh.<service>.`
    subject text NOT NULL,
    data jsonb NOT NULL,
    headers jsonb NOT NULL DEFAULT '{}',
    -- Facts are kept for a while after sending, to be sent again should the broker lose its store.
    keep boolean NOT NULL,
    created_at timestamptz NOT NULL DEFAULT now(),
    -- Until then a relay is sending it.
    held_until timestamptz,
    sent_at timestamptz,
    PRIMARY KEY (tenant, id)
);
CREATE INDEX outbox_unsent ON outbox (id) WHERE sent_at IS NULL;
CREATE INDEX outbox_sent ON outbox (sent_at) WHERE sent_at IS NOT NULL;
SELECT isolate_tenants('outbox', queue => true);

-- Messages whose effect is committed: the same one again has none.
CREATE TABLE inbox (
    tenant text NOT NULL,
    consumer text NOT NULL,
    message_id text NOT NULL,
    received_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (tenant, consumer, message_id)
);
CREATE INDEX inbox_received ON inbox (received_at);
SELECT isolate_tenants('inbox', queue => true);

-- Jobs given up, and why.
CREATE TABLE dead_letters (
    tenant text NOT NULL,
    -- The job's id.
    id text NOT NULL,
    kind text NOT NULL,
    subject_id text NOT NULL,
    attempt integer NOT NULL,
    reason text NOT NULL,
    message text NOT NULL,
    died_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (tenant, id)
);
SELECT isolate_tenants('dead_letters', queue => true);
