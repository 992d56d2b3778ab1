-- The head of a snapshot that is whole. A script, because the counts must be of one moment, and a full server refuses
-- every command of a transaction, also those that only read.
--
-- KEYS  1 head (hash)  2 bodies  3 ids  4 tombstones …      ARGV  the fields to answer
-- Answer  the fields, or nil: there is no snapshot, or a part of it is gone

local count = tonumber(redis.call('HGET', KEYS[1], 'count') or '-1')
if redis.call('ZCARD', KEYS[2]) ~= count or redis.call('HLEN', KEYS[3]) ~= count + redis.call('ZCARD', KEYS[4]) then
  return false
end
return redis.call('HMGET', KEYS[1], unpack(ARGV))
