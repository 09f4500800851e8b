-- Adds entries of the feed of another Redis to the copy of it, under their own IDs.
--
-- KEYS  1 feed
--       Derived: KEYS[1]..':length', which is looked at before the first write.
-- ARGV  FEED n IF_FEED position [ENTRY position count field value…]…
--       FEED      about how many entries the feed keeps, at the most asked for
--       IF_FEED   rejected as `conflict` unless this is the last entry; 0-0: it has none
--       ENTRY     position is that of the entry; count is that of the fields and values that follow
-- Reply {'ok'}, also if these entries were added before and are the last ones; or {code, detail}, and nothing was changed.

local USAGE = 'FEED n IF_FEED position [ENTRY position count field value...]...'
local given = {}
local at, wrong = read_options(1, { FEED = 'number', IF_FEED = 'text' }, given)
if not (given.FEED and given.IF_FEED) then wrong = wrong or 'FEED or IF_FEED is missing' end
local from, position = at, nil
while not wrong and ARGV[at] == 'ENTRY' do
  local count = ARGV[at + 2]
  if not whole(count) or not ARGV[at + 2 + tonumber(count)] then
    wrong = 'ENTRY needs a position and its fields'
  else
    position, at = ARGV[at + 1], at + 3 + tonumber(count)
  end
end
if wrong or ARGV[at] then return reject_arguments(wrong, at, USAGE) end

if position and feed_end(KEYS[1]) == position then return { 'ok' } end -- the answer was lost
local rejected = reject_feed(KEYS[1], given.IF_FEED)
if rejected then return rejected end
look({ KEYS[1] .. ':length' })
local length = feed_length(KEYS[1], given.FEED)

at = from
while ARGV[at] do
  local count = tonumber(ARGV[at + 2])
  redis.call('XADD', KEYS[1], 'MAXLEN', '~', length, ARGV[at + 1], unpack(ARGV, at + 3, at + 2 + count))
  at = at + 3 + count
end
ask_for_length(KEYS[1], given.FEED, length)
return { 'ok' }
