-- Removes what is left of a lane's operations whose time has passed. Any number of replicas may run it at once.
--
-- KEYS  1 index  2 expiry  3 leases
--       Derived: ARGV[1]..id..'', ':events', ':events:kept', ':events:curve' and ':signals'; KEYS[1]..':order:created',
--       KEYS[1]..':status:<status>' of each status, and KEYS[1]..':<field>:<value>' of what each was created with. They
--       are looked at before the first write.
-- ARGV  1 what an operation's own keys begin with
--       2 how many to remove at most
-- Reply the number removed.

local now = now_ms()
local due = ask('ZRANGEBYSCORE', KEYS[2], '-inf', text(now), 'LIMIT', 0, ARGV[2])
if not due or #due == 0 then return 0 end -- after a wrong type the next publish creates it again

local touched, ends, all = {}, {}, index_keys(KEYS[1], '', true)
all[#all + 1] = creation_order(KEYS[1])
for _, member in ipairs(due) do
  local id, indexes = string.match(member, '^(%w[%w._~-]*)\n(.*)$')
  if id then -- else it names no operation: its keys could be those of another
    local key, stays = ARGV[1] .. id, {}
    local there = ask('HMGET', key, 'expires', 'indexes')
    local expires = there and tonumber(there[1] or '')
    local again = expires and expires > now -- it was created again under the same id since
    local one = { id = id, from = {}, keys = {} }
    if again then
      for _, index in ipairs(index_keys(KEYS[1], there[2] or '')) do stays[index] = true end
    else
      one.keys = { key .. ':events', key .. ':events:kept', key .. ':events:curve', key .. ':signals' }
      if not there or there[1] then one.keys[5] = key end -- a tombstone stays
      for _, index in ipairs(all) do one.from[#one.from + 1] = index end
      one.from[#one.from + 1], one.from[#one.from + 2] = KEYS[1], KEYS[3]
    end
    for _, index in ipairs(index_keys(KEYS[1], indexes)) do
      if not stays[index] then one.from[#one.from + 1], touched[#touched + 1] = index, index end
    end
    for _, each in ipairs(one.keys) do touched[#touched + 1] = each end
    ends[#ends + 1] = one
  end
end
look(all)
look(touched)

for _, one in ipairs(ends) do
  if #one.keys > 0 then redis.call('DEL', unpack(one.keys)) end
  for _, key in ipairs(one.from) do ask('ZREM', key, one.id) end -- of another type it lists nothing
end
for _, member in ipairs(due) do redis.call('ZREM', KEYS[2], member) end
return #due
