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
