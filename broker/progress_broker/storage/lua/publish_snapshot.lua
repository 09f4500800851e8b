-- What `publish.lua` knows of the operation before it publishes. It includes this file.

local OPEN = { pending = true, running = true, stalled = true, cancelling = true }

local snapshot = ask('HMGET', KEYS[1], 'gone', 'schema', 'status', 'n', 'position', 'attempt', 'cancel', 'created',
  'lease_ms', 'lease_floor_ms', 'listed_ms', 'indexes', 'history_length', 'feed_length', 'retention_ms', 'idle_ms',
  'archived', 'curve_ms', 'counts', 'stage_counts')
if not snapshot then return reject_schema(id, nil) end
local gone, schema, before, n, position, attempt, cancel, created, lease_ms, lease_floor_ms, listed_ms, indexes,
  history_length, asked_length, retention_ms, idle_ms, archived, curve_ms, counts, stage_counts = unpack(snapshot)
if gone then return { 'gone', 'operation ' .. id .. ' was deleted' } end
if not before then return { 'not-found', 'there is no operation ' .. id } end
local other_schema = whole(schema) and reject_schema(id, schema)
if other_schema then return other_schema end
if if_created and if_created ~= created then
  return { 'fenced', 'operation ' .. id .. ' was created again since; this call is for the earlier one' }
end
if schema ~= SCHEMA or not (OPEN[before] or TERMINAL[before]) or not string.find(position or '', '^%d+%-%d+$')
  or not (whole(n) and whole(attempt) and whole(history_length) and whole(asked_length) and whole(retention_ms)
    and whole(idle_ms) and whole(lease_ms or '0')) then
  if if_lease_expired then ask('ZREM', KEYS[7], id) end -- nobody can act on it
  return reject_schema(id, nil)
end
n = tonumber(n)
archived, curve_ms = whole(archived) and tonumber(archived) or 0, whole(curve_ms) and tonumber(curve_ms) or 0
if archived > n then archived = 0 end
