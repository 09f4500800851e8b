-- Reads what is kept of an operation from a position on. One script, because another may move events from the log to the
-- archive between two reads; and not a transaction, because a Redis that is full rejects those. Changes nothing.
--
-- KEYS  1 snapshot  2 log  3 kept  4 curve
-- ARGV  1 position  2 how many entries of each stream at most
-- Reply {the field `archived` of the snapshot, the last entry before the position of kept and of curve, the oldest entry of the log, the oldest one of kept, then the entries from
--       the position on of kept, curve and log}. A key of another type counts as empty, but for the log.

local archived = ask('HMGET', KEYS[1], 'archived')
local function before(key) -- nothing is before 0-0, and Redis rejects the range
  return ARGV[1] ~= '0-0' and ask('XREVRANGE', key, '(' .. ARGV[1], '-', 'COUNT', 1) or {}
end
local function range(key, from, count) return ask('XRANGE', key, from, '+', 'COUNT', count) or {} end
return {
  archived and archived[1] or false,
  before(KEYS[3]),
  before(KEYS[4]),
  redis.call('XRANGE', KEYS[2], '-', '+', 'COUNT', 1),
  range(KEYS[3], '-', 1),
  range(KEYS[3], ARGV[1], ARGV[2]),
  range(KEYS[4], ARGV[1], ARGV[2]),
  range(KEYS[2], ARGV[1], ARGV[2]),
}
