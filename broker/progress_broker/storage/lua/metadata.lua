-- Changes an operation's metadata, and the indexes that list it by its metadata. `publish.lua` includes this file after
-- `joined.lua`.

local MOST_METADATA, MOST_INDEXED, LONGEST = 16384, 16, 128 -- as in model/metadata.py

-- Returns a function that changes metadata: of the JSON it is given, each member replaces the one before, and null
-- removes it. It returns the metadata as JSON, and what it can be searched by, `metadata:key=value` a line; nil, if the
-- change is no JSON object. Values stay as they are spelled: cjson would change large numbers and empty lists.
local function metadata_changer(metadata)
  local order, keys, values = {}, {}, {}

  local function plain(raw) -- the text of a JSON string
    return string.find(raw, '\\', 1, true) and cjson.decode('[' .. raw .. ']')[1] or string.sub(raw, 2, -2)
  end

  local function read(json) -- a valid JSON object
    for _, member in ipairs(members(string.match(json, '{.*'))) do
      local name = plain(member[1])
      if not keys[name] then order[#order + 1] = name end
      keys[name], values[name] = unpack(member)
    end
  end

  local function is_object(json)
    local valid, value = pcall(cjson.decode, json)
    return valid and type(value) == 'table' and string.find(json, '^%s*{')
  end

  local function text_of(value)
    local first = string.sub(value, 1, 1)
    if first == '{' or first == '[' then return nil end
    if first == '"' then value = plain(value) end
    return #value > 0 and #value <= LONGEST and not string.find(value, '%c') and value
  end

  local function searched()
    local found, lines = {}, {}
    for name, value in pairs(values) do
      if value ~= 'null' and #name <= 64 and string.find(name, '^[%w_.-]+$') and text_of(value) then
        local hex = string.gsub(name, '.', function(char) return string.format('%02x', string.byte(char)) end)
        found[#found + 1] = { hex, name }
      end
    end
    table.sort(found, function(a, b) return a[1] < b[1] end) -- by hex digits, whose order no locale changes
    for i = 1, math.min(#found, MOST_INDEXED) do
      local name = found[i][2]
      lines[i] = 'metadata:' .. name .. '=' .. text_of(values[name])
    end
    return lines
  end

  if metadata and is_object(metadata) then read(metadata) end
  return function(changes)
    if not is_object(changes) then return nil end
    read(changes)
    local shown = {}
    for _, name in ipairs(order) do
      if values[name] ~= 'null' then shown[#shown + 1] = keys[name] .. ':' .. values[name] end
    end
    return '{' .. table.concat(shown, ',') .. '}', searched()
  end
end

local changer, changed_metadata, searched

-- Applies a change of an operation's metadata. Returns a rejection, if there is one.
local function change_metadata(id, changes)
  if not changer then
    local known = redis.call('HMGET', KEYS[1], 'metadata', 'created_metadata')
    changer = metadata_changer(known[1] or known[2])
  end
  changed_metadata, searched = changer(changes)
  if not changed_metadata then return { 'invalid', "the data of an event 'metadata' is a JSON object: the changes" } end
  if #changed_metadata <= MOST_METADATA then return nil end
  return { 'too-large', 'the metadata of operation ' .. id .. ' would have ' .. #changed_metadata .. ' bytes; at most '
    .. MOST_METADATA .. ' are allowed. Nothing was stored' }
end

-- Returns the lines of an operation's indexes after the changes, and the keys of those that no longer list it. The lines that it was
-- created with stay: grants look at them. An empty line is between them and those of a change.
local function indexes_after(indexes)
  if not changed_metadata then return indexes, {} end
  local created, changed = string.match(indexes, '^(.-)\n\n(.*)$')
  created = created or indexes
  local known, added, removed = {}, {}, {}
  for line in string.gmatch(created, '[^\n]+') do known[line] = true end
  for _, line in ipairs(searched) do
    if not known[line] then added[#added + 1], known[line] = line, true end
  end
  for line in string.gmatch(changed or '', '[^\n]+') do
    if not known[line] then removed[#removed + 1] = KEYS[5] .. ':' .. line end
  end
  return #added > 0 and created .. '\n\n' .. table.concat(added, '\n') or created, removed
end
