-- Removes what is left of a lane's operations whose time has passed. Any number of replicas may run it at once.
--
-- KEYS  1 index  2 expiry  3 leases
--       (also changed: ARGV[1]..id..'', ':events', ':signals' and KEYS[1]..':<field>:<value>', in the same slot)
-- ARGV  1 what an operation's own keys begin with
--       2 how many to remove at most
-- Reply the number removed.

local STATUSES = { 'pending', 'running', 'stalled', 'cancelling', 'succeeded', 'failed', 'cancelled' }

local time = redis.call('TIME')
local now = tonumber(time[1]) * 1000 + math.floor(tonumber(time[2]) / 1000)
local due = redis.call('ZRANGEBYSCORE', KEYS[2], '-inf', string.format('%.0f', now), 'LIMIT', 0, ARGV[2])
for _, member in ipairs(due) do
  local id, indexes = string.match(member, '^([^\n]*)\n(.*)$')
  local key = ARGV[1] .. id
  local there = redis.call('HMGET', key, 'expires', 'indexes')
  local anew = there[1] and tonumber(there[1]) > now -- created again under the same id since
  redis.call('ZREM', KEYS[2], member)
  local current = {}
  if anew then
    for suffix in string.gmatch(there[2], '[^\n]+') do current[suffix] = true end
  else
    if there[1] then redis.call('DEL', key) end -- but a tombstone stays
    redis.call('DEL', key .. ':events', key .. ':signals')
    redis.call('ZREM', KEYS[1], id)
    redis.call('ZREM', KEYS[3], id)
    for _, status in ipairs(STATUSES) do redis.call('ZREM', KEYS[1] .. ':status:' .. status, id) end
  end
  for suffix in string.gmatch(indexes, '[^\n]+') do
    if not current[suffix] then redis.call('ZREM', KEYS[1] .. ':' .. suffix, id) end
  end
end
return #due
