-- Takes out of a caller's bucket what a replica let it spend, and returns how far from full it is. It rejects nothing: a
-- replica does that, by the last reply.
--
-- KEYS  1 bucket: when it will be full again, in microseconds by this server's clock; absent if it is
-- ARGV  1 what was spent, as the microseconds it takes to fill
--       2 the most microseconds it may lack
-- Reply microseconds until it is full

local time = redis.call('TIME')
local now = tonumber(time[1]) * 1000000 + tonumber(time[2])
local full_at = tonumber(ask('GET', KEYS[1]) or '')
if not full_at or not (full_at > now) then full_at = now end -- also where another program wrote what is no number
local deficit = math.min(full_at - now + tonumber(ARGV[1]), tonumber(ARGV[2]))
if deficit > 0 then
  redis.call('SET', KEYS[1], text(now + deficit), 'PX', math.ceil(deficit / 1000))
end
return math.ceil(deficit)
