-- Returns the operations of a lane whose worker sent no heartbeat for longer than its lease. Changes none of them.
--
-- KEYS  1 leases
--       Derived: ARGV[1]..id, which is only read, and before the first write.
-- ARGV  1 what an operation's own keys begin with
--       2 how many to return at most
-- Reply {id, status, …}, the one whose lease expired first comes first.

local SAMPLE = 10 -- deadlines checked against the clock each time
local WATCHED = { pending = true, running = true, stalled = true, cancelling = true }

local now = now_ms()
local expired = ask('ZRANGEBYSCORE', KEYS[1], '-inf', text(now), 'LIMIT', 0, ARGV[2])
if not expired then return {} end -- another program wrote something else there; the next heartbeat creates it again

local reply, stale = {}, {}
for _, id in ipairs(expired) do
  local status = ask('HGET', ARGV[1] .. id, 'status')
  if status and WATCHED[status] and string.find(id, '^%w[%w._~-]*$') then
    reply[#reply + 1], reply[#reply + 2] = id, status
  else
    stale[#stale + 1] = id -- expired, deleted by hand, or never an operation: it would take the place of others
  end
end
-- A clock that was set back leaves deadlines in a distant future: a dead worker's would be waited for.
local too_late, some = {}, redis.call('ZRANDMEMBER', KEYS[1], SAMPLE, 'WITHSCORES')
for i = 1, #some, 2 do
  local state = ask('HMGET', ARGV[1] .. some[i], 'lease_ms', 'lease_override_ms') or {}
  local latest = now + math.max(tonumber(state[1] or 0) or 0, tonumber(state[2] or 0) or 0)
  if tonumber(some[i + 1]) > latest then too_late[some[i]] = text(latest) end
end

for _, id in ipairs(stale) do redis.call('ZREM', KEYS[1], id) end
for id, latest in pairs(too_late) do redis.pcall('ZADD', KEYS[1], latest, id) end -- in a full Redis it fails: later
return reply
