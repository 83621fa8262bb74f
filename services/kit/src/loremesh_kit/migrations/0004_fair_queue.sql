-- Each tenant's queue in the order in which it is served. What is announced is due, and has a message on its way.
DROP INDEX jobs_queued;
CREATE INDEX jobs_queued ON jobs (tenant, priority DESC, due_at, id) WHERE state = 'QUEUED' AND announced_at IS NOT NULL;
-- What the sweeper has still to announce when it is due.
CREATE INDEX jobs_unannounced ON jobs (due_at, tenant) WHERE state = 'QUEUED' AND announced_at IS NULL;

-- Claims jobs in turns: each step takes the head of the queue of the tenant that comes after `last`, passing over what
-- other workers are claiming now. However long the queues are, a step reads the first entries of an index; the settings
-- see to it that no statistics, or the lack of them, lead the planner elsewhere.
CREATE FUNCTION claim_jobs(last text, wanted integer, lease_seconds double precision) RETURNS SETOF jobs
LANGUAGE plpgsql
SET enable_seqscan = off SET enable_bitmapscan = off SET enable_sort = off SET enable_incremental_sort = off
SET plan_cache_mode = force_generic_plan
AS $$
DECLARE
    head record;
    claimed jobs;
BEGIN
    FOR step IN 1..wanted LOOP
        SELECT tenant, id INTO head FROM jobs
        WHERE state = 'QUEUED' AND announced_at IS NOT NULL AND tenant > last
        ORDER BY tenant, priority DESC, due_at, id LIMIT 1 FOR UPDATE SKIP LOCKED;
        IF NOT FOUND THEN
            SELECT tenant, id INTO head FROM jobs
            WHERE state = 'QUEUED' AND announced_at IS NOT NULL AND tenant <= last
            ORDER BY tenant, priority DESC, due_at, id LIMIT 1 FOR UPDATE SKIP LOCKED;
            EXIT WHEN NOT FOUND;
        END IF;
        UPDATE jobs SET
            state = 'RUNNING', attempt = attempt + 1, fence = fence + 1,
            lease_until = now() + make_interval(secs => lease_seconds)
        WHERE jobs.tenant = head.tenant AND jobs.id = head.id
        RETURNING * INTO claimed;
        last := head.tenant;
        RETURN NEXT claimed;
    END LOOP;
END
$$;

CREATE INDEX dead_letters_by_age ON dead_letters (tenant, died_at, id);

-- Events of old runs are removed, their numbering stays. No content is in here, so the sweeper may see all of it.
ALTER TABLE event_heads ADD COLUMN first_seq bigint NOT NULL DEFAULT 1;
ALTER TABLE event_heads ADD COLUMN last_at timestamptz NOT NULL DEFAULT now();
-- Of the kind that does not have to follow every append.
CREATE INDEX event_heads_by_age ON event_heads USING brin (last_at);
DROP POLICY one_tenant ON event_heads;
SELECT isolate_tenants('event_heads', queue => true);
