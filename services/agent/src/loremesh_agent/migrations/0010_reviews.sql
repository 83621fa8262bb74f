-- Outputs that humans accept, approvals of crews, and work that runs hand on.
ALTER TABLE approvals
    DROP CONSTRAINT approvals_kind_check,
    ADD CONSTRAINT approvals_kind_check CHECK (kind IN ('TOOL_CALL', 'QUESTION', 'BUDGET', 'REVIEW', 'OUTPUT')),
    -- The run of a crew or flow, and what the task is called there; empty for chats.
    ADD COLUMN root_run_id text NOT NULL DEFAULT '',
    ADD COLUMN task_name text NOT NULL DEFAULT '',
    -- Who is asked; empty: anyone.
    ADD COLUMN assignee text NOT NULL DEFAULT '',
    -- What is to be accepted, and what an output in its place must fulfil.
    ADD COLUMN output text NOT NULL DEFAULT '',
    ADD COLUMN output_schema jsonb;
CREATE INDEX approvals_by_root_run ON approvals (tenant, root_run_id) WHERE root_run_id <> '';

-- Work that a run waits for, done by others.
CREATE TABLE delegations (
    tenant text NOT NULL DEFAULT current_setting('app.tenant', true),
    run_id text NOT NULL,
    id text NOT NULL,
    -- The step of the run that handed it on.
    number integer NOT NULL,
    coworker text NOT NULL,
    description text NOT NULL,
    context text NOT NULL,
    output text NOT NULL DEFAULT '',
    -- Why there is no output; empty: there is one.
    reason text NOT NULL DEFAULT '',
    create_time timestamptz NOT NULL DEFAULT now(),
    -- When it was answered first; null before.
    answer_time timestamptz,
    PRIMARY KEY (tenant, run_id, id),
    FOREIGN KEY (tenant, run_id) REFERENCES chat_jobs (tenant, id) ON DELETE CASCADE
);
SELECT isolate_tenants('delegations');
