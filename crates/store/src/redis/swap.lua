-- Replaces a document if its version still is the expected one, and changes index entries with it.
--
-- KEYS  1 document (16 hex digits of version, then the body)  2 ids of its kind (lex sorted set)
--       then one index a change
-- ARGV  1 expected version ('' if it must be absent)  2 new document ('' to delete it)  3 its id
--       then for each change: member, time ('' to remove it)
-- Answer  1 done  0 another version is there

if redis.call('GETRANGE', KEYS[1], 0, 15) ~= ARGV[1] then
  return 0
end
-- What a full server refuses comes first: nothing is half done then.
if ARGV[2] ~= '' then
  redis.call('SET', KEYS[1], ARGV[2])
  if ARGV[1] == '' then
    redis.call('ZADD', KEYS[2], 0, ARGV[3])
  end
else
  redis.call('DEL', KEYS[1])
  redis.call('ZREM', KEYS[2], ARGV[3])
end
for change = 3, #KEYS do
  local at = 4 + (change - 3) * 2
  if ARGV[at + 1] ~= '' then
    redis.call('ZADD', KEYS[change], ARGV[at + 1], ARGV[at])
  else
    redis.call('ZREM', KEYS[change], ARGV[at])
  end
end
return 1
