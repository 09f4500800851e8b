-- Sets fields of a hash: the retention, limits of a principal, or what tells replicas that something has changed. A Redis
-- that is full stores it all the same.
--
-- KEYS  1 the hash
-- ARGV  field value [field value]…
-- Reply {'ok'}

frees = KEYS[1]
write('HSET', KEYS[1], unpack(ARGV))
return { 'ok' }
