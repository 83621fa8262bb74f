-- What agents learned.
CREATE TABLE memories (
    tenant text NOT NULL DEFAULT current_setting('app.tenant', true),
    id text NOT NULL,
    kind text NOT NULL CHECK (kind IN ('SHORT_TERM', 'LONG_TERM', 'ENTITY', 'EPISODIC')),
    -- The scope; empty: nobody's in particular.
    user_id text NOT NULL,
    agent_id text NOT NULL,
    conversation_id text NOT NULL,
    content text NOT NULL,
    subject text NOT NULL,
    attribute text NOT NULL,
    -- The same for everything that says the same, and for everything that can contradict it.
    digest bytea NOT NULL,
    topic bytea,
    -- The words it is found by.
    terms text[] NOT NULL,
    confidence double precision NOT NULL,
    valid_from timestamptz NOT NULL,
    valid_until timestamptz,
    run_id text NOT NULL,
    message_id text NOT NULL,
    seq bigint NOT NULL,
    supersedes text NOT NULL DEFAULT '',
    -- Set at once, also where the other one holds only from a later instant on.
    superseded_by text NOT NULL DEFAULT '',
    superseded_at timestamptz,
    -- Of the forgetting that took it: from then on nobody sees it.
    receipt_id text,
    -- Whether its vector has yet to be made; and of the one there is, the model, and a bit for each number, 1 where it is
    -- above zero: few of them differ where the cosine is high.
    vector_pending boolean NOT NULL,
    vector_model text NOT NULL DEFAULT '',
    signature varbit,
    create_time timestamptz NOT NULL DEFAULT now(),
    of_conversation text GENERATED ALWAYS AS (nullif(conversation_id, '')) STORED,
    PRIMARY KEY (tenant, id),
    FOREIGN KEY (tenant, of_conversation) REFERENCES conversations (tenant, id) ON DELETE CASCADE,
    CHECK ((kind = 'SHORT_TERM') = (conversation_id <> '')),
    CHECK ((superseded_by <> '') = (superseded_at IS NOT NULL))
);
-- Whoever says the same, or the contrary, at the same time: one of them is the fact that stands.
CREATE UNIQUE INDEX memories_once ON memories (tenant, user_id, agent_id, conversation_id, digest)
    WHERE superseded_at IS NULL AND receipt_id IS NULL;
CREATE UNIQUE INDEX memories_one_a_topic ON memories (tenant, user_id, agent_id, conversation_id, topic)
    WHERE superseded_at IS NULL AND receipt_id IS NULL AND topic IS NOT NULL;
CREATE INDEX memories_by_scope ON memories (tenant, user_id, agent_id, conversation_id) WHERE receipt_id IS NULL;
CREATE INDEX memories_by_time ON memories (tenant, create_time DESC, id DESC) WHERE receipt_id IS NULL;
CREATE INDEX memories_by_conversation ON memories (tenant, of_conversation) WHERE of_conversation IS NOT NULL;
CREATE INDEX memories_by_successor ON memories (tenant, superseded_by) WHERE superseded_by <> '';
CREATE INDEX memories_by_receipt ON memories (tenant, receipt_id) WHERE receipt_id IS NOT NULL;
CREATE INDEX memories_pending ON memories (tenant, id) WHERE vector_pending;
CREATE INDEX memories_by_model ON memories (tenant, vector_model);
SELECT isolate_tenants('memories');

-- When memories expire, for the system scope, which sees ids and no content. Not a policy of `memories`: a second one
-- would keep the tenant out of the conditions by which its indexes are searched.
CREATE TABLE memory_expiries (
    tenant text NOT NULL DEFAULT current_setting('app.tenant', true),
    memory_id text NOT NULL,
    valid_until timestamptz NOT NULL,
    PRIMARY KEY (tenant, memory_id),
    FOREIGN KEY (tenant, memory_id) REFERENCES memories (tenant, id) ON DELETE CASCADE
);
CREATE INDEX memory_expiries_by_time ON memory_expiries (valid_until);
SELECT isolate_tenants('memory_expiries', queue => true);

-- What they mean. Lost, it can be made again.
CREATE TABLE memory_vectors (
    tenant text NOT NULL DEFAULT current_setting('app.tenant', true),
    memory_id text NOT NULL,
    -- Of unit length: little-endian float32.
    vector bytea NOT NULL,
    PRIMARY KEY (tenant, memory_id),
    FOREIGN KEY (tenant, memory_id) REFERENCES memories (tenant, id) ON DELETE CASCADE
);
SELECT isolate_tenants('memory_vectors');

-- What was forgotten, and how far that is. They hold nothing of it.
CREATE TABLE memory_receipts (
    tenant text NOT NULL DEFAULT current_setting('app.tenant', true),
    id text NOT NULL,
    -- Who asked for it; empty for callers who are no user in particular.
    user_id text NOT NULL,
    memories integer NOT NULL,
    index_count integer NOT NULL DEFAULT 0,
    postgres_count integer NOT NULL DEFAULT 0,
    create_time timestamptz NOT NULL DEFAULT now(),
    finish_time timestamptz,
    PRIMARY KEY (tenant, id)
);
CREATE INDEX memory_receipts_by_age ON memory_receipts (create_time);
SELECT isolate_tenants('memory_receipts');
CREATE POLICY expired ON memory_receipts FOR SELECT
    USING (current_setting('app.tenant', true) = '*' AND create_time < now() - interval '90 days');
