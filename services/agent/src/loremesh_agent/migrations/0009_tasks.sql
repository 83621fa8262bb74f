-- Tasks of crews and flows: each is a chat job in a conversation of its own which nobody is shown, and so are the
-- conversations that hold a run's short-term memories.
ALTER TABLE conversations ADD COLUMN hidden boolean NOT NULL DEFAULT false;
DROP INDEX conversations_by_change;
CREATE INDEX conversations_by_change ON conversations (tenant, update_time DESC, id DESC) WHERE NOT hidden;

-- The request of a task is a CreateTaskRequest.
ALTER TABLE chat_jobs ADD COLUMN task_id text;
DROP INDEX chat_jobs_by_time;
CREATE INDEX chat_jobs_by_time ON chat_jobs (tenant, create_time DESC, id DESC) WHERE task_id IS NULL;

CREATE TABLE tasks (
    tenant text NOT NULL DEFAULT current_setting('app.tenant', true),
    -- The caller's.
    id text NOT NULL,
    run_id text NOT NULL,
    -- The run of the crew or flow, and the task's name there.
    root_run_id text NOT NULL,
    name text NOT NULL,
    -- The same id means the same request.
    request_hash bytea NOT NULL,
    -- The conversation that holds the short-term memories it shares; empty without.
    memory_run_id text NOT NULL,
    PRIMARY KEY (tenant, id),
    FOREIGN KEY (tenant, run_id) REFERENCES chat_jobs (tenant, id) ON DELETE CASCADE
);
CREATE INDEX tasks_by_run ON tasks (tenant, run_id);
CREATE INDEX tasks_by_memory ON tasks (tenant, memory_run_id) WHERE memory_run_id <> '';
SELECT isolate_tenants('tasks');

-- How often an agent's model was asked in the last minute in which it was.
CREATE TABLE agent_minutes (
    tenant text NOT NULL DEFAULT current_setting('app.tenant', true),
    agent_id text NOT NULL,
    minute bigint NOT NULL,
    asked integer NOT NULL,
    PRIMARY KEY (tenant, agent_id)
);
SELECT isolate_tenants('agent_minutes');
