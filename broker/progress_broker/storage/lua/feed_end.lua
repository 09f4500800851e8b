-- Returns a rejection unless a feed ends where a copy of it has to. `mirror.lua`, `mirror_feed.lua` and `adopt.lua` include
-- this file: what a copy writes follows what it wrote before, and nobody else may have written.
local function feed_end(feed)
  local last = (ask('XREVRANGE', feed, '+', '-', 'COUNT', 1) or {})[1]
  return last and last[1] or '0-0', last
end

local function reject_feed(feed, expected)
  local at, last = feed_end(feed)
  if at == expected then return nil end
  local of
  for f = 1, last and #last[2] or 0, 2 do
    if last[2][f] == 'o' then of = last[2][f + 1] end
  end
  return { 'conflict', 'another program writes to the copy: its feed ends with an entry of '
    .. (of and 'operation ' .. string.sub(of, 1, 128) or 'nobody') .. ' at ' .. at .. ', which is not of the source' }
end
