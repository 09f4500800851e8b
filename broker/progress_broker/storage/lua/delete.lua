-- Deletes an operation, notifies the replicas that watch it, and leaves a tombstone.
--
-- KEYS  1 snapshot  2 log  3 signals  4 feed  5 index  6 expiry  7 leases
--       Derived: KEYS[4]..':length'; KEYS[5]..':order:created', KEYS[5]..':status:<status>' of each status, and
--       KEYS[5]..':<field>:<value>' of what it was created with; KEYS[2]..':kept' and KEYS[2]..':curve'. They are looked at
--       before the first write.
-- ARGV  id [FORCE] TOMBSTONE ms
--       FORCE       deletes one that has not ended, too
--       TOMBSTONE   how long the id is not free
-- Reply {'ok'}; or {code, detail}.

local id, given = ARGV[1], {}
local at, wrong = read_options(2, { FORCE = 'flag', TOMBSTONE = 'number' }, given)
if not (wrong or ARGV[at] or given.TOMBSTONE) then wrong = 'TOMBSTONE is missing' end
if wrong or ARGV[at] then return reject_arguments(wrong, at, 'id [FORCE] TOMBSTONE ms') end

-- What another program wrote in its place can be deleted, too.
local there = ask('HMGET', KEYS[1], 'gone', 'status', 'indexes', 'schema', 'feed_length') or { false, 'failed', '' }
local gone, status, indexes, schema, asked_length = unpack(there)
if gone then return { 'gone', 'operation ' .. id .. ' was deleted before' } end
if not status then return { 'not-found', 'there is no operation ' .. id } end
if whole(schema) and schema ~= SCHEMA then return reject_schema(id, schema) end
if not given.FORCE and not TERMINAL[status] then
  return { 'operation-running', 'operation ' .. id .. ' is ' .. status .. ': cancel it, or delete it with force' }
end
indexes = indexes or ''
local listed = index_keys(KEYS[5], indexes, true)
listed[#listed + 1] = creation_order(KEYS[5])
look(listed)
local kept, curve = KEYS[2] .. ':kept', KEYS[2] .. ':curve'
look({ kept, curve })
local length = feed_length(KEYS[4], whole(asked_length) and asked_length or '10000')

-- What frees memory comes first: a Redis that is full allows that, and then the rest of the same script.
redis.call('DEL', KEYS[1], KEYS[2], kept, curve)
forget(KEYS[3])
-- An index that another program made something else lists nothing, and keeps no operation from being deleted.
ask('ZREM', KEYS[5], id)
for _, key in ipairs(listed) do ask('ZREM', key, id) end
ask('ZREM', KEYS[6], id .. '\n' .. indexes)
ask('ZREM', KEYS[7], id)

write('XADD', KEYS[4], 'MAXLEN', '~', length, '*', 'o', id, 't', 'gone')
write('XADD', KEYS[3], '*', 't', 'changed') -- so that its workers look
redis.call('PEXPIRE', KEYS[3], math.min(60000, tonumber(given.TOMBSTONE)))
redis.call('HSET', KEYS[1], 'gone', '1', 'indexes', indexes) -- so that callers which may read it get a 410
redis.call('PEXPIRE', KEYS[1], given.TOMBSTONE)
return { 'ok' }
