-- Writes, as every change does.
-- KEYS: registry
-- ARGV: now
-- returns: now
redis.call('SET', PINGED, now)
return now
