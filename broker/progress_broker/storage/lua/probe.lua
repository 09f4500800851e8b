-- Makes ready an operation that is none, for a replica to publish to and see it come by: `publish.lua` takes it for one
-- that runs, but no listing shows it, no lease watches it and nothing keeps it.
--
-- KEYS  1 snapshot  2 log
-- ARGV  1 entries kept in the feed, at least
--       2 how long it lasts, in milliseconds
-- Reply {'ok'}

-- Listings, and TTLs with them, are moved when it was `touched` long ago, which so never comes.
redis.call('HSET', KEYS[1], 'status', 'running', 'attempt', '1', 'lease_ms', '0', 'indexes', '', 'created', '0',
  'limits', '1 ' .. ARGV[1] .. ' 1 1', 'touched', '9e15')
redis.call('HSETNX', KEYS[1], 'n', '0')
redis.call('HSETNX', KEYS[1], 'position', '0-0')
-- The log is there before it is published to and outlives the snapshot, without which nothing is: so it always has a TTL.
if redis.call('EXISTS', KEYS[2]) == 0 then redis.call('XADD', KEYS[2], '0-1', 't', 'probe') end
redis.call('PEXPIRE', KEYS[1], ARGV[2])
redis.call('PEXPIRE', KEYS[2], ARGV[2] + 1000)
return { 'ok' }
