-- Crews and flows. Those built in have no rows.
CREATE TABLE definitions (
    tenant text NOT NULL DEFAULT current_setting('app.tenant', true),
    kind text NOT NULL CHECK (kind IN ('CREW', 'FLOW')),
    id text COLLATE "C" NOT NULL,
    -- The current one; counted on when one of this id is created again.
    revision bigint NOT NULL,
    deleted boolean NOT NULL DEFAULT false,
    create_time timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (tenant, kind, id)
);
SELECT isolate_tenants('definitions');

-- Never changed: runs name them.
CREATE TABLE definition_revisions (
    tenant text NOT NULL DEFAULT current_setting('app.tenant', true),
    kind text NOT NULL,
    definition_id text COLLATE "C" NOT NULL,
    revision bigint NOT NULL,
    definition jsonb NOT NULL,
    -- Of the definition, when this revision was made: one that was deleted begins anew.
    definition_create_time timestamptz NOT NULL,
    create_time timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (tenant, kind, definition_id, revision),
    FOREIGN KEY (tenant, kind, definition_id) REFERENCES definitions (tenant, kind, id)
);
SELECT isolate_tenants('definition_revisions');
