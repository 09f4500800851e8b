-- Creates an operation, once: its snapshot, its place in the listings, and the first event of its log.
--
-- KEYS  1 snapshot  2 log  3 signals  4 feed  5 index  6 expiry  7 leases
--       (also changed: KEYS[5]..':<field>:<value>', in the same slot)
-- ARGV  1 operation's id
--       2 what it was created with (JSON; the same bytes mean the same operation)
--       3 indexes it is listed in, `<field>:<value>` a line
--       4 limits: history length, feed length, retention ms, idle limit ms, separated by spaces
--       5 lease in milliseconds, 0 for none
--       6 `traceparent` of who creates it, for its worker to go on from; it may be left out
-- Reply {'ok', position, n, cancel as publish tells it, 1 if it was made now or 0 if it existed, when it was created in ms}; or {code, detail}.

local function text(number) return string.format('%.0f', number) end

-- Runs a command, or returns nil where another program wrote something of another type.
local function ask(...)
  local reply = redis.pcall(...)
  if type(reply) ~= 'table' or not reply.err then return reply end
  if not string.find(tostring(reply.err), 'WRONGTYPE', 1, true) then return redis.call(...) end -- which raises it
end

-- Writes to a key, anew where another program wrote something of another type, or has used up a stream's IDs.
local function write(command, key, ...)
  local reply = redis.pcall(command, key, ...)
  if type(reply) ~= 'table' or not reply.err then return reply end
  if string.find(tostring(reply.err), 'WRONGTYPE', 1, true) or string.find(tostring(reply.err), ' ID', 1, true) then
    redis.call('DEL', key)
  end
  return redis.call(command, key, ...)
end

local id = ARGV[1]
local there = ask('HMGET', KEYS[1], 'gone', 'spec', 'position', 'n', 'cancel', 'created')
if not there or (there[2] and not (there[3] and string.find(there[4] or '', '^%d+$'))) then
  return { 'conflict', 'what Redis holds as operation ' .. id .. ' is something else: another program wrote it.'
    .. ' Delete it, or choose another id' }
end
if there[1] then return { 'gone', 'operation ' .. id .. ' was deleted; its id is not free yet' } end
if there[2] then
  if there[2] ~= ARGV[2] then
    return { 'operation-exists', 'operation ' .. id .. ' was created before with a different body' }
  end
  return { 'ok', there[3], tonumber(there[4]), there[5] or 0, 0, there[6] }
end

local _, feed_length, _, idle_ms = string.match(ARGV[4], '(%d+) (%d+) (%d+) (%d+)')
-- First for those who wait for operations like it: the broker's own entry, which has no `n`.
local told = redis.call('XADD', KEYS[4], 'MAXLEN', '~', feed_length, '*', 'o', id, 't', 'created', 'd', ARGV[3])
local event = { 'n', '1', 't', 'status', 'd', '{"status":"pending"}' }
-- The next ID, by which the two are known to be one creation. Lua counts no further than this many digits exactly.
local told_ms, told_seq = string.match(told, '(%d+)-(%d+)')
local next_id = #told_seq <= 15 and told_ms .. '-' .. text(tonumber(told_seq) + 1) or '*'
local position = redis.call('XADD', KEYS[4], 'MAXLEN', '~', feed_length, next_id, 'o', id, unpack(event))
write('XADD', KEYS[2], position, unpack(event))
local trimmed = redis.pcall('XTRIM', KEYS[3], 'MAXLEN', '0') -- what was sent to an earlier one of this id
if type(trimmed) == 'table' and trimmed.err then redis.call('DEL', KEYS[3]) end
if redis.call('EXISTS', KEYS[3]) == 1 then redis.call('PEXPIRE', KEYS[3], idle_ms) end
local ms = string.match(position, '%d+')
local expires = text(tonumber(ms) + tonumber(idle_ms))
redis.call('HSET', KEYS[1], 'spec', ARGV[2], 'indexes', ARGV[3], 'limits', ARGV[4], 'lease_ms', ARGV[5],
  'status', 'pending', 'attempt', '1', 'n', '1', 'position', position, 'first', position, 'created', ms, 'touched', ms, 'expires', expires)
if ARGV[6] then redis.call('HSET', KEYS[1], 'traceparent', ARGV[6]) end
write('ZADD', KEYS[5], ms, id)
write('ZADD', KEYS[5] .. ':status:pending', ms, id)
for suffix in string.gmatch(ARGV[3], '[^\n]+') do write('ZADD', KEYS[5] .. ':' .. suffix, ms, id) end
write('ZADD', KEYS[6], expires, id .. '\n' .. ARGV[3])
redis.call('PEXPIRE', KEYS[1], idle_ms)
redis.call('PEXPIRE', KEYS[2], idle_ms)
return { 'ok', position, 1, 0, 1, ms }
