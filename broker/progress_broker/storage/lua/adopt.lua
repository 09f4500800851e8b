-- Makes an operation visible whose events were staged: all of it at once, in place of none or of an earlier one.
--
-- KEYS  1 snapshot  2 log  3 signals  4 feed  5 index  6 expiry  7 leases  8 the import  9 its log  10 its kept  11 its curve
--       Derived: KEYS[2]..':kept' and KEYS[2]..':curve'; KEYS[4]..':length'; KEYS[5]..':order:created',
--       KEYS[5]..':status:<status>' and KEYS[5]..':<field>:<value>' of the operation, and of one that it replaces; and
--       KEYS[6]..':policy', which is only read. They are looked at before the first write.
-- ARGV  id name LOG n KEPT n CURVE n FEED n [REPLACE] [AS_IS IF_FEED position] FIELDS name value…
--       name               of the import, as in `stage`
--       LOG, KEPT, CURVE   how many events were staged in each stream
--       FEED               about how many events its lane's feed keeps, at the most asked for
--       REPLACE            removes another operation of this id, or its tombstone
--       AS_IS              it is a copy: FIELDS are all of the snapshot, also when it expires, and nobody is told
--       IF_FEED            rejected as `conflict` unless this is the last entry of the feed; 0-0: it has none
--       FIELDS             the fields of the snapshot, but for those that this server sets itself
-- Without AS_IS the operation is kept from now on as if its last event were of now. It has no lease until its worker publishes.
-- Reply {'ok', 1 if one was replaced, else 0}; or {code, detail}, and then nothing was changed.

local USAGE = 'id name LOG n KEPT n CURVE n FEED n [REPLACE] [AS_IS IF_FEED position] FIELDS name value...'
local RETENTION_MS, IDLE_MS = '86400000', '604800000' -- as in `create`
local AHEAD_MS = 86400000 -- how far a position may be ahead of the clock
local TAKES = {
  LOG = 'number', KEPT = 'number', CURVE = 'number', FEED = 'number', REPLACE = 'flag', AS_IS = 'flag', IF_FEED = 'text',
}

local id, name, given, fields = ARGV[1], ARGV[2], {}, {}
local at, wrong = read_options(3, TAKES, given)
for _, option in ipairs({ 'LOG', 'KEPT', 'CURVE', 'FEED' }) do
  if not given[option] then wrong = wrong or option .. ' is missing' end
end
if not given.AS_IS ~= not given.IF_FEED then wrong = wrong or 'AS_IS and IF_FEED go together' end
if wrong or ARGV[at] ~= 'FIELDS' then return reject_arguments(wrong or 'FIELDS is missing', at, USAGE) end
local from = at + 1
for i = from, #ARGV, 2 do fields[ARGV[i]] = ARGV[i + 1] end
local ms = string.match(fields.position or '', '^(%d+)%-%d+$')
if not whole(ms) or not whole(fields.created) or not fields.status or not fields.indexes or (#ARGV - from) % 2 == 0 then
  return reject_arguments('the fields need position, created, status and indexes, each with a value', from, USAGE)
end
if given.AS_IS and not (whole(fields.expires) and whole(fields.listed_ms)) then
  return reject_arguments('the fields of a copy need expires and listed_ms', from, USAGE)
end

if ask('GET', KEYS[8]) ~= name then
  return { 'conflict', 'the import of operation ' .. id .. ' was interrupted for so long that its parts have expired' }
end
for key, option in ipairs({ 'LOG', 'KEPT', 'CURVE' }) do
  if text(ask('XLEN', KEYS[8 + key]) or 0) ~= given[option] then
    return { 'conflict', 'operation ' .. id .. ' was not staged whole: import it again' }
  end
end
local elsewhere = given.AS_IS and reject_feed(KEYS[4], given.IF_FEED)
if elsewhere then return elsewhere end
local clock = now_ms()
if tonumber(ms) > clock + AHEAD_MS then
  return { 'invalid', 'the last event of operation ' .. id .. ' is more than a day ahead of the clock of Redis' }
end
local before = ask('HMGET', KEYS[1], 'gone', 'schema', 'status', 'indexes')
local gone, schema, status_before, indexes_before = unpack(before or { false, '', '', '' })
if gone and not given.REPLACE then
  return { 'gone', 'operation ' .. id .. ' was deleted; its id is not free yet' }
end
if status_before and whole(schema) and schema ~= SCHEMA then return reject_schema(id, schema) end
if status_before and not given.REPLACE then
  return { 'operation-exists', 'there is another operation ' .. id }
end

local replaced = gone or status_before
local unlisted = replaced and index_keys(KEYS[5], indexes_before or '', true) or {}
local listed = index_keys(KEYS[5], fields.indexes .. '\nstatus:' .. fields.status)
local kept, curve = KEYS[2] .. ':kept', KEYS[2] .. ':curve'
look(unlisted)
look(listed)
look({ KEYS[4] .. ':length', creation_order(KEYS[5]), kept, curve })
local length = feed_length(KEYS[4], given.FEED)
local policy = ask('HMGET', KEYS[6] .. ':policy', 'retention_ms', 'idle_ms') or {}
local retention_ms = kept_ms(policy[1], fields.retention_asked_ms, RETENTION_MS)
local idle_ms = kept_ms(policy[2], fields.idle_asked_ms, IDLE_MS)
local keep = TERMINAL[fields.status] and retention_ms or idle_ms
local expires, listed_ms = text(clock + tonumber(keep)), ms
if given.AS_IS then
  expires, listed_ms = fields.expires, fields.listed_ms
  keep = text(math.max(1, tonumber(expires) - clock))
end

-- Nothing is rejected from here on.
redis.call('DEL', KEYS[1], KEYS[2], kept, curve)
if not given.AS_IS then forget(KEYS[3]) end -- those of a copy follow (`mirror`), and none with an ID that was there comes again
for _, key in ipairs(unlisted) do ask('ZREM', key, id) end
if replaced then ask('ZREM', KEYS[6], id .. '\n' .. (indexes_before or '')) end
ask('ZREM', KEYS[7], id)
for key, stream in ipairs({ KEYS[2], kept, curve }) do
  if redis.call('EXISTS', KEYS[8 + key]) == 1 then
    redis.call('RENAME', KEYS[8 + key], stream)
    redis.call('PEXPIRE', stream, keep)
  end
end
redis.call('DEL', KEYS[8])
for i = from, #ARGV, 1000 do redis.call('HSET', KEYS[1], unpack(ARGV, i, math.min(i + 999, #ARGV))) end
if not given.AS_IS then
  redis.call('HSET', KEYS[1], 'schema', SCHEMA, 'retention_ms', retention_ms, 'idle_ms', idle_ms, 'listed_ms', ms,
    'imported_ms', text(clock), 'expires', expires)
end
redis.call('PEXPIRE', KEYS[1], keep)
write('ZADD', KEYS[5], listed_ms, id)
write('ZADD', creation_order(KEYS[5]), fields.created, id)
for _, key in ipairs(listed) do write('ZADD', key, listed_ms, id) end
write('ZADD', KEYS[6], expires, id .. '\n' .. fields.indexes)
if not given.AS_IS then
  -- For replicas whose clients watch this id. It is internal, so it has no `n`.
  write('XADD', KEYS[4], 'MAXLEN', '~', length, '*', 'o', id, 't', 'imported')
  ask_for_length(KEYS[4], given.FEED, length)
end
if redis.call('EXISTS', KEYS[3]) == 1 then redis.call('PEXPIRE', KEYS[3], keep) end
return { 'ok', replaced and 1 or 0 }
