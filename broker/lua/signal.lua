-- Sends a signal to an operation's worker: any but a cancel, which is published.
--
-- KEYS  1 snapshot  2 log  3 signals  4 feed  5 index  6 expiry  7 leases
-- ARGV  1 operation's id
--       2 type  3 data (JSON)  4 who sends it, or ''
-- Reply {'ok', position in the signals}; or {code, detail}.

local TERMINAL = { succeeded = true, failed = true, cancelled = true }

local id = ARGV[1]
local there = redis.call('HMGET', KEYS[1], 'gone', 'status')
if there[1] then return { 'gone', 'operation ' .. id .. ' was deleted' } end
if not there[2] then return { 'not-found', 'there is no operation ' .. id } end
if TERMINAL[there[2]] then return { 'operation-ended', 'operation ' .. id .. ' has ' .. there[2] } end
local position = redis.call('XADD', KEYS[3], 'MAXLEN', '~', '100', '*', 't', ARGV[2], 'd', ARGV[3], 'b', ARGV[4])
redis.call('PEXPIRE', KEYS[3], redis.call('PTTL', KEYS[1]))
return { 'ok', position }
