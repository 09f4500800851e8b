-- Says how many streams of a principal a replica has. With a limit, it is rejected if the streams of all replicas would
-- exceed that. A report counts for a time, so those of a replica that died are free then.
--
-- KEYS  1 streams of the principal: a hash of replica -> "how many, until when (ms), number of the report"
-- ARGV  replica count lease_ms number [LIMIT n]
--       count      how many streams it has
--       lease_ms   for how long the report counts
--       number     the report's number: one that was overtaken by a later one changes nothing
--       LIMIT      how many there may be at all replicas together
-- Reply {1 if the report is accepted, else 0; how many the other replicas have}

local given = {}
local at, wrong = read_options(5, { LIMIT = 'number' }, given)
if wrong or ARGV[at] then
  return redis.error_reply(reject_arguments(wrong, at, 'replica count lease_ms number [LIMIT n]')[2])
end
local replica, count, lease_ms, number = ARGV[1], tonumber(ARGV[2]), tonumber(ARGV[3]), tonumber(ARGV[4])

local now = now_ms()
local others, overtaken = 0, false
local told = ask('HGETALL', KEYS[1])
if not told then -- replicas report again
  redis.call('DEL', KEYS[1])
  told = {}
end
for i = 1, #told, 2 do
  local held, til, reported = string.match(told[i + 1], '^(%d+) (%d+) (%d+)$')
  local left = (tonumber(til) or 0) - now
  if left <= 0 or left > lease_ms then -- it expired; or the clock was set back, and its replica will report again
    redis.call('HDEL', KEYS[1], told[i])
  elseif told[i] == replica then
    overtaken = tonumber(reported) > number
  else
    others = others + tonumber(held)
  end
end
if given.LIMIT and others + count > tonumber(given.LIMIT) then return { 0, others } end
if not overtaken then
  redis.call('HSET', KEYS[1], replica, count .. ' ' .. text(now + lease_ms) .. ' ' .. ARGV[4])
  redis.call('PEXPIRE', KEYS[1], ARGV[3])
end
return { 1, others }
