-- Where documents are quoted, so that a deleted one can be forgotten everywhere.
CREATE TABLE quoted_documents (
    tenant text NOT NULL DEFAULT current_setting('app.tenant', true),
    document_id text NOT NULL,
    -- Whoever quotes a document locks its row, as does who forgets it: no passage is kept after that.
    deleted boolean NOT NULL DEFAULT false,
    PRIMARY KEY (tenant, document_id)
);

-- By answer; the events of the answer's run are meant as well.
CREATE TABLE quotations (
    tenant text NOT NULL DEFAULT current_setting('app.tenant', true),
    message_id text NOT NULL,
    document_id text NOT NULL,
    PRIMARY KEY (tenant, message_id, document_id),
    FOREIGN KEY (tenant, message_id) REFERENCES messages (tenant, id) ON DELETE CASCADE
);
CREATE INDEX quotations_by_document ON quotations (tenant, document_id);

-- Answers of before: their owner may see them for a moment.
ALTER TABLE messages NO FORCE ROW LEVEL SECURITY;
INSERT INTO quotations (tenant, message_id, document_id)
SELECT DISTINCT tenant, id, source -> 'passage' ->> 'document_id'
FROM messages, jsonb_array_elements(sources) AS source;
INSERT INTO quoted_documents (tenant, document_id) SELECT DISTINCT tenant, document_id FROM quotations;
ALTER TABLE messages FORCE ROW LEVEL SECURITY;
SELECT isolate_tenants('quoted_documents');
SELECT isolate_tenants('quotations');

-- Sources without what is quoted of one document.
CREATE FUNCTION without_document(sources jsonb, document_id text) RETURNS jsonb LANGUAGE sql IMMUTABLE AS $$
    SELECT coalesce(jsonb_agg(
        CASE WHEN source -> 'passage' ->> 'document_id' = document_id
            THEN source || jsonb_build_object('deleted', true, 'passage', source -> 'passage'
                || '{"title": "", "content": "", "attributes": {}, "heading_path": []}')
            ELSE source
        END ORDER BY place), '[]')
    FROM jsonb_array_elements(sources) WITH ORDINALITY AS given (source, place)
$$;
