-- Records how many streams of a principal a replica has. With a limit, the report is rejected if the streams of all
-- replicas would exceed it. A report expires, so the streams of a replica that died are free then.
--
-- KEYS  1 streams of the principal: a hash of replica -> "how many, until when (ms), number of the report",
--         and of replica:lease -> for how long that report counts
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
local others, is_late, lasts_ms = 0, false, lease_ms
local found = ask('HGETALL', KEYS[1])
if not found then -- replicas report again
  redis.call('DEL', KEYS[1])
  found = {}
end
local reports, leases = {}, {}
for i = 1, #found, 2 do
  local of = string.match(found[i], '^(.*):lease$')
  if of then leases[of] = tonumber(found[i + 1]) else reports[found[i]] = found[i + 1] end
end
for of in pairs(leases) do reports[of] = reports[of] or '' end
for name, report in pairs(reports) do
  local streams, until_ms, report_number = string.match(report, '^(%d+) (%d+) (%d+)$')
  local left = (tonumber(until_ms) or 0) - now
  -- It expired; or the clock was set back, and its replica will report again. Each replica has its own lease.
  if left <= 0 or left > (leases[name] or lease_ms) then
    redis.call('HDEL', KEYS[1], name, name .. ':lease')
  elseif name == replica then
    is_late = tonumber(report_number) > number
  else
    others, lasts_ms = others + tonumber(streams), math.max(lasts_ms, left)
  end
end
if given.LIMIT and others + count > tonumber(given.LIMIT) then return { 0, others } end
if not is_late then
  redis.call('HSET', KEYS[1], replica, count .. ' ' .. text(now + lease_ms) .. ' ' .. ARGV[4],
    replica .. ':lease', ARGV[3])
  redis.call('PEXPIRE', KEYS[1], text(lasts_ms))
end
return { 1, others }
