-- Removes what is left of a lane's operations whose time has passed. Any number of replicas may run it at once.
--
-- KEYS  1 index  2 expiry  3 leases
--       (also changed: ARGV[1]..id..'', ':events', ':signals' and KEYS[1]..':<field>:<value>', in the same slot)
-- ARGV  1 what an operation's own keys begin with
--       2 how many to remove at most
-- Reply the number removed.

local STATUSES = { 'pending', 'running', 'stalled', 'cancelling', 'succeeded', 'failed', 'cancelled' }

-- Runs a command, or returns nil where another program wrote something of another type.
local function ask(...)
  local reply = redis.pcall(...)
  if type(reply) ~= 'table' or not reply.err then return reply end
  if not string.find(tostring(reply.err), 'WRONGTYPE', 1, true) then return redis.call(...) end -- which raises it
end

local time = redis.call('TIME')
local now = tonumber(time[1]) * 1000 + math.floor(tonumber(time[2]) / 1000)
local due = ask('ZRANGEBYSCORE', KEYS[2], '-inf', string.format('%.0f', now), 'LIMIT', 0, ARGV[2])
if not due then return 0 end -- another program wrote something else there; what is published next makes it anew

local function remove(id, indexes)
  local key = ARGV[1] .. id
  local there = ask('HMGET', key, 'expires', 'indexes')
  local expires = there and tonumber(there[1] or '')
  local current = {}
  if expires and expires > now then -- created again under the same id since
    for suffix in string.gmatch(there[2] or '', '[^\n]+') do current[suffix] = true end
  else
    if not there or there[1] then redis.call('DEL', key) end -- but a tombstone stays
    redis.call('DEL', key .. ':events', key .. ':signals')
    -- Where another program wrote something else, there is nothing to remove.
    ask('ZREM', KEYS[1], id)
    ask('ZREM', KEYS[3], id)
    for _, status in ipairs(STATUSES) do ask('ZREM', KEYS[1] .. ':status:' .. status, id) end
  end
  for suffix in string.gmatch(indexes, '[^\n]+') do
    if not current[suffix] then ask('ZREM', KEYS[1] .. ':' .. suffix, id) end
  end
end

for _, member in ipairs(due) do
  local id, indexes = string.match(member, '^(%w[%w._~-]*)\n(.*)$')
  if id then remove(id, indexes) end -- else no operation's: its keys could be those of another
  redis.call('ZREM', KEYS[2], member)
end
return #due
