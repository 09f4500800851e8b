-- What each producer has published last, so that what it sends again is answered and not stored. `publish.lua` includes
-- this file.

local PRODUCERS = 256 -- remembered of each operation; past that the one silent longest is forgotten
local LOOKED_BACK, LOOKED_BACK_BYTES = 250, 1000000 -- how far a repeat of an older seq is looked for in the log

-- Returns the last seq of a producer, with its position and number; '0' if none is known.
local function known_of(producer)
  local known = redis.call('HGET', KEYS[1], 'producer:' .. producer)
  return known and string.match(known, '^%d+ %d+%-%d+ %d+$') or '0'
end

-- Returns whether a producer that is not known may have been forgotten.
local function forgets()
  return (tonumber(redis.call('HGET', KEYS[1], 'producers') or '') or 0) >= PRODUCERS
end

-- Returns the position and the number that a seq was given first. `taken` is what is known of its producer's last one.
local function first_answer(producer, seq, taken)
  local last_seq, last_position, last_n = string.match(taken, '^(%d+) (%S+) (%d+)')
  local position, looked_at, bytes = last_position, 0, 0
  -- An older one: its entry tells, if it is not too far back. Entries are read one by one, as a long reply costs more.
  while last_seq ~= seq and looked_at < LOOKED_BACK and bytes < LOOKED_BACK_BYTES do
    local entry = (ask('XREVRANGE', KEYS[2], position, '-', 'COUNT', 1) or {})[1]
    if not entry then break end
    local fields = {}
    for f = 1, #entry[2], 2 do
      fields[entry[2][f]] = entry[2][f + 1]
      bytes = bytes + #entry[2][f + 1]
    end
    if fields.p == producer and fields.s == seq and whole(fields.n) then return entry[1], tonumber(fields.n) end
    position, looked_at = '(' .. entry[1], looked_at + 1
  end
  return last_position, tonumber(last_n)
end

-- Stores the last seq of each producer, with its position and number.
local function remember(seqs)
  local added, producers = 0, 0
  for producer, last in pairs(seqs) do
    if string.find(last, ' ') then added = added + redis.call('HSET', KEYS[1], 'producer:' .. producer, last) end
  end
  if added > 0 then
    producers = redis.pcall('HINCRBY', KEYS[1], 'producers', added)
    if type(producers) == 'table' then -- an error: another program wrote what is no number
      redis.call('HSET', KEYS[1], 'producers', added)
      producers = added
    end
  end
  if producers > PRODUCERS then
    local all, known = redis.call('HGETALL', KEYS[1]), {}
    for f = 1, #all, 2 do
      if string.sub(all[f], 1, 9) == 'producer:' then
        local last_n = string.match(all[f + 1], '^%d+ %d+%-%d+ (%d+)$')
        known[#known + 1] = { all[f], tonumber(last_n or '0') }
      end
    end
    table.sort(known, function(one, other) return one[2] < other[2] end)
    for i = 1, #known - PRODUCERS do redis.call('HDEL', KEYS[1], known[i][1]) end
    redis.call('HSET', KEYS[1], 'producers', text(math.min(#known, PRODUCERS)))
  end
end
