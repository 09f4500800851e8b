-- Tells which operations of a lane have not ended, or have since, of those listed in all of some indexes. Changes nothing.
--
-- KEYS  1 index
--       (also read: KEYS[1]..':<field>:<value>' and ARGV[1]..id, in the same slot)
-- ARGV  1 what an operation's own keys begin with
--       2 how many to tell at most
--       3 those that have ended are told if they changed since then, in ms; '' for none of them
--       then the indexes, `<field>:<value>` each
-- Reply {id, state, id, state, …}. A state holds status, position, first, created, indexes and gone.

local ACTIVE = { 'pending', 'running', 'stalled', 'cancelling' }

-- Runs a command, or returns nil where another program wrote something of another type.
local function ask(...)
  local reply = redis.pcall(...)
  if type(reply) ~= 'table' or not reply.err then return reply end
  if not string.find(tostring(reply.err), 'WRONGTYPE', 1, true) then return redis.call(...) end -- which raises it
end

local all, rarest, fewest = {}, nil, nil
for i = 4, #ARGV do
  local key = KEYS[1] .. ':' .. ARGV[i]
  local size = ask('ZCARD', key)
  if not size then return {} end -- nothing is listed in it
  if not fewest or size < fewest then rarest, fewest = key, size end
  all[#all + 1] = key
end

local told, most = {}, 2 * tonumber(ARGV[2])
local function tell(id)
  if #told >= most then return end
  local state = ask('HMGET', ARGV[1] .. id, 'status', 'position', 'first', 'created', 'indexes', 'gone')
  if state and state[1] and not state[6] then
    told[#told + 1] = id
    told[#told + 1] = state
  end
end

for _, status in ipairs(ACTIVE) do
  local ids = ask('ZINTER', #all + 1, KEYS[1] .. ':status:' .. status, unpack(all))
  for _, id in ipairs(ids or {}) do tell(id) end
end
if ARGV[3] ~= '' then
  for _, id in ipairs(redis.call('ZRANGEBYSCORE', rarest, ARGV[3], '+inf')) do
    if #told >= most then break end
    local ended, listed = ask('HGET', ARGV[1] .. id, 'outcome'), true
    for _, key in ipairs(all) do listed = listed and redis.call('ZSCORE', key, id) end
    if ended and listed then tell(id) end
  end
end
return told
