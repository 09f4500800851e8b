-- Prepares what a replica's probe is published to, so that the replica sees the probe come by. For `publish.lua` it is an
-- operation that runs, but no listing shows it, it has no lease, and it expires by itself.
--
-- KEYS  1 snapshot  2 log  3 feed
--       Derived: KEYS[3]..':length', which is looked at before the first write.
-- ARGV  1 about how many entries the feed keeps
--       2 how long it lasts, in milliseconds
-- Reply {'ok'}

look({ KEYS[3] .. ':length' })
local length = feed_length(KEYS[3], ARGV[1])
-- Listings, and TTLs with them, are moved when `listed_ms` is long ago, which so never comes.
redis.call('HSET', KEYS[1], 'schema', SCHEMA, 'status', 'running', 'attempt', '1', 'indexes', '', 'created', '0',
  'history_length', '1', 'feed_length', length, 'retention_ms', '1', 'idle_ms', '1', 'listed_ms', '9e15')
redis.call('HSETNX', KEYS[1], 'n', '0')
ask_for_length(KEYS[3], ARGV[1], length)
redis.call('HSETNX', KEYS[1], 'position', '0-0')
-- The log is there before it is published to and outlives the snapshot, without which nothing is: so it always has a TTL.
if redis.call('EXISTS', KEYS[2]) == 0 then redis.call('XADD', KEYS[2], '0-1', 't', 'probe') end
redis.call('PEXPIRE', KEYS[1], ARGV[2])
redis.call('PEXPIRE', KEYS[2], ARGV[2] + 1000)
return { 'ok' }
