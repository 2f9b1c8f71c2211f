-- Requests to look at the scripts again are numbered; each worker notes the last one that it has done.
ALTER TABLE workers ADD COLUMN reloaded INTEGER NOT NULL DEFAULT 0;
CREATE TABLE reload (asked INTEGER NOT NULL) STRICT;
INSERT INTO reload VALUES (0);
