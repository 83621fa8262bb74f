-- Re-uploads: what a new version changed, and what has to be known of the old one to keep its vectors.
ALTER TABLE documents
    -- By the version that searches see against the one before; null before the first is ready.
    ADD COLUMN changes jsonb;
ALTER TABLE document_versions
    -- The title its chunks were embedded with; null where that is not known.
    ADD COLUMN embedded_title text;
ALTER TABLE finished_batches
    ADD COLUMN embedded integer NOT NULL DEFAULT 0,
    ADD COLUMN kept integer NOT NULL DEFAULT 0,
    -- Positions, in the version that searches see, of the chunks that are in this batch again.
    ADD COLUMN recurring integer[] NOT NULL DEFAULT '{}';

-- Generations: each is an index of the vector store by one model and one default strategy. A row of `documents` is one
-- line of indexing from here on: a document in a generation. Versions, chunks, batches and jobs belong to a line, by its
-- key; users know the document's id, and see the line of the generation that is live.
CREATE TABLE index_generations (
    tenant text NOT NULL DEFAULT current_setting('app.tenant', true),
    vector_store_id text NOT NULL,
    generation bigint NOT NULL,
    embedding_model text NOT NULL,
    chunking_strategy jsonb NOT NULL,
    create_time timestamptz NOT NULL DEFAULT now(),
    -- When it was last activated; null when it never was.
    activate_time timestamptz,
    PRIMARY KEY (tenant, vector_store_id, generation),
    FOREIGN KEY (tenant, vector_store_id) REFERENCES vector_stores (tenant, id) ON DELETE CASCADE
);

ALTER TABLE vector_stores
    -- The one that searches see; model and strategy of the row are those of it.
    ADD COLUMN generation bigint NOT NULL DEFAULT 1,
    -- A number is given once, whatever became of its generation.
    ADD COLUMN last_generation bigint NOT NULL DEFAULT 1;

-- Every tenant's rows are filled in, which forced row-level security would hide from their owner too.
ALTER TABLE vector_stores NO FORCE ROW LEVEL SECURITY;
ALTER TABLE documents NO FORCE ROW LEVEL SECURITY;
INSERT INTO index_generations
    (tenant, vector_store_id, generation, embedding_model, chunking_strategy, create_time, activate_time)
SELECT tenant, id, 1, embedding_model, chunking_strategy, create_time, create_time FROM vector_stores;
ALTER TABLE documents RENAME COLUMN id TO key;
ALTER TABLE documents ADD COLUMN id text, ADD COLUMN generation bigint NOT NULL DEFAULT 1;
UPDATE documents SET id = key;
ALTER TABLE documents ALTER COLUMN id SET NOT NULL;
ALTER TABLE vector_stores FORCE ROW LEVEL SECURITY;
ALTER TABLE documents FORCE ROW LEVEL SECURITY;
SELECT isolate_tenants('index_generations');

CREATE UNIQUE INDEX documents_by_id ON documents (tenant, id, generation);
DROP INDEX documents_by_store;
CREATE INDEX documents_by_store ON documents (tenant, vector_store_id, generation, id);
