-- Appends an entry to a lane's feed that is of no operation: the replica that did so is to see it come by.
--
-- KEYS  1 feed
-- ARGV  1 who asks: no operation's id can be this
--       2 data (JSON)
--       3 entries kept in the feed, at least
-- Reply {'ok'}

redis.call('XADD', KEYS[1], 'MAXLEN', '~', ARGV[3], '*', 'o', ARGV[1], 't', 'probe', 'd', ARGV[2])
return { 'ok' }
