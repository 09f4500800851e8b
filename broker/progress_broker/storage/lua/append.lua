-- Appends an event to its lane's feed and to its operation's log, under one ID. `publish.lua` includes this file.

local AHEAD_MS = 86400000 -- how far a clock may have been set back; what is further ahead, another program wrote

local function after(a, b)
  local a_ms, a_seq = string.match(a, '(%d+)-(%d+)')
  local b_ms, b_seq = string.match(b, '(%d+)-(%d+)')
  a_ms, b_ms = tonumber(a_ms), tonumber(b_ms)
  return a_ms > b_ms or (a_ms == b_ms and tonumber(a_seq) > tonumber(b_seq))
end

-- `shown` goes to the feed, which keeps `length` entries, and `kept` to the log. The event that was appended before it had
-- the ID `position`; `first` says that it was not appended by this call. Returns the ID.
local function append(shown, kept, first, position, length, clock, idle_ms)
  local at = write('XADD', KEYS[4], 'MAXLEN', '~', length, '*', unpack(shown))
  local fits = not first or after(at, position) -- the feed's IDs only grow, so one look is enough
  local stored = fits and redis.pcall('XADD', KEYS[2], at, unpack(kept))
  if stored and not stored.err then return at end
  -- The log is ahead: the feed restarted on a slow clock, or another program wrote.
  local newest = ask('XREVRANGE', KEYS[2], '+', '-', 'COUNT', 1)
  local last = newest and newest[1] and newest[1][1]
  local ms, minor = string.match(last and after(last, position) and last or position, '(%d+)-(%d+)')
  if not newest or #minor > 15 or (last ~= position and tonumber(ms) > clock + AHEAD_MS) then
    -- Its own history is lost then, rather than that its lane's feed follows it into a distant future.
    if not last or not after(at, last) then redis.call('DEL', KEYS[2]) end
    redis.call('XADD', KEYS[2], at, unpack(kept))
    redis.call('PEXPIRE', KEYS[2], idle_ms)
    return at
  end
  redis.call('XDEL', KEYS[4], at)
  at = ms .. '-' .. text(tonumber(minor) + 1)
  redis.call('XADD', KEYS[4], at, unpack(shown))
  redis.call('XADD', KEYS[2], at, unpack(kept))
  return at
end
