-- Sets of documents which are searched together.
CREATE TABLE vector_stores (
    tenant text NOT NULL DEFAULT current_setting('app.tenant', true),
    id text NOT NULL,
    display_name text NOT NULL,
    description text NOT NULL,
    embedding_model text NOT NULL,
    chunking_strategy jsonb NOT NULL,
    attributes jsonb NOT NULL,
    -- Its documents are being removed; nobody sees it any more, and its id is free again when the row is gone.
    deleting boolean NOT NULL DEFAULT false,
    -- Grows with every change: the etag.
    revision bigint NOT NULL DEFAULT 1,
    create_time timestamptz NOT NULL DEFAULT now(),
    update_time timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (tenant, id)
);
CREATE INDEX vector_stores_by_age ON vector_stores (tenant, create_time, id);
SELECT isolate_tenants('vector_stores');
