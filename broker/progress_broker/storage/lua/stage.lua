-- Stores a part of an operation's events where nobody sees them, until `adopt` makes the operation visible.
--
-- KEYS  1 the import  2 its log  3 its kept  4 its curve
-- ARGV  name ttl [BEGIN] [EVENT key position count field value…]…
--       name    of the import: one import at a time has an id
--       ttl     how long the part lasts without another one, in milliseconds
--       BEGIN   it is the first part
--       EVENT   key is 2, 3 or 4; position is that of the event; count is that of the fields and values that follow
-- Reply {'ok'}; or {code, detail}.

local USAGE = 'name ttl [BEGIN] [EVENT key position count field value...]...'
local name, ttl = ARGV[1], ARGV[2]
if not whole(ttl) then return reject_arguments('ttl is missing', 2, USAGE) end
local at, known = 3, ask('GET', KEYS[1])
if ARGV[at] == 'BEGIN' then
  if known and known ~= name then return { 'conflict', 'another import of this operation is going on' } end
  at = 4
elseif known ~= name then
  return { 'conflict', 'the import of this operation was interrupted for so long that its first part has expired' }
end

local from = at
while ARGV[at] == 'EVENT' do
  local key, fields = tonumber(ARGV[at + 1] or ''), tonumber(ARGV[at + 3] or '')
  if not (key == 2 or key == 3 or key == 4) or not fields or not ARGV[at + 3 + fields] then
    return reject_arguments('EVENT needs a key, a position and its fields', at, USAGE)
  end
  at = at + 4 + fields
end
if ARGV[at] then return reject_arguments(nil, at, USAGE) end

if from == 4 then
  redis.call('DEL', KEYS[2], KEYS[3], KEYS[4])
  redis.call('SET', KEYS[1], name, 'PX', ttl)
else
  redis.call('PEXPIRE', KEYS[1], ttl)
end
at = from
while ARGV[at] do
  local fields = tonumber(ARGV[at + 3])
  local stored = redis.pcall('XADD', KEYS[tonumber(ARGV[at + 1])], ARGV[at + 2], unpack(ARGV, at + 4, at + 3 + fields))
  if type(stored) == 'table' and stored.err then
    local why = tostring(stored.err)
    if not string.find(why, ' ID', 1, true) then return redis.error_reply(why) end
    redis.call('DEL', unpack(KEYS))
    return { 'invalid', 'position ' .. string.sub(ARGV[at + 2], 1, 60) .. ' is not valid, or not after the one before' }
  end
  at = at + 4 + fields
end
for key = 2, 4 do redis.call('PEXPIRE', KEYS[key], ttl) end
return { 'ok' }
