-- Returns the children of operations that are in one lane. Changes nothing.
--
-- KEYS  for each of those operations, the lane's index of its children
--       Derived: ARGV[1]..id, which is only read.
-- ARGV  1 what an operation's own keys begin with
--       2 how many to look at in all, about: where there are more, every second is, or every third, and so on. In the
--         order of last change, so that those looked at are as far as the others
-- Reply for each key {how many it lists, how many were looked at, id, state, id, state, …}. A state holds status, spec,
--       progress, position, created and has_children; what is not an operation of this schema is left out.

local sizes, all = {}, 0
for i, key in ipairs(KEYS) do
  sizes[i] = ask('ZCARD', key) or 0
  all = all + sizes[i]
end
local step = math.max(1, math.ceil(all / tonumber(ARGV[2])))

local reply = {}
for i, key in ipairs(KEYS) do
  local ids = sizes[i] > 0 and step == 1 and redis.call('ZRANGE', key, 0, -1) or {}
  if step > 1 then
    for at = 0, sizes[i] - 1, step do ids[#ids + 1] = redis.call('ZRANGE', key, at, at)[1] end
  end
  local some = { sizes[i], #ids }
  for _, id in ipairs(ids) do
    local state = ask('HMGET', ARGV[1] .. id, 'status', 'spec', 'progress', 'position', 'created',
      'has_children', 'schema')
    if state and state[1] and state[7] == SCHEMA then
      state[7] = nil
      some[#some + 1] = id
      some[#some + 1] = state
    end
  end
  reply[i] = some
end
return reply
