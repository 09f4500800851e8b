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

local id = ARGV[1]
local there = redis.call('HMGET', KEYS[1], 'gone', 'status', 'indexes', 'limits')
local status, indexes = there[2], there[3]
if there[1] then return { 'gone', 'operation ' .. id .. ' was deleted before' } end
if not status then return { 'not-found', 'there is no operation ' .. id } end
if ARGV[2] ~= '1' and status ~= 'succeeded' and status ~= 'failed' and status ~= 'cancelled' then
  return { 'operation-running', 'operation ' .. id .. ' is ' .. status .. ': cancel it, or delete it with force' }
end
local _, feed_length = string.match(there[4], '(%d+) (%d+)')
redis.call('XADD', KEYS[4], 'MAXLEN', '~', feed_length, '*', 'o', id, 't', 'gone')
redis.call('DEL', KEYS[1], KEYS[2])
local trimmed = redis.pcall('XTRIM', KEYS[3], 'MAXLEN', '0') -- its last ID stays: who has heard so far hears on
if type(trimmed) == 'table' and trimmed.err then redis.call('DEL', KEYS[3]) end
redis.call('ZREM', KEYS[5], id)
for _, each in ipairs(STATUSES) do redis.call('ZREM', KEYS[5] .. ':status:' .. each, id) end
for suffix in string.gmatch(indexes, '[^\n]+') do redis.call('ZREM', KEYS[5] .. ':' .. suffix, id) end
redis.call('ZREM', KEYS[6], id .. '\n' .. indexes)
redis.call('ZREM', KEYS[7], id)
redis.call('XADD', KEYS[3], '*', 't', 'changed') -- so that its workers look
redis.call('PEXPIRE', KEYS[3], math.min(60000, tonumber(ARGV[3])))
redis.call('HSET', KEYS[1], 'gone', '1', 'indexes', indexes) -- so that who might read it is told that it is gone
redis.call('PEXPIRE', KEYS[1], ARGV[3])
return { 'ok' }
