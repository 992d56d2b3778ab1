-- Step 2 of the layout: moves pairs of lookup key and id from the sorted set into the hash of holders, unless somebody else
-- holds the key.
--
-- KEYS  1 lookup keys (lex sorted set; member: key as 16 hex digits, then the id)  2 holders (hash; field: key as 8 bytes)
-- ARGV  1 where to begin, as ZRANGE BYLEX takes it  2 pairs at most      Answer  the last pair looked at, or nil: the end

local found = redis.call('ZRANGE', KEYS[1], ARGV[1], '+', 'BYLEX', 'LIMIT', 0, ARGV[2])
for _, pair in ipairs(found) do
  local key = struct.pack('>I4I4', tonumber(string.sub(pair, 1, 8), 16), tonumber(string.sub(pair, 9, 16), 16))
  if redis.call('HSETNX', KEYS[2], key, string.sub(pair, 17)) == 1 then
    redis.call('ZREM', KEYS[1], pair)
  end
end
return found[#found]
