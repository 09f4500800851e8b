-- Brings the copy of an operation to what its source in another Redis has: the next events of its log, its signals and
-- its snapshot; or removes it. Nobody is told: the entries of the source's feed follow (`mirror_feed`).
--
-- KEYS  1 snapshot  2 log  3 signals  4 feed, which is only read  5 index  6 expiry  7 leases
--       Derived: KEYS[2]..':kept' and KEYS[2]..':curve'; KEYS[5]..':order:created', KEYS[5]..':status:<status>' and
--       KEYS[5]..':<field>:<value>' of the operation, before and after. They are looked at before the first write.
-- ARGV  id IF_FEED position (GONE ms [INDEXES lines] |
--          [PART] [SIGNALS] [EVENT position count field value…]… [SIGNAL position count field value…]… FIELDS name value…)
--       IF_FEED   rejected as `conflict` unless this is the last entry of the feed; 0-0: it has none
--       GONE      removes it. Its id is not free for so long; 0: it is free at once
--       INDEXES   those of the tombstone
--       PART      FIELDS are those that say where the log ends, and others stay as they are. Else they are all of the
--                 snapshot, also when it expires, but for those of older events, which this script moves itself
--       SIGNALS   the signals are those that follow, and no others
--       EVENT     follows the last one of the log; what the log has already is passed over, so the call may be repeated
-- The operation has no lease: its source watches its worker.
-- Reply {'ok'}; or {code, detail}, and then nothing was changed.

local USAGE = 'id IF_FEED position (GONE ms [INDEXES lines] | [PART] [SIGNALS] [EVENT position count field value...]...'
  .. ' [SIGNAL position count field value...]... FIELDS name value...)'
local TAKES = { IF_FEED = 'text', GONE = 'number', INDEXES = 'text', PART = 'flag', SIGNALS = 'flag' }

local id, given, fields = ARGV[1], {}, {}
local at, wrong = read_options(2, TAKES, given)
if not given.IF_FEED then wrong = wrong or 'IF_FEED is missing' end
local from, added = at, 0
while not wrong and (ARGV[at] == 'EVENT' or ARGV[at] == 'SIGNAL') do
  local count = ARGV[at + 2]
  if not whole(count) or not ARGV[at + 2 + tonumber(count)] then
    wrong = ARGV[at] .. ' needs a position and its fields'
  else
    added = added + (ARGV[at] == 'EVENT' and 1 or 0)
    at = at + 3 + tonumber(count)
  end
end
local names = at + 1
if not wrong and given.GONE then
  if ARGV[at] then return reject_arguments(nil, at, USAGE) end
elseif not wrong then
  for f = names, #ARGV, 2 do fields[ARGV[f]] = ARGV[f + 1] end
  if ARGV[at] ~= 'FIELDS' or (#ARGV - at) % 2 ~= 0 or not (whole(fields.n) and fields.position) then
    wrong = 'FIELDS needs n and position, each with a value'
  elseif not given.PART and not (fields.status and fields.indexes and whole(fields.created) and whole(fields.expires)
    and whole(fields.listed_ms) and whole(fields.history_length)) then
    wrong = 'FIELDS needs status, indexes, created, expires, listed_ms and history_length'
  end
end
if wrong then return reject_arguments(wrong, at, USAGE) end
local rejected = reject_feed(KEYS[4], given.IF_FEED)
if rejected then return rejected end

local before = ask('HMGET', KEYS[1], 'status', 'indexes', 'archived', 'curve_ms', 'history_length') or {}
local status_before, indexes_before, archived, curve_ms, history_length = unpack(before)
indexes_before = indexes_before or ''
archived, curve_ms = whole(archived) and tonumber(archived) or 0, whole(curve_ms) and tonumber(curve_ms) or 0
local kept, curve, order = KEYS[2] .. ':kept', KEYS[2] .. ':curve', creation_order(KEYS[5])
local unlisted = index_keys(KEYS[5], indexes_before .. (status_before and '\nstatus:' .. status_before or ''), given.GONE)
local listed = given.GONE and {} or index_keys(KEYS[5], (fields.indexes or '') .. '\nstatus:' .. (fields.status or ''))
look({ kept, curve, order })
look(unlisted)
look(listed)

-- Nothing is rejected from here on.
if given.GONE then
  redis.call('DEL', KEYS[1], KEYS[2], kept, curve)
  forget(KEYS[3])
  for _, key in ipairs(unlisted) do ask('ZREM', key, id) end
  ask('ZREM', KEYS[5], id)
  ask('ZREM', order, id)
  ask('ZREM', KEYS[6], id .. '\n' .. indexes_before)
  ask('ZREM', KEYS[7], id)
  if redis.call('EXISTS', KEYS[3]) == 1 then redis.call('PEXPIRE', KEYS[3], 60000) end
  if tonumber(given.GONE) > 0 then
    redis.call('HSET', KEYS[1], 'gone', '1', 'indexes', given.INDEXES or indexes_before)
    redis.call('PEXPIRE', KEYS[1], given.GONE)
  end
  return { 'ok' }
end

-- Adds an entry, unless the stream has got as far before.
local function add(key, i, count)
  local stored = redis.pcall('XADD', key, ARGV[i + 1], unpack(ARGV, i + 3, i + 2 + count))
  if type(stored) == 'table' and stored.err and not string.find(tostring(stored.err), ' ID', 1, true) then
    redis.call('XADD', key, ARGV[i + 1], unpack(ARGV, i + 3, i + 2 + count)) -- which raises it
  end
end

local trimmed = not given.SIGNALS
local i = from
while i < at do
  local count = tonumber(ARGV[i + 2])
  if ARGV[i] == 'EVENT' then
    add(KEYS[2], i, count)
  else
    for _, signal in ipairs(not trimmed and ask('XRANGE', KEYS[3], '-', '(' .. ARGV[i + 1]) or {}) do
      redis.call('XDEL', KEYS[3], signal[1])
    end
    trimmed = true
    add(KEYS[3], i, count)
  end
  i = i + 3 + count
end
if not trimmed then forget(KEYS[3]) end

history_length = fields.history_length or history_length
local window = window_of(whole(history_length) and history_length or '1')
if added > 0 and whole(history_length) and tonumber(fields.n) - archived >= window + STEP then
  archived, curve_ms = move_older_events(KEYS[2], window, history_length, archived, curve_ms, added)
end
if not given.PART then redis.call('DEL', KEYS[1]) end
for f = names, #ARGV, 1000 do redis.call('HSET', KEYS[1], unpack(ARGV, f, math.min(f + 999, #ARGV))) end
if archived > 0 then redis.call('HSET', KEYS[1], 'archived', text(archived), 'curve_ms', text(curve_ms)) end
if given.PART then
  local left = math.max(1, redis.call('PTTL', KEYS[1]))
  for _, key in ipairs({ KEYS[2], kept, curve }) do redis.call('PEXPIRE', key, left) end
  return { 'ok' }
end

local stays = {}
for _, key in ipairs(listed) do stays[key] = true end
for _, key in ipairs(unlisted) do
  if not stays[key] then ask('ZREM', key, id) end
end
if indexes_before ~= fields.indexes then ask('ZREM', KEYS[6], id .. '\n' .. indexes_before) end
ask('ZREM', KEYS[7], id)
write('ZADD', KEYS[5], fields.listed_ms, id)
write('ZADD', order, fields.created, id)
for _, key in ipairs(listed) do write('ZADD', key, fields.listed_ms, id) end
write('ZADD', KEYS[6], fields.expires, id .. '\n' .. fields.indexes)
for _, key in ipairs({ KEYS[1], KEYS[2], KEYS[3], kept, curve }) do redis.call('PEXPIREAT', key, fields.expires) end
return { 'ok' }
