-- A deletion's row is the tombstone too: it outlives the document's rows, so what they told about where content may be
-- is kept here, for whoever writes late.
ALTER TABLE deletions RENAME COLUMN finish_time TO rows_time;
ALTER TABLE deletions
    -- Pairs of a generation and a model whose index may hold chunks of the document.
    ADD COLUMN indexes jsonb NOT NULL DEFAULT '[]',
    -- When each store was purged last; null until it was.
    ADD COLUMN index_time timestamptz,
    ADD COLUMN objects_time timestamptz,
    ADD COLUMN conversations_time timestamptz,
    -- Removed from conversations, as the agent told.
    ADD COLUMN passages bigint NOT NULL DEFAULT 0;
CREATE INDEX deletions_by_age ON deletions (tenant, create_time, id);

-- Comparisons of a vector store's records with its index and objects.
CREATE TABLE reconciliations (
    tenant text NOT NULL DEFAULT current_setting('app.tenant', true),
    -- Its job's id.
    id text NOT NULL,
    vector_store_id text NOT NULL,
    repair boolean NOT NULL,
    state text NOT NULL DEFAULT 'RUNNING' CHECK (state IN ('RUNNING', 'DONE', 'FAILED')),
    documents_checked bigint NOT NULL DEFAULT 0,
    chunks_checked bigint NOT NULL DEFAULT 0,
    orphan_chunks bigint NOT NULL DEFAULT 0,
    drifted_documents bigint NOT NULL DEFAULT 0,
    orphan_objects bigint NOT NULL DEFAULT 0,
    error_reason text NOT NULL DEFAULT '',
    create_time timestamptz NOT NULL DEFAULT now(),
    finish_time timestamptz,
    PRIMARY KEY (tenant, id)
);
CREATE INDEX reconciliations_by_store ON reconciliations (tenant, vector_store_id, create_time);
SELECT isolate_tenants('reconciliations');

-- The day on which each vector store was last to be reconciled by itself. The kit's system scope sees it, since nobody
-- in particular asks for that.
CREATE TABLE reconciliation_days (
    tenant text NOT NULL,
    vector_store_id text NOT NULL,
    day date NOT NULL DEFAULT current_date,
    PRIMARY KEY (tenant, vector_store_id),
    FOREIGN KEY (tenant, vector_store_id) REFERENCES vector_stores (tenant, id) ON DELETE CASCADE
);
CREATE INDEX reconciliation_days_by_day ON reconciliation_days (day);
SELECT isolate_tenants('reconciliation_days', queue => true);

CREATE FUNCTION await_reconciliation() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO reconciliation_days (tenant, vector_store_id) VALUES (NEW.tenant, NEW.id);
    RETURN NULL;
END
$$;
CREATE TRIGGER await_reconciliation AFTER INSERT ON vector_stores
    FOR EACH ROW EXECUTE FUNCTION await_reconciliation();

-- Those there are already, of every tenant; their owner sees them only while the policy is not forced on it.
ALTER TABLE vector_stores NO FORCE ROW LEVEL SECURITY;
ALTER TABLE reconciliation_days NO FORCE ROW LEVEL SECURITY;
INSERT INTO reconciliation_days (tenant, vector_store_id) SELECT tenant, id FROM vector_stores;
ALTER TABLE vector_stores FORCE ROW LEVEL SECURITY;
ALTER TABLE reconciliation_days FORCE ROW LEVEL SECURITY;
