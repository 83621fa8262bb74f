-- Messages answered in the background. What is owed stands in `jobs` under the same id, what happened in `events`, and
-- the answer is the message's.
CREATE TABLE chat_jobs (
    tenant text NOT NULL DEFAULT current_setting('app.tenant', true),
    id text NOT NULL,
    conversation_id text NOT NULL,
    question_id text NOT NULL,
    answer_id text NOT NULL,
    agent_id text NOT NULL,
    -- The ChatRequest.
    request bytea NOT NULL,
    status text NOT NULL DEFAULT 'QUEUED'
        CHECK (status IN ('QUEUED', 'RUNNING', 'COMPLETED', 'INCOMPLETE', 'FAILED', 'CANCELLED')),
    -- Attempts begun.
    attempt integer NOT NULL DEFAULT 0,
    -- Why it failed.
    error jsonb,
    create_time timestamptz NOT NULL DEFAULT now(),
    finish_time timestamptz,
    PRIMARY KEY (tenant, id),
    FOREIGN KEY (tenant, conversation_id) REFERENCES conversations (tenant, id) ON DELETE CASCADE,
    CHECK ((status IN ('QUEUED', 'RUNNING')) = (finish_time IS NULL)),
    CHECK ((status = 'FAILED') = (error IS NOT NULL))
);
CREATE INDEX chat_jobs_waiting ON chat_jobs (tenant) WHERE status = 'QUEUED';
CREATE INDEX chat_jobs_by_time ON chat_jobs (tenant, create_time DESC, id DESC);
CREATE INDEX chat_jobs_by_conversation ON chat_jobs (tenant, conversation_id);
CREATE INDEX chat_jobs_finished ON chat_jobs (finish_time) WHERE finish_time IS NOT NULL;
SELECT isolate_tenants('chat_jobs');
-- The system scope sees those whose days are over, and nothing else; whoever purges them asks it which.
CREATE POLICY expired ON chat_jobs FOR SELECT
    USING (current_setting('app.tenant', true) = '*' AND finish_time < now() - interval '7 days');

-- Which limit ended an answer; empty where none did.
ALTER TABLE messages ADD COLUMN finish_reason text NOT NULL DEFAULT '';
