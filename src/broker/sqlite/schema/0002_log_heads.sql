-- How many lines of which run the log has, so that a batch that comes again adds nothing.
ALTER TABLE log_heads ADD COLUMN token INTEGER NOT NULL DEFAULT 0;
ALTER TABLE log_heads ADD COLUMN taken INTEGER NOT NULL DEFAULT 0;
