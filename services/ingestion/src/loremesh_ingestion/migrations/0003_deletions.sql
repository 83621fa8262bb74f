-- Deletions and how far they are: the receipts. They outlive what was deleted and hold none of it.
CREATE TABLE deletions (
    tenant text NOT NULL DEFAULT current_setting('app.tenant', true),
    id text NOT NULL,
    document_id text NOT NULL,
    vector_store_id text NOT NULL,
    create_time timestamptz NOT NULL DEFAULT now(),
    -- When the last store was purged; null until then.
    finish_time timestamptz,
    -- Removed from the search index, the object store and Postgres.
    index_chunks bigint NOT NULL DEFAULT 0,
    objects bigint NOT NULL DEFAULT 0,
    chunks bigint NOT NULL DEFAULT 0,
    PRIMARY KEY (tenant, id)
);
CREATE UNIQUE INDEX deletions_by_document ON deletions (tenant, document_id);
SELECT isolate_tenants('deletions');
