-- Which limit ended an answer, with the finish reason LIMIT.
ALTER TABLE messages ADD COLUMN finish_limit text NOT NULL DEFAULT '';
