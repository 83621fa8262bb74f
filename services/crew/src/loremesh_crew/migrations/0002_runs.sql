-- Runs of crews and flows. Nobody holds one: it is decided wherever an event of it arrives, under a lock of its row.
CREATE TABLE runs (
    tenant text NOT NULL DEFAULT current_setting('app.tenant', true),
    id text COLLATE "C" NOT NULL,
    kind text NOT NULL CHECK (kind IN ('CREW', 'FLOW')),
    definition_id text NOT NULL,
    revision bigint NOT NULL,
    name text NOT NULL,
    -- Whose work it is: its tasks are done in this name, whoever answers for them meanwhile.
    principal text NOT NULL,
    -- As text and not taken apart: what goes in comes out, in its order.
    pinned json NOT NULL,
    state json NOT NULL,
    engine_version integer NOT NULL,
    status text NOT NULL CHECK (status IN (
        'QUEUED', 'IN_PROGRESS', 'INTERRUPTED', 'CANCELLING', 'COMPLETED', 'INCOMPLETE', 'FAILED', 'CANCELLED', 'EXPIRED'
    )),
    -- What lists show of it: output, reason, message, usage.
    summary json NOT NULL DEFAULT '{}',
    -- Number of its last decision, and of its last event.
    decisions integer NOT NULL DEFAULT 0,
    last_seq bigint NOT NULL DEFAULT 0,
    parent_run_id text COLLATE "C" NOT NULL DEFAULT '',
    root_run_id text COLLATE "C" NOT NULL,
    parent_state text NOT NULL DEFAULT '',
    forked_from text NOT NULL DEFAULT '',
    forked_after_seq bigint NOT NULL DEFAULT 0,
    create_time timestamptz NOT NULL DEFAULT now(),
    finish_time timestamptz,
    expire_time timestamptz,
    PRIMARY KEY (tenant, id),
    CHECK ((status IN ('QUEUED', 'IN_PROGRESS', 'INTERRUPTED', 'CANCELLING')) = (finish_time IS NULL))
);
CREATE INDEX runs_by_time ON runs (tenant, create_time DESC, id DESC);
CREATE INDEX runs_by_definition ON runs (tenant, definition_id, create_time DESC, id DESC);
CREATE INDEX runs_by_root ON runs (tenant, root_run_id, create_time, id);
CREATE INDEX runs_at_work ON runs (tenant) WHERE finish_time IS NULL AND parent_run_id = '';
CREATE INDEX runs_finished ON runs (finish_time) WHERE finish_time IS NOT NULL;
SELECT isolate_tenants('runs');
-- The system scope sees those whose days are over, and nothing else; whoever purges them asks it which.
CREATE POLICY expired ON runs FOR SELECT
    USING (current_setting('app.tenant', true) = '*' AND finish_time < now() - interval '30 days');

-- Every event a run was decided on, and what was decided. Only ever added to.
CREATE TABLE run_history (
    tenant text NOT NULL DEFAULT current_setting('app.tenant', true),
    run_id text COLLATE "C" NOT NULL,
    -- From 1 in its run.
    number integer NOT NULL,
    event json NOT NULL,
    commands json NOT NULL,
    -- Of the run's log after it.
    last_seq bigint NOT NULL,
    time timestamptz NOT NULL DEFAULT clock_timestamp(),
    PRIMARY KEY (tenant, run_id, number),
    FOREIGN KEY (tenant, run_id) REFERENCES runs (tenant, id) ON DELETE CASCADE
);
SELECT isolate_tenants('run_history');

-- Tasks which the agent service has, or will have, and of whose end the run does not know. Ids only.
CREATE TABLE run_tasks (
    tenant text NOT NULL DEFAULT current_setting('app.tenant', true),
    id text COLLATE "C" NOT NULL,
    run_id text COLLATE "C" NOT NULL,
    principal text NOT NULL,
    -- Whether the agent service has it.
    begun boolean NOT NULL DEFAULT false,
    cancelled boolean NOT NULL DEFAULT false,
    -- When it was last asked after.
    asked_time timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (tenant, id),
    FOREIGN KEY (tenant, run_id) REFERENCES runs (tenant, id) ON DELETE CASCADE
);
CREATE INDEX run_tasks_by_run ON run_tasks (tenant, run_id);
CREATE INDEX run_tasks_asked ON run_tasks (asked_time) WHERE begun;
SELECT isolate_tenants('run_tasks', true);
