-- The JSON of living records by id. A script, because a record may move between finding its position and reading it.
--
-- KEYS  1 bodies (lex sorted set)  2 ids (hash)      ARGV  ids      Answer  JSON or nil, in that order

local answer = {}
for at, id in ipairs(ARGV) do
  local known = redis.call('HGET', KEYS[2], id)
  answer[at] = false
  if known then
    local position = string.format('%08x%08x', struct.unpack('>I4I4', known))
    local found = redis.call('ZRANGE', KEYS[1], '[' .. position, '(' .. position .. 'g', 'BYLEX', 'LIMIT', 0, 1)
    if found[1] then
      answer[at] = string.sub(found[1], 33)
    end
  end
end
return answer
