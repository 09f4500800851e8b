-- Tells which operations of a lane have a worker that has been silent for longer than its lease. Changes none of them.
--
-- KEYS  1 leases
--       (also read: ARGV[1]..id, in the same slot)
-- ARGV  1 what an operation's own keys begin with
--       2 how many to tell at most
-- Reply {id, status, …}, the one longest lapsed first.

local SAMPLE = 10 -- deadlines checked against the clock each time

local time = redis.call('TIME')
local now = tonumber(time[1]) * 1000 + math.floor(tonumber(time[2]) / 1000)
local told = {}
for _, id in ipairs(redis.call('ZRANGEBYSCORE', KEYS[1], '-inf', string.format('%.0f', now), 'LIMIT', 0, ARGV[2])) do
  local status = redis.call('HGET', ARGV[1] .. id, 'status')
  if status then
    told[#told + 1], told[#told + 2] = id, status
  else
    redis.call('ZREM', KEYS[1], id) -- expired, or deleted by hand
  end
end
-- A clock that was set back leaves deadlines in a distant future: a dead worker's would be waited for.
local some = redis.call('ZRANDMEMBER', KEYS[1], SAMPLE, 'WITHSCORES')
for i = 1, #some, 2 do
  local state = redis.call('HMGET', ARGV[1] .. some[i], 'lease_ms', 'held')
  local longest = math.max(tonumber(state[1]) or 0, tonumber(state[2]) or 0)
  if tonumber(some[i + 1]) > now + longest then
    redis.call('ZADD', KEYS[1], string.format('%.0f', now + longest), some[i])
  end
end
return told
