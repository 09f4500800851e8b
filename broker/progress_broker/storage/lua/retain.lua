-- Applies a lane's retention to operations that exist: how long they are kept after their end, and without events.
--
-- KEYS  1 expiry
--       Derived: KEYS[1]..':policy', and ARGV[1]..id..'', ':events', ':events:kept' and ':events:curve'. They are looked
--       at before the first write.
-- ARGV  1 what an operation's own keys begin with
--       2… members of `expiry`
-- Reply the number of operations whose expiry has changed.

local policy = ask('HMGET', KEYS[1] .. ':policy', 'retention_ms', 'idle_ms') or {}
local changes, touched, now = {}, {}, now_ms()
for i = 2, #ARGV do
  local id = string.match(ARGV[i], '^(%w[%w._~-]*)\n')
  local key = id and ARGV[1] .. id
  local found = key and ask('HMGET', key, 'schema', 'status', 'position', 'listed_ms', 'finished', 'retention_asked_ms',
    'idle_asked_ms', 'retention_ms', 'idle_ms', 'imported_ms', 'keep_ms', 'keep_idle_ms')
  if found and found[1] == SCHEMA and whole(found[4]) and string.find(found[3] or '', '^%d+%-') then
    -- What an operator said of this one counts more.
    local retention_ms = whole(found[11]) and found[11] or kept_ms(policy[1], found[6], found[8])
    local idle_ms = whole(found[12]) and found[12] or kept_ms(policy[2], found[7], found[9])
    local since = whole(found[5]) and found[5] or found[4]
    if whole(found[10]) and tonumber(found[10]) > tonumber(since) then since = found[10] end -- imported long after its end
    local expires = tonumber(since) + tonumber(TERMINAL[found[2]] and retention_ms or idle_ms)
    changes[#changes + 1] = { ARGV[i], key, retention_ms, idle_ms, math.max(expires, now + 1) }
    for _, end_of in ipairs({ '', ':events', ':events:kept', ':events:curve' }) do touched[#touched + 1] = key .. end_of end
  end
end
look(touched)

local changed = 0
for _, change in ipairs(changes) do
  local member, key, retention_ms, idle_ms, expires = unpack(change)
  frees = key
  write('HSET', key, 'retention_ms', retention_ms, 'idle_ms', idle_ms, 'expires', text(expires))
  if tonumber(ask('ZSCORE', KEYS[1], member) or 0) ~= expires then
    changed = changed + 1
    write('ZADD', KEYS[1], text(expires), member)
    for _, end_of in ipairs({ '', ':events', ':events:kept', ':events:curve' }) do
      redis.call('PEXPIREAT', key .. end_of, text(expires))
    end
  end
end
return changed
