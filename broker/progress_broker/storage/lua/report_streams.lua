-- Records how many streams of a principal a replica has. With a limit, the report is rejected if the streams of all
-- replicas would exceed it. A report expires, so the streams of a replica that died are free then.
--
-- KEYS  1 streams of the principal: a hash of replica -> "how many, until when (ms), number of the report"
-- ARGV  replica count lease_ms number [LIMIT n]
--       count      how many streams it has
--       lease_ms   for how long the report counts
--       number     the report's number: a report changes nothing if a later one came before it
--       LIMIT      how many there may be at all replicas together
-- Reply {1 if the report is accepted, else 0; how many the other replicas have}

local given = {}
local at, wrong = read_options(5, { LIMIT = 'number' }, given)
if wrong or ARGV[at] then
  return redis.error_reply(reject_arguments(wrong, at, 'replica count lease_ms number [LIMIT n]')[2])
end
local replica, count, lease_ms, number = ARGV[1], tonumber(ARGV[2]), tonumber(ARGV[3]), tonumber(ARGV[4])

local now = now_ms()
local others, is_late = 0, false
local reports = ask('HGETALL', KEYS[1])
if not reports then -- replicas report again
  redis.call('DEL', KEYS[1])
  reports = {}
end
for i = 1, #reports, 2 do
  local streams, until_ms, report = string.match(reports[i + 1], '^(%d+) (%d+) (%d+)$')
  local left = (tonumber(until_ms) or 0) - now
  if left <= 0 or left > lease_ms then -- it expired; or the clock was set back, and its replica will report again
    redis.call('HDEL', KEYS[1], reports[i])
  elseif reports[i] == replica then
    is_late = tonumber(report) > number
  else
    others = others + tonumber(streams)
  end
end
if given.LIMIT and others + count > tonumber(given.LIMIT) then return { 0, others } end
if not is_late then
  redis.call('HSET', KEYS[1], replica, count .. ' ' .. text(now + lease_ms) .. ' ' .. ARGV[4])
  redis.call('PEXPIRE', KEYS[1], ARGV[3])
end
return { 1, others }
