-- Which operations of a lane may match a query. `walk.lua` and `count.lua` include this file. It leaves out only what can't
-- match: the caller decides, on the snapshot.

local FILTERS = {
  ANY = 'list', CREATED = 'text', CHANGED = 'text', LAST_EVENT = 'text', ID_PREFIX = 'text', ROOTS = 'flag',
  TEXT = 'text', WORKER = 'text', ERROR = 'text', METADATA = 'flag',
}
local FILTER_USAGE = '[ANY lines]... [CREATED from to] [CHANGED from to] [LAST_EVENT from to] [ID_PREFIX text] [ROOTS]'
  .. ' [TEXT text] [WORKER text] [ERROR text] [METADATA]'
local LATEST = 9007199254740991 -- a later time is another program's

local commands = 0 -- which were sent for operations that were looked at
local function counted(...)
  commands = commands + 1
  return ask(...)
end

-- Returns the first and the last time of a text such as '17 42'.
local function span_of(given)
  local first, last = string.match(given or '', '^(%d+) (%d+)$')
  return tonumber(first or 0), tonumber(last or LATEST)
end

-- Reads a group, of which an operation has to be in one part: `kind:job`, the lane's index of that name; `=import-42`, the
-- operation itself; `^import-`, all whose ids begin so. `size` is how many are in the parts.
local function read_group(lines)
  local group = { keys = {}, ids = {}, named = {}, prefixes = {}, size = 0 }
  for line in string.gmatch(lines, '[^\n]+') do
    local mark, name = string.sub(line, 1, 1), string.sub(line, 2)
    if mark == '=' then
      group.ids[#group.ids + 1], group.named[name], group.size = name, true, group.size + 1
    elseif mark == '^' then
      group.prefixes[#group.prefixes + 1], group.size = name, math.huge
    else
      group.keys[#group.keys + 1] = KEYS[1] .. ':' .. line
      group.size = group.size + (ask('ZCARD', KEYS[1] .. ':' .. line) or 0)
    end
  end
  return group
end

-- Returns the groups, and the one with the fewest operations, if that is known.
local function read_groups(texts)
  local groups, fewest = {}, nil
  for i, lines in ipairs(texts or {}) do
    groups[i] = read_group(lines)
    if groups[i].size < (fewest and fewest.size or math.huge) then fewest = groups[i] end
  end
  return groups, fewest
end

local function is_in(group, id)
  if group.named[id] then return true end
  for _, prefix in ipairs(group.prefixes) do
    if string.sub(id, 1, #prefix) == prefix then return true end
  end
  for _, key in ipairs(group.keys) do
    if counted('ZSCORE', key, id) then return true end
  end
  return false
end

-- Returns whether a text of JSON is plain: others have capitals, or escapes, that only the caller knows.
local undecided = 0 -- how many others there were
local function is_plain(value)
  if not string.find(value, '[\128-\255\\]') then return true end
  undecided = undecided + 1
  return false
end

-- Returns whether a plain text has a part, which is in small letters.
local function has(value, part) return string.find(string.lower(value), part, 1, true) ~= nil end

-- The tests of fields of the hash: each gets the field's value, and the id.
local function field_tests(given)
  local fields, tests = {}, {}
  local function test(field, passes) fields[#fields + 1], tests[#tests + 1] = field, passes end
  if given.LAST_EVENT then
    local first, last = span_of(given.LAST_EVENT)
    test('position', function(value)
      local ms = tonumber(string.match(value or '', '^%d+') or '')
      return not ms or ms >= first and ms <= last
    end)
  end
  if given.ROOTS then
    test('indexes', function(value) return not string.find('\n' .. (value or ''), '\nparent:', 1, true) end)
  end
  if given.WORKER then
    test('worker', function(value) return value == given.WORKER end)
  end
  if given.METADATA then -- an index has those that were created with it, too
    test('metadata', function(value)
      if value then undecided = undecided + 1 end
      return true
    end)
  end
  if given.TEXT then
    test('spec', function(value, id)
      if has(id, given.TEXT) or value and not is_plain(value) then return true end
      return has(string.match(value or '', '"title"%s*:%s*"([^"]*)"') or '', given.TEXT)
    end)
  end
  if given.ERROR then
    test('outcome', function(value)
      if not value or is_plain(value) and not has(value, '"error"') then return false end
      undecided = undecided + 1 -- the text may be that of another member
      return not is_plain(value) or has(value, given.ERROR) or not string.find(value, '"error"%s*:%s*{')
    end)
  end
  return fields, tests
end

-- Returns what says whether an operation may match. It doesn't look at the group `known`, nor at the span of the order
-- `walked`: whoever reads an index knows already.
local function matcher(given, groups, known, walked)
  local fields, tests = field_tests(given)
  local spans = {}
  if given.CREATED and walked ~= 'created' then spans[#spans + 1] = { creation_order(KEYS[1]), span_of(given.CREATED) } end
  if given.CHANGED and walked ~= 'changed' then spans[#spans + 1] = { KEYS[1], span_of(given.CHANGED) } end
  return function(id)
    if given.ID_PREFIX and string.sub(id, 1, #given.ID_PREFIX) ~= given.ID_PREFIX then return false end
    for _, group in ipairs(groups) do
      if group ~= known and not is_in(group, id) then return false end
    end
    for _, span in ipairs(spans) do
      local score = tonumber(counted('ZSCORE', span[1], id) or '')
      if score and (score < span[2] or score > span[3]) then return false end
    end
    local values = #fields > 0 and counted('HMGET', ARGV[1] .. id, unpack(fields)) or {}
    for i, value in ipairs(values) do
      if not tests[i](value, id) then return false end
    end
    return true
  end
end
