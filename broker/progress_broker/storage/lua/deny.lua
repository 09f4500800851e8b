-- Denies a principal or a token, or takes that back: whoever comes last is right, and no half of either is ever seen.
--
-- KEYS  1 deny list: a sorted set of entries by when each is forgotten (ms); `-<entry>` is one that was taken back
-- ARGV  1 entry: `sub:<name>` or `jti:<token's id>`
--       2 milliseconds for which it is denied; longer if it is already. 0 takes it back
--       3 milliseconds for which it is told at least that it was taken back
-- Reply {until when it is or was denied (ms), 0 for not; the same of before}

local time = redis.call('TIME')
local now = tonumber(time[1]) * 1000 + math.floor(tonumber(time[2]) / 1000)
local entry, back = ARGV[1], '-' .. ARGV[1]
local pruned = redis.pcall('ZREMRANGEBYSCORE', KEYS[1], '-inf', now)
if type(pruned) == 'table' and string.find(pruned.err, 'WRONGTYPE', 1, true) then
  redis.call('DEL', KEYS[1]) -- another program wrote something else there
end
local before = tonumber(redis.call('ZSCORE', KEYS[1], entry) or '0')
local til = 0
if tonumber(ARGV[2]) > 0 then
  til = math.max(before, now + tonumber(ARGV[2]))
  redis.call('ZADD', KEYS[1], string.format('%.0f', til), entry)
  redis.call('ZREM', KEYS[1], back)
else -- also of what is not there: a replica may know it from before Redis lost it
  local told = tonumber(redis.call('ZSCORE', KEYS[1], back) or '0')
  told = math.max(told, before, now + tonumber(ARGV[3]))
  redis.call('ZADD', KEYS[1], string.format('%.0f', told), back)
  redis.call('ZREM', KEYS[1], entry)
end
local last = redis.call('ZRANGE', KEYS[1], -1, -1, 'WITHSCORES')[2]
redis.call('PEXPIRE', KEYS[1], string.format('%.0f', tonumber(last) - now + 1000))
return { til, before }
