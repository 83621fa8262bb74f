-- What was said, and what is being said.
CREATE TABLE conversations (
    tenant text NOT NULL DEFAULT current_setting('app.tenant', true),
    id text NOT NULL,
    -- Empty until there is a first message to make one of.
    title text NOT NULL,
    agent_id text NOT NULL,
    attributes jsonb NOT NULL,
    message_count integer NOT NULL DEFAULT 0,
    -- Grows with every change of title or attributes: the etag.
    revision bigint NOT NULL DEFAULT 1,
    create_time timestamptz NOT NULL DEFAULT now(),
    update_time timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (tenant, id)
);
CREATE INDEX conversations_by_change ON conversations (tenant, update_time DESC, id DESC);
SELECT isolate_tenants('conversations');

CREATE TABLE messages (
    tenant text NOT NULL DEFAULT current_setting('app.tenant', true),
    id text NOT NULL,
    conversation_id text NOT NULL,
    -- From 1 in its conversation.
    position integer NOT NULL,
    role text NOT NULL CHECK (role IN ('USER', 'AGENT')),
    content text NOT NULL DEFAULT '',
    state text NOT NULL CHECK (state IN ('IN_PROGRESS', 'COMPLETED', 'INCOMPLETE', 'FAILED', 'CANCELLED')),
    -- Until then whoever writes it holds the conversation; null when it is written.
    lease_until timestamptz,
    run_id text NOT NULL DEFAULT '',
    model text NOT NULL DEFAULT '',
    grounded boolean NOT NULL DEFAULT false,
    sources jsonb NOT NULL DEFAULT '[]',
    input_tokens bigint,
    output_tokens bigint,
    rating text CHECK (rating IN ('GOOD', 'BAD')),
    -- Null where nothing was said of it.
    comment text,
    create_time timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (tenant, id),
    UNIQUE (tenant, conversation_id, position),
    FOREIGN KEY (tenant, conversation_id) REFERENCES conversations (tenant, id) ON DELETE CASCADE,
    CHECK ((state = 'IN_PROGRESS') = (lease_until IS NOT NULL))
);
SELECT isolate_tenants('messages');
