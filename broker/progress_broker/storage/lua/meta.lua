-- Returns what all processes that share this Redis must agree on, and sets it at the first start.
--
-- KEYS  1 meta
-- ARGV  1 schema  2 lanes  3 the lanes' hash tags, separated by spaces
-- Reply {schema, lanes, hash tags} as they stand. Of another schema nothing is written.

local schema = redis.call('HGET', KEYS[1], 'schema')
if not schema or schema == ARGV[1] then
  redis.call('HSETNX', KEYS[1], 'schema', ARGV[1])
  redis.call('HSETNX', KEYS[1], 'lanes', ARGV[2])
  redis.call('HSETNX', KEYS[1], 'tags', ARGV[3])
end
return redis.call('HMGET', KEYS[1], 'schema', 'lanes', 'tags')
