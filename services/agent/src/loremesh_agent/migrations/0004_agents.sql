-- Who answers. The built-in agent `default` has no row until somebody changes it.
CREATE TABLE agents (
    tenant text NOT NULL DEFAULT current_setting('app.tenant', true),
    id text COLLATE "C" NOT NULL,
    -- The current one; counted on when an agent of this id is created again.
    revision bigint NOT NULL,
    deleted boolean NOT NULL DEFAULT false,
    create_time timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (tenant, id)
);
SELECT isolate_tenants('agents');

-- Never changed: runs name them.
CREATE TABLE agent_revisions (
    tenant text NOT NULL DEFAULT current_setting('app.tenant', true),
    agent_id text COLLATE "C" NOT NULL,
    revision bigint NOT NULL,
    definition jsonb NOT NULL,
    create_time timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (tenant, agent_id, revision),
    FOREIGN KEY (tenant, agent_id) REFERENCES agents (tenant, id)
);
SELECT isolate_tenants('agent_revisions');

-- Whose words an answer is; zero for people's, and for answers of before.
ALTER TABLE messages ADD COLUMN agent_revision bigint NOT NULL DEFAULT 0;
