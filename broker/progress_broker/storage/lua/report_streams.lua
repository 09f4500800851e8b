-- Says how many streams of a principal a replica holds; unless there is a limit, which those of all replicas would pass.
-- What a replica said holds for a time, so those of one that died are free then.
--
-- KEYS  1 streams of the principal: a hash of replica -> "how many, until when (ms), number of its word"
-- ARGV  1 replica
--       2 how many it holds
--       3 how many there may be in all; empty if it only tells what is so
--       4 milliseconds for which this holds
--       5 number of its word: one that was overtaken by a later one changes nothing
-- Reply {1 if it is so now, else 0; how many the other replicas hold}

-- Runs a command, or returns nil where another program wrote something of another type.
local function ask(...)
  local reply = redis.pcall(...)
  if type(reply) ~= 'table' or not reply.err then return reply end
  if not string.find(tostring(reply.err), 'WRONGTYPE', 1, true) then return redis.call(...) end -- which raises it
end

local time = redis.call('TIME')
local now = tonumber(time[1]) * 1000 + math.floor(tonumber(time[2]) / 1000)
local hold = tonumber(ARGV[4])
local others, overtaken = 0, false
local told = ask('HGETALL', KEYS[1])
if not told then -- replicas say again what they hold
  redis.call('DEL', KEYS[1])
  told = {}
end
for i = 1, #told, 2 do
  local count, til, number = string.match(told[i + 1], '^(%d+) (%d+) (%d+)$')
  local left = (tonumber(til) or 0) - now
  if left <= 0 or left > hold then -- it lapsed; or the clock was set back, and its replica will say so again
    redis.call('HDEL', KEYS[1], told[i])
  elseif told[i] == ARGV[1] then
    overtaken = tonumber(number) > tonumber(ARGV[5])
  else
    others = others + tonumber(count)
  end
end
if ARGV[3] ~= '' and others + tonumber(ARGV[2]) > tonumber(ARGV[3]) then
  return { 0, others }
end
if not overtaken then
  redis.call('HSET', KEYS[1], ARGV[1], string.format('%s %.0f %s', ARGV[2], now + hold, ARGV[5]))
  redis.call('PEXPIRE', KEYS[1], ARGV[4])
end
return { 1, others }
