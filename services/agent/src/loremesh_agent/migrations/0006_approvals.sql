-- What runs ask of humans. A run that waits is a parked job and rows here, nothing else.
CREATE TABLE approvals (
    tenant text NOT NULL DEFAULT current_setting('app.tenant', true),
    id text NOT NULL,
    kind text NOT NULL CHECK (kind IN ('TOOL_CALL', 'QUESTION', 'BUDGET', 'REVIEW')),
    state text NOT NULL DEFAULT 'PENDING'
        CHECK (state IN ('PENDING', 'APPROVED', 'DENIED', 'ANSWERED', 'EXPIRED', 'CANCELLED')),
    run_id text NOT NULL,
    conversation_id text NOT NULL,
    agent_id text NOT NULL,
    tool_name text NOT NULL,
    arguments jsonb NOT NULL,
    -- Whether whoever approved put other arguments in the place of those that were shown.
    edited boolean NOT NULL DEFAULT false,
    question text NOT NULL,
    on_expiry text NOT NULL CHECK (on_expiry IN ('DENY', 'FAIL', 'APPROVE')),
    -- For whom the run works.
    principal text NOT NULL,
    create_time timestamptz NOT NULL DEFAULT now(),
    due_time timestamptz NOT NULL,
    remind_time timestamptz,
    escalate_time timestamptz,
    decide_time timestamptz,
    decided_by text NOT NULL DEFAULT '',
    comment text NOT NULL DEFAULT '',
    answer text NOT NULL DEFAULT '',
    -- When it is to be looked at next: reminded of, escalated, expired.
    alarm_time timestamptz NOT NULL,
    -- Grows with every change: the etag.
    revision bigint NOT NULL DEFAULT 1,
    PRIMARY KEY (tenant, id),
    FOREIGN KEY (tenant, conversation_id) REFERENCES conversations (tenant, id) ON DELETE CASCADE,
    CHECK ((state = 'PENDING') = (decide_time IS NULL))
);
CREATE INDEX approvals_by_due_time ON approvals (tenant, state, due_time, id);
CREATE INDEX approvals_by_run ON approvals (tenant, run_id);
CREATE INDEX approvals_by_conversation ON approvals (tenant, conversation_id);
CREATE INDEX approvals_alarms ON approvals (alarm_time) WHERE state = 'PENDING';
SELECT isolate_tenants('approvals');
-- The system scope sees those it has to look at now, and nothing else; whoever looks at them asks it which.
CREATE POLICY due ON approvals FOR SELECT
    USING (current_setting('app.tenant', true) = '*' AND state = 'PENDING' AND alarm_time <= now());
