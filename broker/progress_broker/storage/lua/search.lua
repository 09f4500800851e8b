-- Returns the operations of a lane that are listed in all of some indexes, and have not ended or ended since a time.
-- Changes nothing. It looks at so many at a time: if there are more, the caller asks again with the cursor of the reply.
--
-- KEYS  1 index
--       Derived: KEYS[1]..':<field>:<value>' and ARGV[1]..id, which are only read.
-- ARGV  prefix most [ENDED_SINCE ms] [CURSOR text] INDEX field:value [INDEX field:value]…
--       prefix        what an operation's own keys begin with
--       most          how many to return at most
--       ENDED_SINCE   also returns those that have ended and changed since then
--       CURSOR        goes on from there; all other arguments are the same
-- Reply {cursor, or '' at the end, id, state, id, state, …}. One may be returned twice. A state holds status, position,
--       first_position, created, indexes and gone.

local ACTIVE = { 'pending', 'running', 'stalled', 'cancelling' }
local AT_ONCE = 250 -- how many of an index are looked at in one call, and reply

local given = {}
local at, wrong = read_options(3, { ENDED_SINCE = 'number', CURSOR = 'text', INDEX = 'list' }, given)
if not (wrong or ARGV[at] or given.INDEX) then wrong = 'INDEX is missing' end
local whole_walk, from, last = string.match(given.CURSOR or '', '^([01]) (%d+) (.*)$')
if given.CURSOR and not from then wrong = 'CURSOR is not that of a reply' end
if wrong or ARGV[at] then
  return redis.error_reply(reject_arguments(wrong, at, 'prefix most [ENDED_SINCE ms] [CURSOR text] INDEX field:value...')[2])
end

local all, rarest, fewest = {}, nil, nil
for _, index in ipairs(given.INDEX) do
  local key = KEYS[1] .. ':' .. index
  local size = ask('ZCARD', key)
  if not size then return { '' } end -- nothing is listed in it
  if not fewest or size < fewest then rarest, fewest = key, size end
  all[#all + 1] = key
end

local reply, most = { '' }, math.min(tonumber(ARGV[2]), AT_ONCE)
local function add(id, score)
  local state = ask('HMGET', ARGV[1] .. id, 'status', 'position', 'first_position', 'created', 'indexes', 'gone',
    'schema')
  if not (state and state[1] and not state[6] and state[7] == SCHEMA) then return end
  if score then -- not known yet to be wanted
    if TERMINAL[state[1]] then
      if not given.ENDED_SINCE or score < tonumber(given.ENDED_SINCE) then return end
    elseif whole_walk ~= '1' then
      return
    end
    for _, key in ipairs(all) do
      if key ~= rarest and not redis.call('ZSCORE', key, id) then return end
    end
  end
  state[7] = nil
  reply[#reply + 1] = id
  reply[#reply + 1] = state
end

if not from then
  local active = 0
  for _, status in ipairs(ACTIVE) do active = active + (ask('ZCARD', KEYS[1] .. ':status:' .. status) or 0) end
  if math.min(active, fewest) > AT_ONCE then -- to intersect them would take long
    whole_walk, from, last = '1', '0', ''
  else
    for _, status in ipairs(ACTIVE) do
      local ids = ask('ZINTER', #all + 1, KEYS[1] .. ':status:' .. status, unpack(all))
      for _, id in ipairs(ids or {}) do
        if #reply <= 2 * most then add(id) end
      end
    end
    if not given.ENDED_SINCE then return reply end
    whole_walk, from, last = '0', given.ENDED_SINCE, ''
  end
end

-- Upwards: what changes meanwhile moves up, so none is missed.
local passed, offset, looked_at = tonumber(from), 0, 0
while looked_at < AT_ONCE and #reply <= 2 * most do
  local some = redis.call('ZRANGEBYSCORE', rarest, from, '+inf', 'WITHSCORES', 'LIMIT', offset, AT_ONCE)
  if #some == 0 then return reply end
  for i = 1, #some, 2 do
    local id, score = some[i], tonumber(some[i + 1])
    if score > passed or id > last then -- else it was looked at before
      passed, last, looked_at = score, id, looked_at + 1
      add(id, score)
      if looked_at == AT_ONCE or #reply > 2 * most then break end
    end
  end
  offset = offset + #some / 2
end
reply[1] = whole_walk .. ' ' .. text(passed) .. ' ' .. last
return reply
