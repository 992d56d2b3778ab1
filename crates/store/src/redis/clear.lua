-- Removes dirty ids whose mark still is the given one.
--
-- KEYS  1 dirty ids (sorted set by mark)      ARGV  pairs of id and mark      Answer  ids waiting

for at = 1, #ARGV, 2 do
  local mark = redis.call('ZSCORE', KEYS[1], ARGV[at])
  if mark and tonumber(mark) == tonumber(ARGV[at + 1]) then
    redis.call('ZREM', KEYS[1], ARGV[at])
  end
end
return redis.call('ZCARD', KEYS[1])
