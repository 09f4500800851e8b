-- Creates an operation, once: its snapshot, its place in the listings, and the first event of its log.
--
-- KEYS  1 snapshot  2 log  3 signals  4 feed  5 index  6 expiry  7 leases
--       Derived: KEYS[4]..':length', KEYS[5]..':status:pending', KEYS[5]..':'..each INDEX, and KEYS[6]..':policy',
--       which is only read. They are looked at before the first write.
-- ARGV  id spec [INDEX field:value]… HISTORY n FEED n [RETENTION ms] [IDLE ms] [LEASE ms] [TRACEPARENT tp]
--       spec            what it is created with (JSON); the same bytes mean the same operation
--       INDEX           an index to list it in
--       HISTORY, FEED   about how many events its log and its lane's feed keep; a feed the most asked for
--       RETENTION       how long it is kept after its end, at most: the server's retention may be shorter
--       IDLE            how long it is kept without events, at most
--       LEASE           how long its worker may be silent; without it, for ever
--       TRACEPARENT     that of the creator, for its worker to continue
-- Reply {'ok', position, n, cancel as in publish, 1 if it was created now or 0 if it existed, when it was created
--       in ms, how long it is kept without events in ms}; or {code, detail}.

local SCHEMA = '2'
-- What the scripts share. `storage/scripts.py` puts it, after SCHEMA, below the header of each of them.

local TERMINAL = { succeeded = true, failed = true, cancelled = true }

local function text(number) return string.format('%.0f', number) end -- tostring writes 1e+15 for a large one

local function whole(value) return value and #value <= 15 and string.find(value, '^%d+$') end -- and exact in Lua

-- How long an operation is kept, in milliseconds, as text: as long as the lane's policy says, or less if its creator asked
-- for less. Without a policy, as long as it was asked for, or `default`.
local function kept_ms(policy, asked, default)
  if not whole(policy) then return whole(asked) and asked or default end
  return whole(asked) and text(math.min(tonumber(policy), tonumber(asked))) or policy
end

local function now_ms()
  local time = redis.call('TIME')
  return tonumber(time[1]) * 1000 + math.floor(tonumber(time[2]) / 1000)
end

-- Reads named options from ARGV[at] on into `found`. `takes` says what each name takes: 'flag', 'number', 'text', or
-- 'list', which may be given again. Returns the place of the first other argument; or nil, and what is wrong.
local function read_options(at, takes, found)
  local name = ARGV[at]
  while takes[name] do
    local kind, value = takes[name], ARGV[at + 1]
    if found[name] and kind ~= 'list' then return nil, name .. ' is given twice' end
    if kind == 'flag' then
      found[name], at = true, at + 1
    else
      if not value then return nil, name .. ' needs a value' end
      if kind == 'number' and not (#value <= 16 and string.find(value, '^%d+$')) then
        return nil, name .. " needs a whole number, and not '" .. string.sub(value, 1, 40) .. "'"
      end
      if kind == 'list' then
        found[name] = found[name] or {}
        table.insert(found[name], value)
      else
        found[name] = value
      end
      at = at + 2
    end
    name = ARGV[at]
  end
  return at
end

-- Rejects arguments: `wrong` says why; without it, the argument at `at` is not understood.
local function reject_arguments(wrong, at, usage)
  wrong = wrong or ("argument " .. at .. " is '" .. string.sub(ARGV[at], 1, 40) .. "', which is no option here")
  return { 'invalid', wrong .. '. Expected: ' .. usage .. '. This script is of schema ' .. SCHEMA
    .. '; for a caller that was written for another schema see docs/protocol.md' }
end

-- Returns why an operation can't be used, by the field `schema` of its hash; nil if it can.
local function reject_schema(id, schema)
  if schema == SCHEMA then return nil end
  if not whole(schema) then
    return { 'not-found', 'another program overwrote operation ' .. id .. ' in Redis' }
  end
  return { 'conflict', 'operation ' .. id .. ' is stored in schema ' .. schema .. ', but this program supports only'
    .. ' schema ' .. SCHEMA .. ': upgrade the older of the programs that use this Redis' }
end

-- Runs a command, or returns nil where another program wrote something of another type.
local function ask(...)
  local reply = redis.pcall(...)
  if type(reply) ~= 'table' or not reply.err then return reply end
  if not string.find(tostring(reply.err), 'WRONGTYPE', 1, true) then return redis.call(...) end -- which raises it
end

local frees -- a hash: set by a script that a Redis which is full has to store all the same
-- Writes to a key. It deletes the key first if another program wrote another type to it, or used up a stream's IDs.
local function write(command, key, ...)
  local reply = redis.pcall(command, key, ...)
  if type(reply) ~= 'table' or not reply.err then return reply end
  local why = tostring(reply.err)
  if string.find(why, 'WRONGTYPE', 1, true) or string.find(why, ' ID', 1, true) then
    redis.call('DEL', key)
  elseif frees and string.find(why, 'OOM', 1, true) then
    redis.call('HDEL', frees, '') -- a Redis that is full lets a script go on whose first write frees memory
  end
  return redis.call(command, key, ...)
end

-- Returns the length of a feed. It is the lane's: the longest that was asked for within the last hour, so that neither
-- an old operation nor a process with other settings shortens it for all.
local function feed_length(feed, asked)
  local longest = ask('HGET', feed .. ':length', 'entries')
  return whole(longest) and tonumber(longest) > tonumber(asked) and longest or asked
end

-- Asks for a length of a feed. `length` is what `feed_length` returned before the first write.
local function ask_for_length(feed, asked, length)
  if length ~= asked then return end
  write('HSET', feed .. ':length', 'entries', asked)
  redis.call('PEXPIRE', feed .. ':length', 3600000)
end

-- Forgets signals, but not their last ID: a worker that has read so far must not take new ones for old.
local function forget(signals)
  local trimmed = redis.pcall('XTRIM', signals, 'MAXLEN', '0')
  if type(trimmed) == 'table' and trimmed.err then redis.call('DEL', signals) end -- another program wrote it
end

-- Looks at keys that are not in KEYS, before the first write: while a Cluster moves their slot, a script that touches a
-- key which is not here fails, and must fail while nothing is written.
local function look(keys)
  for at = 1, #keys, 1000 do redis.call('EXISTS', unpack(keys, at, math.min(at + 999, #keys))) end
end

-- Returns the keys of the indexes that an operation is listed in, `<field>:<value>` a line. With `statuses`, those of
-- all statuses, too: an earlier operation of its id may have expired without having been removed.
local function index_keys(index, lines, statuses)
  if statuses then
    lines = lines .. '\nstatus:pending\nstatus:running\nstatus:stalled\nstatus:cancelling'
      .. '\nstatus:succeeded\nstatus:failed\nstatus:cancelled'
  end
  local keys = {}
  for line in string.gmatch(lines, '[^\n]+') do keys[#keys + 1] = index .. ':' .. line end
  return keys
end

local USAGE = 'id spec [INDEX field:value]... HISTORY n FEED n [RETENTION ms] [IDLE ms] [LEASE ms] [TRACEPARENT tp]'
local RETENTION_MS, IDLE_MS = '86400000', '604800000' -- a day and a week, until a server says otherwise
local TAKES = {
  INDEX = 'list', HISTORY = 'number', FEED = 'number', RETENTION = 'number', IDLE = 'number', LEASE = 'number',
  TRACEPARENT = 'text',
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

local there = ask('HMGET', KEYS[1], 'gone', 'spec', 'schema', 'position', 'n', 'cancel', 'created', 'idle_ms')
local gone, known, schema, position, n, cancel, created, idle_ms = unpack(there or { false, '' })
if gone then return { 'gone', 'operation ' .. id .. ' was deleted; its id is not free yet' } end
if known then
  if whole(schema) and schema ~= SCHEMA then return reject_schema(id, schema) end
  if schema ~= SCHEMA or not (position and whole(n)) then
    return { 'conflict', 'another program overwrote operation ' .. id .. ' in Redis. Delete it, or choose another id' }
  end
  if known ~= spec then
    return { 'operation-exists', 'operation ' .. id .. ' was created before with a different body' }
  end
  return { 'ok', position, tonumber(n), cancel, 0, created, idle_ms }
end

local indexes = table.concat(given.INDEX or {}, '\n')
local listed = index_keys(KEYS[5], indexes .. '\nstatus:pending')
look(listed)
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
if given.TRACEPARENT then redis.call('HSET', KEYS[1], 'traceparent', given.TRACEPARENT) end
write('ZADD', KEYS[5], ms, id)
for _, key in ipairs(listed) do write('ZADD', key, ms, id) end
write('ZADD', KEYS[6], expires, id .. '\n' .. indexes)
redis.call('PEXPIRE', KEYS[1], idle_ms)
redis.call('PEXPIRE', KEYS[2], idle_ms)
return { 'ok', position, 1, false, 1, ms, idle_ms }
