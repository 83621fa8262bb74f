-- Servers which bring tools: those of tenants, and, as `@operator`, what is known of those in the operator's file.
CREATE TABLE tool_servers (
    tenant text NOT NULL DEFAULT current_setting('app.tenant', true),
    id text NOT NULL COLLATE "C",
    kind text NOT NULL CHECK (kind IN ('GRPC', 'MCP_HTTP', 'MCP_STDIO')),
    address text NOT NULL,
    -- In plain, since whoever may read this table also has the key that it could be encrypted with: the service needs
    -- both. It is in no reply, event or log, and is always empty for the operator's file.
    token text NOT NULL,
    default_effect text NOT NULL CHECK (default_effect IN ('READ_ONLY', 'IDEMPOTENT', 'SIDE_EFFECTING')),
    timeout_seconds double precision NOT NULL,
    -- As described when it was registered or refreshed: these are in force whatever it says today.
    tools jsonb NOT NULL,
    -- Names of those that it describes otherwise today.
    changed text[] NOT NULL DEFAULT '{}',
    healthy boolean NOT NULL,
    check_time timestamptz NOT NULL DEFAULT now(),
    create_time timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (tenant, id)
);
SELECT isolate_tenants('tool_servers');

-- When each is to be asked for its health again. No content is in here, so whoever checks may see all of it.
CREATE TABLE tool_server_checks (
    tenant text NOT NULL DEFAULT current_setting('app.tenant', true),
    tool_server_id text NOT NULL COLLATE "C",
    due_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (tenant, tool_server_id),
    FOREIGN KEY (tenant, tool_server_id) REFERENCES tool_servers (tenant, id) ON DELETE CASCADE
);
CREATE INDEX tool_server_checks_due ON tool_server_checks (due_at);
SELECT isolate_tenants('tool_server_checks', queue => true);
