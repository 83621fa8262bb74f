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
