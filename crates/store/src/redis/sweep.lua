-- Forgets tombstones last touched before a time, the oldest first.
--
-- KEYS  1 ids (hash)  2 tombstones (lex sorted set; member: time as 16 hex digits, then the id)
-- ARGV  1 the time, 16 hex digits  2 how many at most      Answer  how many

local found = redis.call('ZRANGE', KEYS[2], '-', '(' .. ARGV[1], 'BYLEX', 'LIMIT', 0, ARGV[2])
for _, member in ipairs(found) do
  redis.call('ZREM', KEYS[2], member)
  redis.call('HDEL', KEYS[1], string.sub(member, 17))
end
return #found
