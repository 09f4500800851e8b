-- Tells which operations of a lane have a worker that has been silent for longer than its lease. Changes none of them.
--
-- KEYS  1 leases
--       (also read: ARGV[1]..id, in the same slot)
-- ARGV  1 what an operation's own keys begin with
--       2 how many to tell at most
-- Reply {id, status, …}, the one longest lapsed first.

local SAMPLE = 10 -- deadlines checked against the clock each time
local WATCHED = { pending = true, running = true, stalled = true, cancelling = true }

-- Runs a command, or returns nil where another program wrote something of another type.
local function ask(...)
  local reply = redis.pcall(...)
  if type(reply) ~= 'table' or not reply.err then return reply end
  if not string.find(tostring(reply.err), 'WRONGTYPE', 1, true) then return redis.call(...) end -- which raises it
end

local time = redis.call('TIME')
local now = tonumber(time[1]) * 1000 + math.floor(tonumber(time[2]) / 1000)
local lapsed = ask('ZRANGEBYSCORE', KEYS[1], '-inf', string.format('%.0f', now), 'LIMIT', 0, ARGV[2])
if not lapsed then return {} end -- another program wrote something else there; the next beat makes it anew

local told = {}
for _, id in ipairs(lapsed) do
  local status = ask('HGET', ARGV[1] .. id, 'status')
  if status and WATCHED[status] and string.find(id, '^%w[%w._~-]*$') then
    told[#told + 1], told[#told + 2] = id, status
  else
    redis.call('ZREM', KEYS[1], id) -- expired, deleted by hand, or never an operation: it would stand before others
  end
end
-- A clock that was set back leaves deadlines in a distant future: a dead worker's would be waited for.
local some = redis.call('ZRANDMEMBER', KEYS[1], SAMPLE, 'WITHSCORES')
for i = 1, #some, 2 do
  local state = ask('HMGET', ARGV[1] .. some[i], 'lease_ms', 'held') or {}
  local longest = math.max(tonumber(state[1] or 0) or 0, tonumber(state[2] or 0) or 0)
  if tonumber(some[i + 1]) > now + longest then
    redis.pcall('ZADD', KEYS[1], string.format('%.0f', now + longest), some[i]) -- later, where Redis is full
  end
end
return told
