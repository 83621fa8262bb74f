-- A job that waits for something which is no worker's to do: nobody holds it, and nothing announces it until it is
-- queued again.
ALTER TABLE jobs DROP CONSTRAINT jobs_state_check;
ALTER TABLE jobs ADD CONSTRAINT jobs_state_check
    CHECK (state IN ('QUEUED', 'RUNNING', 'PARKED', 'SUCCEEDED', 'FAILED', 'CANCELLED'));
