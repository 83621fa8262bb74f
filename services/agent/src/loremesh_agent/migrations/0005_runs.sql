-- Runs of agents with tools: chat jobs with a journal, which wait for humans without a worker.
ALTER TABLE chat_jobs
    DROP CONSTRAINT chat_jobs_status_check,
    DROP CONSTRAINT chat_jobs_check,
    ADD CONSTRAINT chat_jobs_status_check
        CHECK (status IN ('QUEUED', 'RUNNING', 'WAITING', 'COMPLETED', 'INCOMPLETE', 'FAILED', 'CANCELLED')),
    ADD CONSTRAINT chat_jobs_check CHECK ((status IN ('QUEUED', 'RUNNING', 'WAITING')) = (finish_time IS NULL)),
    -- What it was made with, pinned at its beginning; null before, and for answers without a journal.
    ADD COLUMN record jsonb,
    ADD COLUMN usage jsonb,
    -- For how long it may be worked on at a time.
    ADD COLUMN seconds double precision NOT NULL DEFAULT 900,
    -- It goes on where it waited: the same attempt.
    ADD COLUMN resumed boolean NOT NULL DEFAULT false,
    ADD COLUMN begin_time timestamptz,
    -- Since when it waits, and for how long it has waited before.
    ADD COLUMN wait_time timestamptz,
    ADD COLUMN waited interval NOT NULL DEFAULT '0',
    -- The turn of a message that waits until its conversation is free; null once it has begun.
    ADD COLUMN turn jsonb;
CREATE INDEX chat_jobs_queued_turns ON chat_jobs (tenant, conversation_id, id) WHERE turn IS NOT NULL;
-- The system scope sees whose turn waits, and nothing else; whoever begins them asks it which.
CREATE POLICY queued ON chat_jobs FOR SELECT
    USING (current_setting('app.tenant', true) = '*' AND turn IS NOT NULL);

-- What a run intended and what came of it: intent before the effect, result after it.
CREATE TABLE steps (
    tenant text NOT NULL DEFAULT current_setting('app.tenant', true),
    run_id text NOT NULL,
    -- From 1 in its run.
    number integer NOT NULL,
    kind text NOT NULL CHECK (kind IN ('MODEL', 'TOOL', 'APPROVAL')),
    state text NOT NULL CHECK (state IN ('STARTED', 'DONE', 'FAILED')),
    -- The model, the tool, or the approval's id.
    name text NOT NULL,
    input jsonb NOT NULL,
    output jsonb NOT NULL,
    usage jsonb,
    -- What asking the model may take, while nobody knows what it took.
    reserved_tokens bigint NOT NULL DEFAULT 0,
    reserved_micros bigint NOT NULL DEFAULT 0,
    idempotency_key text NOT NULL DEFAULT '',
    start_time timestamptz NOT NULL DEFAULT clock_timestamp(),
    finish_time timestamptz,
    PRIMARY KEY (tenant, run_id, number),
    FOREIGN KEY (tenant, run_id) REFERENCES chat_jobs (tenant, id) ON DELETE CASCADE,
    CHECK ((state = 'STARTED') = (finish_time IS NULL))
);
CREATE INDEX steps_asking ON steps (tenant, run_id) WHERE kind = 'MODEL' AND state = 'STARTED';
SELECT isolate_tenants('steps');

-- What a tenant's runs took, by month.
CREATE TABLE spending (
    tenant text NOT NULL DEFAULT current_setting('app.tenant', true),
    month date NOT NULL,
    tokens bigint NOT NULL DEFAULT 0,
    cost_micros bigint NOT NULL DEFAULT 0,
    PRIMARY KEY (tenant, month)
);
SELECT isolate_tenants('spending');
