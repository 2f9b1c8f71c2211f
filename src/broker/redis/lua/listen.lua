-- Makes topics heard again.
-- KEYS: queue
-- ARGV: now, topics
-- returns: those that were quiet, of which a change may have gone unannounced
return listen(ARGV[2])
