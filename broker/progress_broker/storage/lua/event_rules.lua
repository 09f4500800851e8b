-- Which event may follow which. `publish.lua` includes this file.

-- Names that a stream uses itself, or that EventSource does. But `child` is published, by the creator of a child.
local RESERVED = {
  error = true, open = true, snapshot = true, reconnect = true, replaced = true, ping = true, malformed = true,
  children = true, operations = true, missing = true, bookmark = true, ["replay-end"] = true,
}

local function may_become(status, another) -- of one that has not ended
  if another == 'stalled' then return status == 'running' end
  if another == 'running' or another == 'cancelling' then return status ~= 'cancelling' end
  return TERMINAL[another]
end

local function is_outcome(kind, data, status) -- the one event that is looked into: what ends an operation must say so
  local read, outcome = pcall(cjson.decode, data)
  return kind == 'end' and read and type(outcome) == 'table' and outcome.status == status
end
