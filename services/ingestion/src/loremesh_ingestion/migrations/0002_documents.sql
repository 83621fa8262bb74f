-- What was accepted, as its owner sees it: the current bytes, where they stand, and what searches see.
CREATE TABLE documents (
    tenant text NOT NULL DEFAULT current_setting('app.tenant', true),
    -- A UUIDv7: ids sort by age.
    id text NOT NULL,
    vector_store_id text NOT NULL,
    title text NOT NULL,
    -- False while the title is one that was found: the next indexing may find a better one.
    title_given boolean NOT NULL,
    filename text NOT NULL,
    media_type text NOT NULL,
    size_bytes bigint NOT NULL,
    sha256 text NOT NULL,
    attributes jsonb NOT NULL,
    -- The strings among the attributes that are instants, as microseconds since 1970: what order filters compare.
    attribute_times jsonb NOT NULL,
    -- Null: as the vector store says.
    chunking_strategy jsonb,
    state text NOT NULL CHECK (
        state IN ('UPLOADED', 'PARSING', 'CHUNKING', 'EMBEDDING', 'INDEXING', 'READY', 'FAILED', 'DELETING')
    ),
    failure jsonb,
    -- What searches see; 0 before the first is ready.
    version bigint NOT NULL DEFAULT 0,
    -- What is being indexed, or was at last; work for any older one is void.
    latest_version bigint NOT NULL DEFAULT 1,
    -- Of the latest version.
    batches_done integer NOT NULL DEFAULT 0,
    batches_total integer NOT NULL DEFAULT 0,
    -- Of the version that searches see.
    chunk_count integer NOT NULL DEFAULT 0,
    token_count bigint NOT NULL DEFAULT 0,
    page_count integer NOT NULL DEFAULT 0,
    text_chars bigint NOT NULL DEFAULT 0,
    -- Grows when title or attributes change: tells whether the index still carries the ones of old.
    metadata_revision bigint NOT NULL DEFAULT 1,
    -- Grows with every change: the etag.
    revision bigint NOT NULL DEFAULT 1,
    create_time timestamptz NOT NULL DEFAULT now(),
    update_time timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (tenant, id),
    FOREIGN KEY (tenant, vector_store_id) REFERENCES vector_stores (tenant, id),
    CHECK (version <= latest_version),
    CHECK ((state = 'FAILED') = (failure IS NOT NULL))
);
CREATE INDEX documents_by_store ON documents (tenant, vector_store_id, id);
CREATE INDEX documents_by_content ON documents (tenant, sha256);
SELECT isolate_tenants('documents');

-- One indexing of a document: from which bytes, how, and what came of it.
CREATE TABLE document_versions (
    tenant text NOT NULL DEFAULT current_setting('app.tenant', true),
    document_id text NOT NULL,
    version bigint NOT NULL,
    -- Where the bytes are in the object store.
    object_key text NOT NULL,
    embedding_model text NOT NULL,
    chunking_strategy jsonb NOT NULL,
    -- Which of the document's titles and attributes its chunks carry in the index.
    metadata_revision bigint NOT NULL DEFAULT 0,
    -- Where the extracted text is in the object store, in UTF-8; null until it is parsed.
    text_key text,
    -- Byte offset of every 65,536th code point of the text, from the first on.
    text_landmarks bigint[] NOT NULL DEFAULT '{}',
    text_chars bigint NOT NULL DEFAULT 0,
    media_type text NOT NULL DEFAULT '',
    title text NOT NULL DEFAULT '',
    page_count integer NOT NULL DEFAULT 0,
    chunk_count integer NOT NULL DEFAULT 0,
    token_count bigint NOT NULL DEFAULT 0,
    create_time timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (tenant, document_id, version),
    FOREIGN KEY (tenant, document_id) REFERENCES documents (tenant, id) ON DELETE CASCADE
);
SELECT isolate_tenants('document_versions');

-- The pieces of a version's text, in order; a chunk's id derives from where it stands.
CREATE TABLE chunks (
    tenant text NOT NULL DEFAULT current_setting('app.tenant', true),
    document_id text NOT NULL,
    version bigint NOT NULL,
    index integer NOT NULL,
    content text NOT NULL,
    -- Code points of the extracted text.
    start_char bigint NOT NULL,
    end_char bigint NOT NULL,
    -- Null for formats without pages.
    page integer,
    heading_path text[] NOT NULL,
    token_count integer NOT NULL,
    PRIMARY KEY (tenant, document_id, version, index),
    FOREIGN KEY (tenant, document_id, version)
        REFERENCES document_versions (tenant, document_id, version) ON DELETE CASCADE
);
SELECT isolate_tenants('chunks');

-- Batches of a version's chunks that are in the index; a row makes doing one twice count once.
CREATE TABLE finished_batches (
    tenant text NOT NULL DEFAULT current_setting('app.tenant', true),
    document_id text NOT NULL,
    version bigint NOT NULL,
    batch integer NOT NULL,
    PRIMARY KEY (tenant, document_id, version, batch),
    FOREIGN KEY (tenant, document_id, version)
        REFERENCES document_versions (tenant, document_id, version) ON DELETE CASCADE
);
SELECT isolate_tenants('finished_batches');
