-- Writes the retention into the meta key, or into a lane's copy of it. A Redis that is full stores it all the same.
--
-- KEYS  1 the hash
-- ARGV  1 how long an operation is kept after its end, in ms  2 how long without events, in ms
-- Reply {'ok'}

frees = KEYS[1]
write('HSET', KEYS[1], 'retention_ms', ARGV[1], 'idle_ms', ARGV[2])
return { 'ok' }
