-- Reads what is kept of an operation from a position on. One script, because another may move events from the log to kept
-- or curve between two reads; and not a transaction, because a Redis that is full rejects those. Changes nothing. It stops
-- after about so much data as Redis may take time for: the caller reads on from there.
--
-- KEYS  1 snapshot  2 log  3 kept  4 curve
-- ARGV  1 position  2 how many entries of each stream at most  3 REV: back from the position, which is left out, or from
--       the newest entry, if it is '+'
-- Reply {the last entry before the position of kept and of curve, the oldest entry of the log, the oldest one of kept,
--       then the entries from the position on of kept, curve and log, then for each of these three 1 if it may have more
--       of them}. If kept or curve may have more, the log is not read: its entries come later. Kept and curve count as
--       empty if they belong to an earlier operation, or lack events; so does a key of another type, but for the log.
--       With REV {entries of kept, curve and log, newest first, then for each 1 if it may have more of them}. If the log
--       may have more, kept and curve are not read.

local MOST_BYTES = 524288
local AT_ONCE = 10 -- entries that are read at once

local oldest = redis.call('XRANGE', KEYS[2], '-', '+', 'COUNT', 1)
local archived = ask('HMGET', KEYS[1], 'archived')
archived = archived and whole(archived[1]) and tonumber(archived[1]) or 0
local fits = false -- whether the log begins right after what was moved last
local fields = oldest[1] and oldest[1][2] or {}
for f = 1, #fields, 2 do
  fits = fits or archived > 0 and fields[f] == 'n' and whole(fields[f + 1]) and tonumber(fields[f + 1]) == archived + 1
end

local bytes = 0
local function before(key) -- nothing is before 0-0, and Redis rejects the range
  return fits and ARGV[1] ~= '0-0' and ask('XREVRANGE', key, '(' .. ARGV[1], '-', 'COUNT', 1) or {}
end

local back = ARGV[3] == 'REV'
-- Returns entries, and 1 if there may be more. At least the first ones are always read.
local function range(key)
  local found, from, most = {}, ARGV[1], tonumber(ARGV[2])
  local command, to = 'XRANGE', '+'
  if back then
    command, to = 'XREVRANGE', '-'
    if from ~= '+' then from = '(' .. from end
  end
  repeat
    local wanted = math.min(AT_ONCE, most - #found)
    local some = ask(command, key, from, to, 'COUNT', wanted) or {}
    for _, entry in ipairs(some) do
      found[#found + 1], from = entry, '(' .. entry[1]
      for f = 2, #entry[2], 2 do bytes = bytes + #entry[2][f] end
    end
    if #some < wanted then return found, 0 end
  until #found == most or bytes >= MOST_BYTES
  return found, 1
end

local kept, curve, log, kept_more, curve_more, log_more = {}, {}, {}, 0, 0, 1
if back then
  log, log_more = range(KEYS[2])
  if fits and log_more == 0 then
    kept, kept_more = range(KEYS[3])
    curve, curve_more = range(KEYS[4])
  end
  return { kept, curve, log, kept_more, curve_more, log_more }
end
if fits then
  kept, kept_more = range(KEYS[3])
  curve, curve_more = range(KEYS[4])
end
if kept_more + curve_more == 0 then log, log_more = range(KEYS[2]) end
return {
  before(KEYS[3]),
  before(KEYS[4]),
  oldest,
  fits and ask('XRANGE', KEYS[3], '-', '+', 'COUNT', 1) or {},
  kept,
  curve,
  log,
  kept_more,
  curve_more,
  log_more,
}
