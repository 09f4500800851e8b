-- Creates an operation, once: its snapshot, its place in the listings, and the first event of its log.
--
-- KEYS  1 snapshot  2 log  3 signals  4 feed  5 index  6 expiry  7 leases
--       Derived: KEYS[4]..':length', KEYS[5]..':order:created', KEYS[5]..':status:pending', KEYS[5]..':'..each INDEX, and
--       KEYS[6]..':policy', which is only read. They are looked at before the first write.
-- ARGV  id spec [INDEX field:value]… HISTORY n FEED n [RETENTION ms] [IDLE ms] [LEASE ms] [TRACEPARENT tp]
--          [METADATA json]
--       spec            what it is created with (JSON); the same bytes mean the same operation
--       INDEX           an index to list it in
--       HISTORY, FEED   about how many events its log and its lane's feed keep; a feed the most asked for
--       RETENTION       how long it is kept after its end, at most: the server's retention may be shorter
--       IDLE            how long it is kept without events, at most
--       LEASE           how long its worker may be silent; without it, for ever
--       TRACEPARENT     that of the creator, for its worker to continue
--       METADATA        a JSON object that is shown with it, and that `metadata` events change; the same bytes mean the
--                       same operation. What is to be found by needs an INDEX, too
-- Reply {'ok', position, n, cancel as in publish, 1 if it was created now or 0 if it existed, when it was created
--       in ms, how long it is kept without events in ms}; or {code, detail}.

local USAGE = 'id spec [INDEX field:value]... HISTORY n FEED n [RETENTION ms] [IDLE ms] [LEASE ms] [TRACEPARENT tp]'
  .. ' [METADATA json]'
local RETENTION_MS, IDLE_MS = '86400000', '604800000' -- a day and a week, until a server says otherwise
local TAKES = {
  INDEX = 'list', HISTORY = 'number', FEED = 'number', RETENTION = 'number', IDLE = 'number', LEASE = 'number',
  TRACEPARENT = 'text', METADATA = 'text',
}

local id, spec, given = ARGV[1], ARGV[2], {}
local at, wrong = read_options(3, TAKES, given)
if not wrong and not ARGV[at] then
  for _, name in ipairs({ 'HISTORY', 'FEED' }) do
    if not given[name] then wrong = name .. ' is missing' end
  end
  for _, index in ipairs(given.INDEX or {}) do
    if not string.find(index, '^%w+:[^\n]+$') then wrong = 'INDEX needs field:value, on one line' end
  end
end
if wrong or ARGV[at] then return reject_arguments(wrong, at, USAGE) end

local there = ask('HMGET', KEYS[1], 'gone', 'spec', 'schema', 'position', 'n', 'cancel', 'created', 'idle_ms',
  'created_metadata')
local gone, known, schema, position, n, cancel, created, idle_ms, created_metadata = unpack(there or { false, '' })
if gone then return { 'gone', 'operation ' .. id .. ' was deleted; its id is not free yet' } end
if known then
  if whole(schema) and schema ~= SCHEMA then return reject_schema(id, schema) end
  if schema ~= SCHEMA or not (position and whole(n)) then
    return { 'conflict', 'another program overwrote operation ' .. id .. ' in Redis. Delete it, or choose another id' }
  end
  if known ~= spec or (created_metadata or '') ~= (given.METADATA or '') then
    return { 'operation-exists', 'operation ' .. id .. ' was created before with a different body' }
  end
  return { 'ok', position, tonumber(n), cancel, 0, created, idle_ms }
end

local indexes = table.concat(given.INDEX or {}, '\n')
local listed = index_keys(KEYS[5], indexes .. '\nstatus:pending')
look(listed)
look({ KEYS[4] .. ':length', creation_order(KEYS[5]) })
local length = feed_length(KEYS[4], given.FEED)
local policy = ask('HMGET', KEYS[6] .. ':policy', 'retention_ms', 'idle_ms') or {}
local retention_ms = kept_ms(policy[1], given.RETENTION, RETENTION_MS)
idle_ms = kept_ms(policy[2], given.IDLE, IDLE_MS)

-- First the entry for clients that wait for such operations. It is internal, so it has no `n`.
local created_at = redis.call('XADD', KEYS[4], 'MAXLEN', '~', length, '*', 'o', id, 't', 'created', 'd', indexes)
local event = { 'n', '1', 't', 'status', 'd', '{"status":"pending"}' }
-- The next ID, which marks the two as one creation. Lua counts no further than this many digits exactly.
local created_ms, created_seq = string.match(created_at, '(%d+)-(%d+)')
local next_id = #created_seq <= 15 and created_ms .. '-' .. text(tonumber(created_seq) + 1) or '*'
position = redis.call('XADD', KEYS[4], 'MAXLEN', '~', length, next_id, 'o', id, unpack(event))
write('XADD', KEYS[2], position, unpack(event))
ask_for_length(KEYS[4], given.FEED, length)
forget(KEYS[3]) -- what was sent to an earlier one of this id
if redis.call('EXISTS', KEYS[3]) == 1 then redis.call('PEXPIRE', KEYS[3], idle_ms) end
local ms = string.match(position, '%d+')
local expires = text(tonumber(ms) + tonumber(idle_ms))
redis.call('HSET', KEYS[1], 'schema', SCHEMA, 'spec', spec, 'indexes', indexes, 'history_length', given.HISTORY,
  'feed_length', given.FEED, 'retention_ms', retention_ms, 'idle_ms', idle_ms, 'status', 'pending',
  'attempt', '1', 'n', '1', 'position', position, 'first_position', position, 'created', ms, 'listed_ms', ms,
  'expires', expires)
if given.RETENTION then redis.call('HSET', KEYS[1], 'retention_asked_ms', given.RETENTION) end
if given.IDLE then redis.call('HSET', KEYS[1], 'idle_asked_ms', given.IDLE) end
if given.LEASE then redis.call('HSET', KEYS[1], 'lease_ms', given.LEASE) end
if given.METADATA then redis.call('HSET', KEYS[1], 'created_metadata', given.METADATA) end
if given.TRACEPARENT then redis.call('HSET', KEYS[1], 'traceparent', given.TRACEPARENT) end
write('ZADD', KEYS[5], ms, id)
write('ZADD', creation_order(KEYS[5]), ms, id)
for _, key in ipairs(listed) do write('ZADD', key, ms, id) end
write('ZADD', KEYS[6], expires, id .. '\n' .. indexes)
redis.call('PEXPIRE', KEYS[1], idle_ms)
redis.call('PEXPIRE', KEYS[2], idle_ms)
return { 'ok', position, 1, false, 1, ms, idle_ms }
