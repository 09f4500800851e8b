-- Returns some of a lane's operations that may match a query, in an order, from a place on. Changes nothing. It stops when it
-- has enough, or has looked at enough: the caller goes on from the place of the reply.
--
-- KEYS  1 index
--       Derived: KEYS[1]..':order:created', KEYS[1]..':<field>:<value>' and ARGV[1]..id, which are only read.
-- ARGV  prefix most look [CREATION] [DOWN] [AFTER place] [ORDERED] [REST cursor] and the filters:
--          [ANY lines]… [CREATED from to] [CHANGED from to] [LAST_EVENT from to] [ID_PREFIX text] [ROOTS] [TEXT text]
--          [WORKER text] [ERROR text] [METADATA]
--       prefix      what an operation's own keys begin with
--       most        how many to return at most
--       look        how many to look at at most
--       CREATION    in the order of creation; without it, of last change. Operations of one time are in that of their ids
--       DOWN        the newest first; without it, the oldest
--       AFTER       a place, `ms id`: those that come after it in the order
--       ORDERED     by the order of creation itself, also if few operations are in one of the groups
--       REST        instead, those that the order of creation lacks: `0`, and then the id of the place of the reply
--       ANY         a group: `kind:job`, an index; `=import-42`, an operation; `^import-`, a prefix of ids; a line each
--       CREATED     when it was created, in ms, both included
--       CHANGED     when its last change was listed, in ms, both included
--       LAST_EVENT  when its last event was, in ms, both included
--       TEXT        is in the id or in what it was created with; in small letters, as that of ERROR, which ended it
--       METADATA    a group is one of metadata as it is now
-- Reply {1 at the end, or 0; how many were looked at; 1 if they are few that were read whole and then sorted, or 0; the place
--       of the last one that was looked at: ms, id; then id, ms, id, ms, …}.

local SMALL = 250 -- of so many, each one's time of creation is read
local PART = 100 -- members that are read at once, at most
local MOST_COMMANDS = 900

local given, takes = {}, { CREATION = 'flag', DOWN = 'flag', AFTER = 'text', ORDERED = 'flag', REST = 'text' }
for name, kind in pairs(FILTERS) do takes[name] = kind end
local at, wrong = read_options(4, takes, given)
local after_ms, after_id = string.match(given.AFTER or '', '^(%d+) (.*)$')
if given.AFTER and not after_ms then wrong = 'AFTER is not a place' end
if wrong or ARGV[at] then
  local usage = 'prefix most look [CREATION] [DOWN] [AFTER place] [ORDERED] [REST cursor] ' .. FILTER_USAGE
  return redis.error_reply(reject_arguments(wrong, at, usage)[2])
end
after_ms = tonumber(after_ms)
local most, most_looked, down = tonumber(ARGV[2]), tonumber(ARGV[3]), given.DOWN
local groups, fewest = read_groups(given.ANY)
local order = creation_order(KEYS[1])

if given.REST then
  local may_match = matcher(given, groups)
  local part = ask('ZSCAN', KEYS[1], given.REST, 'COUNT', text(most_looked)) or { '0', {} }
  local reply = { part[1] == '0' and 1 or 0, #part[2] / 2, 0, '0', part[1] }
  for i = 1, #part[2], 2 do
    local id = part[2][i]
    if not ask('ZSCORE', order, id) and may_match(id) then
      reply[#reply + 1], reply[#reply + 2] = id, '0'
    end
  end
  return reply
end

-- As Redis sorts them: by their bytes. Lua's own `<` sorts as the language of the server's machine does.
local function is_less(one, other)
  if one == other then return false end
  for i = 1, math.min(#one, #other) do
    local a, b = string.byte(one, i), string.byte(other, i)
    if a ~= b then return a < b end
  end
  return #one < #other
end

local function is_before(ms, id, other_ms, other_id)
  if down then ms, id, other_ms, other_id = other_ms, other_id, ms, id end
  if ms ~= other_ms then return ms < other_ms end
  return is_less(id, other_id)
end

local first, last = span_of(given[given.CREATION and 'CREATED' or 'CHANGED'])
if after_ms then
  if down then last = math.min(last, after_ms) else first = math.max(first, after_ms) end
end
local function is_due(ms, id)
  return ms >= first and ms <= last and (not after_ms or is_before(after_ms, after_id, ms, id))
end

-- Each source returns the next time and id of its own, in the order, or nil.
local function read_index(key)
  local command, from, to = 'ZRANGEBYSCORE', text(first), text(last)
  if down then command, from, to = 'ZREVRANGEBYSCORE', to, from end
  local some, i, read, size = {}, 1, 0, math.max(10, math.min(most + 1, PART))
  return function()
    while first <= last do
      if i > #some then
        some, i = counted(command, key, from, to, 'WITHSCORES', 'LIMIT', read, size) or {}, 1
        if #some == 0 then return nil end
        read, size = read + #some / 2, math.min(2 * size, 1000)
      end
      local id, ms = some[i], tonumber(some[i + 1])
      i = i + 2
      if is_due(ms, id) then return ms, id end
    end
  end
end

local function created(id)
  local ms = counted('ZSCORE', order, id)
  if ms then return tonumber(ms) end
  local hash = counted('HMGET', ARGV[1] .. id, 'created') -- a release that doesn't know the order created it
  return hash and whole(hash[1]) and tonumber(hash[1])
end

local function sort(ids)
  local places, i = {}, 0
  for _, id in ipairs(ids) do
    local ms
    if given.CREATION then ms = created(id) else ms = tonumber(counted('ZSCORE', KEYS[1], id) or '') end
    if ms and is_due(ms, id) then places[#places + 1] = { ms, id } end
  end
  table.sort(places, function(a, b) return is_before(a[1], a[2], b[1], b[2]) end)
  return function()
    i = i + 1
    if places[i] then return places[i][1], places[i][2] end
  end
end

local sources, small = {}, false
if not fewest then
  sources[1] = read_index(given.CREATION and order or KEYS[1])
elseif not given.CREATION then
  for i, key in ipairs(fewest.keys) do sources[i] = read_index(key) end
  if #fewest.ids > 0 then sources[#sources + 1] = sort(fewest.ids) end
elseif fewest.size <= SMALL and not given.ORDERED then
  local ids, listed = {}, {}
  local function add(id)
    if not listed[id] then ids[#ids + 1], listed[id] = id, true end
  end
  for _, id in ipairs(fewest.ids) do add(id) end
  for _, key in ipairs(fewest.keys) do
    for _, id in ipairs(counted('ZRANGE', key, 0, -1) or {}) do add(id) end
  end
  sources[1], small = sort(ids), true
else
  sources[1], fewest = read_index(order), nil
end

local heads = {}
local function next_place()
  local best
  for i, source in ipairs(sources) do
    if heads[i] == nil then
      local ms, id = source()
      heads[i] = ms and { ms, id } or false
    end
    local head = heads[i]
    if head and (not best or is_before(head[1], head[2], heads[best][1], heads[best][2])) then best = i end
  end
  if not best then return nil end
  local place = heads[best]
  heads[best] = nil
  return place[1], place[2]
end

local may_match = matcher(given, groups, fewest, given.CREATION and 'created' or 'changed')
local rounded = down and math.floor or math.ceil -- so that a part of a millisecond is passed, too
local reply, looked = { 0, 0, small and 1 or 0, '', '' }, 0
while looked < most_looked and #reply < 5 + 2 * most and commands < MOST_COMMANDS do
  local ms, id = next_place()
  if not ms then
    reply[1] = 1
    break
  end
  if id ~= reply[5] then -- else it is in several indexes
    looked, reply[4], reply[5] = looked + 1, text(rounded(ms)), id
    if may_match(id) then
      reply[#reply + 1], reply[#reply + 2] = id, reply[4]
    end
  end
end
reply[2] = looked
return reply
