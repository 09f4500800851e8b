-- Returns the operations of a lane that are listed in all of some indexes, and have not ended or ended since a time.
-- Changes nothing.
--
-- KEYS  1 index
--       Derived: KEYS[1]..':<field>:<value>' and ARGV[1]..id, which are only read.
-- ARGV  prefix most [ENDED_SINCE ms] INDEX field:value [INDEX field:value]…
--       prefix        what an operation's own keys begin with
--       most          how many to return at most
--       ENDED_SINCE   also returns those that have ended and changed since then
-- Reply {id, state, id, state, …}. A state holds status, position, first_position, created, indexes and gone.

local ACTIVE = { 'pending', 'running', 'stalled', 'cancelling' }

local given = {}
local at, wrong = read_options(3, { ENDED_SINCE = 'number', INDEX = 'list' }, given)
if not (wrong or ARGV[at] or given.INDEX) then wrong = 'INDEX is missing' end
if wrong or ARGV[at] then
  return redis.error_reply(reject_arguments(wrong, at, 'prefix most [ENDED_SINCE ms] INDEX field:value...')[2])
end

local all, rarest, fewest = {}, nil, nil
for _, index in ipairs(given.INDEX) do
  local key = KEYS[1] .. ':' .. index
  local size = ask('ZCARD', key)
  if not size then return {} end -- nothing is listed in it
  if not fewest or size < fewest then rarest, fewest = key, size end
  all[#all + 1] = key
end

local reply, most = {}, 2 * tonumber(ARGV[2])
local function add(id)
  if #reply >= most then return end
  local state = ask('HMGET', ARGV[1] .. id, 'status', 'position', 'first_position', 'created', 'indexes', 'gone',
    'schema')
  if state and state[1] and not state[6] and state[7] == SCHEMA then
    state[7] = nil
    reply[#reply + 1] = id
    reply[#reply + 1] = state
  end
end

for _, status in ipairs(ACTIVE) do
  local ids = ask('ZINTER', #all + 1, KEYS[1] .. ':status:' .. status, unpack(all))
  for _, id in ipairs(ids or {}) do add(id) end
end
if given.ENDED_SINCE then
  for _, id in ipairs(redis.call('ZRANGEBYSCORE', rarest, given.ENDED_SINCE, '+inf')) do
    if #reply >= most then break end
    local ended, listed = ask('HGET', ARGV[1] .. id, 'outcome'), true
    for _, key in ipairs(all) do listed = listed and redis.call('ZSCORE', key, id) end
    if ended and listed then add(id) end
  end
end
return reply
