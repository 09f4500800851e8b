-- Takes, renews or gives up a lease, which one process has at a time.
--
-- KEYS  1 lease: a string, the name of the process that has it
-- ARGV  name FOR ms | name GIVE_UP
-- Reply the name of the process that has the lease now; of GIVE_UP, the one that has or had it

local given = {}
local at, wrong = read_options(2, { FOR = 'number', GIVE_UP = 'flag' }, given)
if not (wrong or ARGV[at]) and not given.FOR == not given.GIVE_UP then wrong = 'FOR or GIVE_UP is needed, not both' end
if wrong or ARGV[at] then
  return redis.error_reply(reject_arguments(wrong, at, 'name FOR ms | name GIVE_UP')[2])
end

local name, holder = ARGV[1], redis.pcall('GET', KEYS[1])
if type(holder) == 'string' and holder ~= name then return holder end -- of another type: another program wrote it
if given.FOR then
  redis.call('SET', KEYS[1], name, 'PX', given.FOR)
else
  redis.call('DEL', KEYS[1])
end
return name
