-- Says how long one operation is kept, whatever the lane's retention and its creator said; or that these count again.
--
-- KEYS  1 snapshot  2 log  3 expiry
--       Derived: KEYS[2]..':kept' and KEYS[2]..':curve', and KEYS[3]..':policy', which is only read. They are looked at
--       before the first write.
-- ARGV  id (KEEP ms [IDLE ms] | DEFAULT)
--       KEEP     how long after its end
--       IDLE     how long without events, until it ends
--       DEFAULT  as the lane's retention, or its creator, said
-- Reply {'ok', when it expires in ms}; or {code, detail}.

local RETENTION_MS, IDLE_MS = '86400000', '604800000' -- as in create.lua

local id, given = ARGV[1], {}
local at, wrong = read_options(2, { KEEP = 'number', IDLE = 'number', DEFAULT = 'flag' }, given)
if not (wrong or ARGV[at]) and not given.KEEP == not given.DEFAULT then wrong = 'one of KEEP and DEFAULT is needed' end
if wrong or ARGV[at] then return reject_arguments(wrong, at, 'id (KEEP ms [IDLE ms] | DEFAULT)') end

local there = ask('HMGET', KEYS[1], 'gone', 'schema', 'status', 'position', 'listed_ms', 'finished', 'indexes',
  'retention_asked_ms', 'idle_asked_ms', 'imported_ms')
local gone, schema, status, position, listed_ms, finished, indexes, retention_asked, idle_asked, imported_ms =
  unpack(there or {})
if gone then return { 'gone', 'operation ' .. id .. ' was deleted' } end
if not status then return { 'not-found', 'there is no operation ' .. id } end
local rejected = reject_schema(id, schema)
if rejected then return rejected end
if not (whole(listed_ms) and string.find(position or '', '^%d+%-')) then return reject_schema(id, nil) end
local kept, curve = KEYS[2] .. ':kept', KEYS[2] .. ':curve'
look({ kept, curve, KEYS[3] .. ':policy' })

local policy = ask('HMGET', KEYS[3] .. ':policy', 'retention_ms', 'idle_ms') or {}
local retention_ms = given.KEEP or kept_ms(policy[1], retention_asked, RETENTION_MS)
local idle_ms = given.IDLE or kept_ms(policy[2], idle_asked, IDLE_MS)
local since = whole(finished) and finished or listed_ms
if whole(imported_ms) and tonumber(imported_ms) > tonumber(since) then since = imported_ms end
local expires = text(math.max(tonumber(since) + tonumber(TERMINAL[status] and retention_ms or idle_ms), now_ms() + 1))

frees = KEYS[1]
if given.DEFAULT then redis.call('HDEL', KEYS[1], 'keep_ms', 'keep_idle_ms') end
if given.KEEP then write('HSET', KEYS[1], 'keep_ms', given.KEEP) end
if given.IDLE then
  write('HSET', KEYS[1], 'keep_idle_ms', given.IDLE)
elseif given.KEEP then
  redis.call('HDEL', KEYS[1], 'keep_idle_ms')
end
write('HSET', KEYS[1], 'retention_ms', retention_ms, 'idle_ms', idle_ms, 'expires', expires)
write('ZADD', KEYS[3], expires, id .. '\n' .. (indexes or ''))
for _, key in ipairs({ KEYS[1], KEYS[2], kept, curve }) do redis.call('PEXPIREAT', key, expires) end
return { 'ok', expires }
