-- Sends a signal to an operation's worker: any but a cancel, which is published.
--
-- KEYS  1 snapshot  2 signals
-- ARGV  id type data [BY who]
--       data is JSON; BY says who sends it
-- Reply {'ok', position in the signals}; or {code, detail}.

-- The prelude.
local id, type_, data, given = ARGV[1], ARGV[2], ARGV[3], {}
local at, wrong = read_options(4, { BY = 'text' }, given)
if not data then wrong = 'an argument is missing' end
if wrong or ARGV[at] then return reject_arguments(wrong, at, 'id type data [BY who]') end

local there = ask('HMGET', KEYS[1], 'gone', 'status', 'schema')
local gone, status, schema = unpack(there or { false, '' })
if gone then return { 'gone', 'operation ' .. id .. ' was deleted' } end
if not status then return { 'not-found', 'there is no operation ' .. id } end
local rejected = reject_schema(id, schema)
if rejected then return rejected end
if TERMINAL[status] then return { 'operation-ended', 'operation ' .. id .. ' is already ' .. status } end
local signal = { 't', type_, 'd', data }
if given.BY then signal[5], signal[6] = 'b', given.BY end
local position = write('XADD', KEYS[2], 'MAXLEN', '~', '100', '*', unpack(signal))
redis.call('PEXPIRE', KEYS[2], redis.call('PTTL', KEYS[1]))
return { 'ok', position }
