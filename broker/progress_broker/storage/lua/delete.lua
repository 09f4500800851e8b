-- Forgets an operation, tells the replicas that watch it, and leaves a tombstone.
--
-- KEYS  1 snapshot  2 log  3 signals  4 feed  5 index  6 expiry  7 leases
--       (also changed: KEYS[5]..':<field>:<value>', in the same slot)
-- ARGV  1 operation's id
--       2 '1' to delete one that has not ended
--       3 how long the tombstone stays, in milliseconds
-- Reply {'ok'}; or {code, detail}.

-- All of them: an earlier operation of this id may have expired without having been swept.
local STATUSES = { 'pending', 'running', 'stalled', 'cancelling', 'succeeded', 'failed', 'cancelled' }

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
-- What another program wrote in its place can go, too.
local there = ask('HMGET', KEYS[1], 'gone', 'status', 'indexes', 'limits') or { false, 'failed', '', '' }
local status, indexes = there[2], there[3] or ''
if there[1] then return { 'gone', 'operation ' .. id .. ' was deleted before' } end
if not status then return { 'not-found', 'there is no operation ' .. id } end
if ARGV[2] ~= '1' and status ~= 'succeeded' and status ~= 'failed' and status ~= 'cancelled' then
  return { 'operation-running', 'operation ' .. id .. ' is ' .. status .. ': cancel it, or delete it with force' }
end

-- What frees memory comes first: a Redis that is full allows that, and then the rest of the same script.
redis.call('DEL', KEYS[1], KEYS[2])
local trimmed = redis.pcall('XTRIM', KEYS[3], 'MAXLEN', '0') -- its last ID stays: who has heard so far hears on
if type(trimmed) == 'table' and trimmed.err then redis.call('DEL', KEYS[3]) end
-- An index that another program made something else lists nothing, and keeps no operation from being deleted.
ask('ZREM', KEYS[5], id)
for _, each in ipairs(STATUSES) do ask('ZREM', KEYS[5] .. ':status:' .. each, id) end
for suffix in string.gmatch(indexes, '[^\n]+') do ask('ZREM', KEYS[5] .. ':' .. suffix, id) end
ask('ZREM', KEYS[6], id .. '\n' .. indexes)
ask('ZREM', KEYS[7], id)

local feed_length = string.match(there[4] or '', '^%d+ (%d+) ')
if not feed_length or #feed_length > 15 then feed_length = '10000' end
write('XADD', KEYS[4], 'MAXLEN', '~', feed_length, '*', 'o', id, 't', 'gone')
write('XADD', KEYS[3], '*', 't', 'changed') -- so that its workers look
redis.call('PEXPIRE', KEYS[3], math.min(60000, tonumber(ARGV[3])))
redis.call('HSET', KEYS[1], 'gone', '1', 'indexes', indexes) -- so that who might read it is told that it is gone
redis.call('PEXPIRE', KEYS[1], ARGV[3])
return { 'ok' }
