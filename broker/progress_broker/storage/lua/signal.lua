-- Sends a signal to an operation's worker: any but a cancel, which is published.
--
-- KEYS  1 snapshot  2 log  3 signals  4 feed  5 index  6 expiry  7 leases
-- ARGV  1 operation's id
--       2 type  3 data (JSON)  4 who sends it, or ''
-- Reply {'ok', position in the signals}; or {code, detail}.

local TERMINAL = { succeeded = true, failed = true, cancelled = true }

-- Runs a command, or returns nil where another program wrote something of another type.
local function ask(...)
  local reply = redis.pcall(...)
  if type(reply) ~= 'table' or not reply.err then return reply end
  if not string.find(tostring(reply.err), 'WRONGTYPE', 1, true) then return redis.call(...) end -- which raises it
end

-- Writes to a key, anew where another program wrote something of another type, or has used up a stream's IDs.
local function write(command, key, ...)
  local reply = redis.pcall(command, key, ...)
  if type(reply) ~= 'table' or not reply.err then return reply end
  if string.find(tostring(reply.err), 'WRONGTYPE', 1, true) or string.find(tostring(reply.err), ' ID', 1, true) then
    redis.call('DEL', key)
  end
  return redis.call(command, key, ...)
end

local id = ARGV[1]
local there = ask('HMGET', KEYS[1], 'gone', 'status')
if not there then
  return { 'not-found', 'what Redis holds as operation ' .. id .. ' is something else: another program wrote it' }
end
if there[1] then return { 'gone', 'operation ' .. id .. ' was deleted' } end
if not there[2] then return { 'not-found', 'there is no operation ' .. id } end
if TERMINAL[there[2]] then return { 'operation-ended', 'operation ' .. id .. ' has ' .. there[2] } end
local position = write('XADD', KEYS[3], 'MAXLEN', '~', '100', '*', 't', ARGV[2], 'd', ARGV[3], 'b', ARGV[4])
redis.call('PEXPIRE', KEYS[3], redis.call('PTTL', KEYS[1]))
return { 'ok', position }
