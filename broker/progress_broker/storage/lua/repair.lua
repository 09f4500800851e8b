-- Repairs a part of a lane's order of creation. Scripts of earlier releases create and delete operations without it.
--
-- KEYS  1 index
--       Derived: KEYS[1]..':order:created', which is looked at before the first write; and ARGV[1]..id, which is only read.
-- ARGV  1 what an operation's own keys begin with
--       2 ADD: adds operations of the index; or REMOVE: removes those that the index does not have
--       3 where to go on, '0' at first
-- Reply {where to go on, '0' at the end; how many were added or removed}.

local PART = 250 -- operations that one call looks at, about
local MOST = 1000 -- members that one command changes

local order = creation_order(KEYS[1])
local adds = ARGV[2] == 'ADD'
local part = ask('ZSCAN', adds and KEYS[1] or order, ARGV[3], 'COUNT', text(PART)) -- what has no members has another type
local cursor, members = part and part[1] or '0', part and part[2] or {}

local changes = {}
for at = 1, #members, 2 do
  local id = members[at]
  if not ask('ZSCORE', adds and order or KEYS[1], id) then
    local there = adds and ask('HMGET', ARGV[1] .. id, 'created')
    if there and whole(there[1]) then changes[#changes + 1] = there[1] end
    if not adds or there and whole(there[1]) then changes[#changes + 1] = id end
  end
end

look({ order })
for at = 1, #changes, MOST do
  local some = { unpack(changes, at, math.min(at + MOST - 1, #changes)) }
  if adds then write('ZADD', order, unpack(some)) else ask('ZREM', order, unpack(some)) end
end
return { cursor, adds and #changes / 2 or #changes }
