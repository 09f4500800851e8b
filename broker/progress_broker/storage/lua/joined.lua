-- Joins what several publishers say about one operation into one `progress`. `publish.lua` includes this file. Values stay
-- the bytes that their publishers wrote, but for the counts of stages.

local LARGEST_JOINED = 32768 -- bytes: beyond that only what the newest publisher says is kept

-- Returns where a string ends that begins at `at`.
local function string_end(json, at)
  repeat
    at = string.find(json, '["\\]', at + 1)
    local escapes = at and string.sub(json, at, at) == '\\'
    if escapes then at = at + 1 end
  until not escapes
  return at
end

-- Returns the members of an object, or the elements of an array.
local function split(json)
  local found, depth, from, at = {}, 0, 2, 2
  while at do
    at = string.find(json, '["%[%]{},]', at)
    local char = at and string.sub(json, at, at)
    if char == '"' then
      at = string_end(json, at)
    elseif char == '{' or char == '[' then
      depth = depth + 1
    elseif at and depth > 0 and char ~= ',' then
      depth = depth - 1
    elseif at and depth == 0 then
      local part = string.match(string.sub(json, from, at - 1), '^%s*(.*%S)')
      if part then found[#found + 1] = part end
      if char ~= ',' then return found end
      from = at + 1
    end
    at = at and at + 1
  end
  return found
end

-- Returns the members of an object as {name, value}.
local function members(object)
  local found = {}
  for _, member in ipairs(split(object)) do
    local last = string_end(member, 1)
    local value = last and string.match(member, '^%s*:%s*(.*)$', last + 1)
    if value then found[#found + 1] = { string.sub(member, 1, last), value } end
  end
  return found
end

local function object_of(list)
  local parts = {}
  for i, member in ipairs(list) do parts[i] = member[1] .. ':' .. member[2] end
  return '{' .. table.concat(parts, ',') .. '}'
end

-- Adds `new` members to those `known`. Of one name, `joins[name](known, new)` says the value, or else the new one counts.
local function join_members(known, new, joins)
  local at = {}
  for i, member in ipairs(known) do at[member[1]] = i end
  for _, member in ipairs(new) do
    local old = known[at[member[1]]]
    if not old then
      known[#known + 1] = member
    else
      local join = joins[member[1]]
      old[2] = join and join(old[2], member[2]) or member[2]
    end
  end
  return known
end

-- Returns the joined metrics. To those that the publisher without COUNT says, what others have added is added.
local function join_metrics(known, new, by, added, number)
  if string.sub(known, 1, 1) ~= '{' or string.sub(new, 1, 1) ~= '{' then return new end
  local told = members(new)
  for _, metric in ipairs(told) do
    local more, value = added['+' .. metric[1]], tonumber(metric[2])
    if more and value and not by then metric[2] = number(value + more[1]) end
  end
  return object_of(join_members(members(known), told, {}))
end

-- Adds increments to metrics.
local function increment(metrics, increments, added, number)
  local list, at = members(metrics), {}
  for i, metric in ipairs(list) do at[metric[1]] = i end
  for _, each in ipairs(members(increments)) do
    local name, by = each[1], tonumber(each[2])
    if by then
      local metric = list[at[name]] or { name, '0' }
      metric[2] = number((tonumber(metric[2]) or 0) + by)
      list[at[name] or #list + 1] = metric
      added['+' .. name] = { (added['+' .. name] or { 0 })[1] + by }
    end
  end
  return object_of(list)
end

local STAGE = '^,"status":"(%l*)","current":([%dnul.eE+-]+),"total":([%dnul.eE+-]+),"percent":([%dnul.eE+-]+)(.*)$'

local function read_stage(stage)
  local last = string.sub(stage, 1, 9) == '{"name":"' and string_end(stage, 9)
  local status, current, total, percent, rest = string.match(stage, STAGE, last and last + 1 or 1)
  if not last or not status then return { name = stage, raw = stage } end
  return { name = string.sub(stage, 9, last), status = status, current = tonumber(current), total = tonumber(total),
    percent = percent, rest = rest }
end

local function write_stage(stage, number)
  if stage.raw then return stage.raw end
  if stage.total and stage.total > 0 then
    stage.percent = number(math.floor(math.min(100, 100 * math.max(0, stage.current or 0) / stage.total) * 100 + 1e-9) / 100)
  end
  return '{"name":' .. stage.name .. ',"status":"' .. stage.status
    .. '","current":' .. (stage.current and number(math.max(0, stage.current)) or 'null')
    .. ',"total":' .. (stage.total and number(stage.total) or 'null') .. ',"percent":' .. stage.percent .. stage.rest
end

local function plus(one, other) return (one or other) and (one or 0) + (other or 0) end

-- Returns the joined stages. `added` says what those have counted that publish with COUNT, by the names of stages; with
-- `by`, the new stages say what was added since.
local function join_stages(known, new, by, added, number)
  local list, at = {}, {}
  for i, raw in ipairs(split(known)) do
    list[i] = read_stage(raw)
    at[list[i].name] = i
  end
  for _, raw in ipairs(split(new)) do
    local stage = read_stage(raw)
    local old = list[at[stage.name]]
    if not stage.raw then
      local more = added[stage.name] or {}
      if by then
        added[stage.name] = { plus(more[1], stage.current), plus(more[2], stage.total) }
        if old and not old.raw then
          stage.current, stage.total = plus(old.current, stage.current), plus(old.total, stage.total)
          stage.rest = old.rest
        end
      else
        stage.current, stage.total = plus(stage.current, more[1]), plus(stage.total, more[2])
      end
      if old and not old.raw and stage.status == 'pending' then stage.status = old.status end
    end
    list[at[stage.name] or #list + 1] = stage
  end
  local parts, done, whole = {}, 0, 0
  for i, stage in ipairs(list) do
    parts[i] = write_stage(stage, number)
    local weight = tonumber(string.match(stage.rest or '', '"weight":([%d.eE+-]+)') or 1)
    done, whole = done + weight * (tonumber(stage.percent) or 0), whole + weight
  end
  local percent = whole > 0 and number(math.floor(done / whole * 100 + 1e-9) / 100)
  return '[' .. table.concat(parts, ',') .. ']', percent
end

-- Joins the members of a progress that come after its percentage: `,"rate":…}`. Returns them, and the percentage of the
-- stages if several publishers count in them.
local function join_rest(known, rest, by, added, number)
  local percent
  local joins = { ['"metrics"'] = function(old, new) return join_metrics(old, new, by, added, number) end }
  joins['"stages"'] = function(old, new)
    if string.sub(old, 1, 1) ~= '[' or string.sub(new, 1, 1) ~= '[' then return new end
    local stages
    stages, percent = join_stages(old, new, by, added, number)
    return stages
  end
  local function read(text) return members('{' .. (string.match(text, '^%s*,(.*)$') or text)) end
  local old, new, increments = read(known), {}, nil
  for _, member in ipairs(read(rest)) do
    if by and member[1] == '"increments"' then increments = member[2] else new[#new + 1] = member end
  end
  local has_stages, names = false, false
  for _, member in ipairs(old) do has_stages = has_stages or member[1] == '"stages"' end
  for _, member in ipairs(new) do names = names or member[1] == '"stages"' end
  if names and not has_stages then old[#old + 1] = { '"stages"', '[]' } end -- so that the new ones are counted, too
  local list = join_members(old, new, joins)
  if increments then
    local metrics
    for _, member in ipairs(list) do metrics = member[1] == '"metrics"' and member or metrics end
    if not metrics then
      metrics = { '"metrics"', '{}' }
      list[#list + 1] = metrics
    end
    metrics[2] = increment(metrics[2], increments, added, number)
  end
  local joined = object_of(list)
  if #joined > LARGEST_JOINED then return rest end
  return (#list > 0 and ',' or '') .. string.sub(joined, 2), next(added) and percent
end

-- Reads and writes what was added to stages and metrics, a line for each: how many, of how many, and its name, which
-- begins with `+` for a metric.
local function read_added(text)
  local added = {}
  for by, of, name in string.gmatch(text or '', '(%S+) (%S+) ([^\n]+)') do
    added[name] = { tonumber(by), tonumber(of) }
  end
  return added
end

local function write_added(added, number)
  local lines = {}
  for name, counts in pairs(added) do
    lines[#lines + 1] = (counts[1] and number(counts[1]) or 'null') .. ' ' .. (counts[2] and number(counts[2]) or 'null')
      .. ' ' .. name
  end
  table.sort(lines)
  return table.concat(lines, '\n')
end
