-- What the scripts share. `storage/scripts.py` puts it, after SCHEMA, below the header of each of them.

local TERMINAL = { succeeded = true, failed = true, cancelled = true }

local function text(number) return string.format('%.0f', number) end -- tostring writes 1e+15 for a large one

local function whole(value) return value and #value <= 15 and string.find(value, '^%d+$') end -- and exact in Lua

-- How long an operation is kept, in milliseconds, as text: as long as the lane's policy says, or less if its creator asked
-- for less. Without a policy, as long as it was asked for, or `default`.
local function kept_ms(policy, asked, default)
  if not whole(policy) then return whole(asked) and asked or default end
  return whole(asked) and text(math.min(tonumber(policy), tonumber(asked))) or policy
end

local function now_ms()
  local time = redis.call('TIME')
  return tonumber(time[1]) * 1000 + math.floor(tonumber(time[2]) / 1000)
end

-- Reads named options from ARGV[at] on into `found`. `takes` says what each name takes: 'flag', 'number', 'text', or
-- 'list', which may be given again. Returns the place of the first other argument; or nil, and what is wrong.
local function read_options(at, takes, found)
  local name = ARGV[at]
  while takes[name] do
    local kind, value = takes[name], ARGV[at + 1]
    if found[name] and kind ~= 'list' then return nil, name .. ' is given twice' end
    if kind == 'flag' then
      found[name], at = true, at + 1
    else
      if not value then return nil, name .. ' needs a value' end
      if kind == 'number' and not (#value <= 16 and string.find(value, '^%d+$')) then
        return nil, name .. " needs a whole number, and not '" .. string.sub(value, 1, 40) .. "'"
      end
      if kind == 'list' then
        found[name] = found[name] or {}
        table.insert(found[name], value)
      else
        found[name] = value
      end
      at = at + 2
    end
    name = ARGV[at]
  end
  return at
end

-- Rejects arguments: `wrong` says why; without it, the argument at `at` is not understood.
local function reject_arguments(wrong, at, usage)
  wrong = wrong or ("argument " .. at .. " is '" .. string.sub(ARGV[at], 1, 40) .. "', which is no option here")
  return { 'invalid', wrong .. '. Expected: ' .. usage .. '. This script is of schema ' .. SCHEMA
    .. '; for a caller that was written for another schema see docs/protocol.md' }
end

-- Returns why an operation can't be used, by the field `schema` of its hash; nil if it can.
local function reject_schema(id, schema)
  if schema == SCHEMA then return nil end
  if not whole(schema) then
    return { 'not-found', 'another program overwrote operation ' .. id .. ' in Redis' }
  end
  return { 'conflict', 'operation ' .. id .. ' is stored in schema ' .. schema .. ', but this program supports only'
    .. ' schema ' .. SCHEMA .. ': upgrade the older of the programs that use this Redis' }
end

-- Runs a command, or returns nil where another program wrote something of another type.
local function ask(...)
  local reply = redis.pcall(...)
  if type(reply) ~= 'table' or not reply.err then return reply end
  if not string.find(tostring(reply.err), 'WRONGTYPE', 1, true) then return redis.call(...) end -- which raises it
end

local frees -- a hash: set by a script that a Redis which is full has to store all the same
-- Writes to a key. It deletes the key first if another program wrote another type to it, or used up a stream's IDs.
local function write(command, key, ...)
  local reply = redis.pcall(command, key, ...)
  if type(reply) ~= 'table' or not reply.err then return reply end
  local why = tostring(reply.err)
  if string.find(why, 'WRONGTYPE', 1, true) or string.find(why, ' ID', 1, true) then
    redis.call('DEL', key)
  elseif frees and string.find(why, 'OOM', 1, true) then
    redis.call('HDEL', frees, '') -- a Redis that is full lets a script go on whose first write frees memory
  end
  return redis.call(command, key, ...)
end

-- Returns the length of a feed. It is the lane's: the longest that was asked for within the last hour, so that neither
-- an old operation nor a process with other settings shortens it for all.
local function feed_length(feed, asked)
  local longest = ask('HGET', feed .. ':length', 'entries')
  return whole(longest) and tonumber(longest) > tonumber(asked) and longest or asked
end

-- Asks for a length of a feed. `length` is what `feed_length` returned before the first write.
local function ask_for_length(feed, asked, length)
  if length ~= asked then return end
  write('HSET', feed .. ':length', 'entries', asked)
  redis.call('PEXPIRE', feed .. ':length', 3600000)
end

-- Forgets signals, but not their last ID: a worker that has read so far must not take new ones for old.
local function forget(signals)
  local trimmed = redis.pcall('XTRIM', signals, 'MAXLEN', '0')
  if type(trimmed) == 'table' and trimmed.err then redis.call('DEL', signals) end -- another program wrote it
end

-- Looks at keys that are not in KEYS, before the first write: while a Cluster moves their slot, a script that touches a
-- key which is not here fails, and must fail while nothing is written. It looks at KEYS[1] as well: where a slot is moved
-- to, one key alone that has not arrived is taken for one that does not exist; if another one has, the command fails.
local function look(keys)
  for at = 1, #keys, 1000 do redis.call('EXISTS', KEYS[1], unpack(keys, at, math.min(at + 999, #keys))) end
end

-- Returns the key of a lane's order of creation: all its operations, by when they were created.
local function creation_order(index) return index .. ':order:created' end

-- Returns the keys of the indexes that an operation is listed in, `<field>:<value>` a line. With `statuses`, those of
-- all statuses, too: an earlier operation of its id may have expired without having been removed.
local function index_keys(index, lines, statuses)
  if statuses then
    lines = lines .. '\nstatus:pending\nstatus:running\nstatus:stalled\nstatus:cancelling'
      .. '\nstatus:succeeded\nstatus:failed\nstatus:cancelled'
  end
  local keys = {}
  for line in string.gmatch(lines, '[^\n]+') do keys[#keys + 1] = index .. ':' .. line end
  return keys
end

