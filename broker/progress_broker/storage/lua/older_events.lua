-- Moves the oldest events of a log to where less of them is kept. `publish.lua` includes this file.
--
-- The log keeps each of the newest events: its window. An older event that is not `progress` moves to `<log>:kept`, which
-- keeps the newest HISTORY of them. Older progress moves to `<log>:curve`, which keeps points of the operation's whole
-- life, evenly spread in time: when there are too many, the distance between them is made longer, and the stream is
-- written anew. Deleting single entries of a stream would free no memory until whole nodes are empty.

local WINDOW = 1000 -- events of a log's window at most
local STEP = 100 -- events that are moved together: a node of a stream
local POINTS = 400 -- points of a curve at most
local CURVE_BYTES = 1048576 -- about how much data a curve has: of large points there are fewer
local MOVED_BYTES = 1048576 -- about how much data is moved at once: the next publish moves the rest
local AT_ONCE = 10 -- entries that are read at once
local MOST_FIELDS = 100 -- names and values of an entry

local function milliseconds(position) return tonumber((string.match(position, '^%d+'))) end

local function window_of(history_length) return math.min(tonumber(history_length), WINDOW) end

-- Writes a curve anew, with about half of its points; returns the distance between them, in milliseconds. `most` is how
-- many it may have.
local function thin(curve, most)
  local points = ask('XRANGE', curve, '-', '+') or {}
  local last = #points > 0 and milliseconds(points[#points][1])
  local distance = last and math.ceil((last - milliseconds(points[1][1])) * 2 / most) or 0
  redis.call('DEL', curve)
  local shown, due
  for at, point in ipairs(points) do
    -- Of points of one millisecond, which no distance can tell apart, every second.
    if distance > 0 and (not due or milliseconds(point[1]) >= due) or distance == 0 and at % 2 == 1 then
      redis.call('XADD', curve, point[1], unpack(point[2]))
      shown = milliseconds(point[1])
      due = shown + distance
    end
  end
  return distance
end

-- Shortens a log to its window, or by so much as Redis may take time for, but by at least twice as many events as were
-- `added` now. `archived` is the number of the last event that was moved before, and `distance` that between the points
-- of the curve. Returns both as they are now.
local function move_older_events(log, window, history_length, archived, distance, added)
  local kept, curve = log .. ':kept', log .. ':curve'
  local length = ask('XLEN', log) or 0
  local most = math.max(1, math.min(length - window, 2 * WINDOW))
  local points, point = ask('XLEN', curve) or 0, ask('XREVRANGE', curve, '+', '-', 'COUNT', 1)
  local due = point and point[1] and milliseconds(point[1][1]) + distance or 0
  local moved, bytes, first, from, trimmed = 0, 0, nil, '-', false
  local function move(entry)
    local fields, kind, n, size = entry[2], nil, nil, 0
    for f = 1, #fields, 2 do
      if fields[f] == 't' then kind = fields[f + 1] elseif fields[f] == 'n' then n = fields[f + 1] end
      size = size + #fields[f + 1]
    end
    n = kind and #fields <= MOST_FIELDS and whole(n) and tonumber(n) -- else another program wrote it
    if n and not first then
      first = n
      if archived == 0 or n ~= archived + 1 then -- what is there is of an earlier operation, or lacks events
        redis.call('DEL', kept, curve)
        archived, distance, points, due = n - 1, 0, 0, 0
      end
      trimmed = length <= window -- by somebody else
      if trimmed then return end
    end
    if n then
      if kind ~= 'progress' then
        write('XADD', kept, 'MAXLEN', '~', history_length, entry[1], unpack(fields))
      elseif milliseconds(entry[1]) >= due then
        write('XADD', curve, entry[1], unpack(fields))
        points = points + 1
        local room = math.min(POINTS, math.floor(CURVE_BYTES / size))
        if points > room then
          distance = thin(curve, room)
          points = redis.call('XLEN', curve)
        end
        due = milliseconds(entry[1]) + distance
      end
      archived = n
    end
    moved, bytes, from = moved + 1, bytes + size, '(' .. entry[1]
  end
  while not trimmed and moved < most and (bytes < MOVED_BYTES or moved < 2 * added) do
    local some = ask('XRANGE', log, from, '+', 'COUNT', math.min(AT_ONCE, most - moved)) or {}
    if #some == 0 then break end
    for _, entry in ipairs(some) do
      move(entry)
      if trimmed then break end
    end
  end
  if moved > 0 then redis.call('XTRIM', log, 'MAXLEN', text(length - moved)) end
  return archived, distance
end
