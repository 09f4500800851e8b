-- Revokes a principal or a token, or withdraws a revocation. The last call wins, and each call is atomic.
--
-- KEYS  1 deny list: a sorted set of entries by when each is forgotten (ms); `-<entry>` is one that was withdrawn
-- ARGV  entry DENY ms | entry ALLOW ms
--       entry   `sub:<name>` or `jti:<token's id>`
--       DENY    for how long it is denied; longer if it is denied for longer already
--       ALLOW   for how long, at least, the list has the withdrawal
-- Reply {until when it is or was denied (ms), 0 for not; the same of before}

local given = {}
local at, wrong = read_options(2, { DENY = 'number', ALLOW = 'number' }, given)
if not (wrong or ARGV[at]) and not given.DENY == not given.ALLOW then wrong = 'DENY or ALLOW is needed, not both' end
if wrong or ARGV[at] then
  return redis.error_reply(reject_arguments(wrong, at, 'entry DENY ms | entry ALLOW ms')[2])
end

local now = now_ms()
local entry, back = ARGV[1], '-' .. ARGV[1]
local pruned = redis.pcall('ZREMRANGEBYSCORE', KEYS[1], '-inf', now)
if type(pruned) == 'table' and string.find(pruned.err, 'WRONGTYPE', 1, true) then
  redis.call('DEL', KEYS[1]) -- another program wrote something else there
end
local before = tonumber(redis.call('ZSCORE', KEYS[1], entry) or '0')
local til = 0
if given.DENY then
  til = math.max(before, now + tonumber(given.DENY))
  redis.call('ZADD', KEYS[1], text(til), entry)
  redis.call('ZREM', KEYS[1], back)
else -- also of what is not there: a replica may know it from before Redis lost it
  local kept_until = tonumber(redis.call('ZSCORE', KEYS[1], back) or '0')
  kept_until = math.max(kept_until, before, now + tonumber(given.ALLOW))
  redis.call('ZADD', KEYS[1], text(kept_until), back)
  redis.call('ZREM', KEYS[1], entry)
end
local last = redis.call('ZRANGE', KEYS[1], -1, -1, 'WITHSCORES')[2]
redis.call('PEXPIRE', KEYS[1], text(tonumber(last) - now + 1000))
return { til, before }
