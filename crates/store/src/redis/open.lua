-- Takes a snapshot for the holder of a lease: creates it if it is missing or damaged, and raises the fence.
--
-- KEYS  all of the snapshot: 1 head (hash)  2 bodies  3 ids  4 tombstones …
-- ARGV  1 fence  2 generation of a new snapshot; 16 hex digits each  then: the fields of the head to answer
-- Answer  {'fenced', fence} | {'open', the fields}

local call = redis.call
local head = KEYS[1]
local stored = call('HMGET', head, 'generation', 'fence', 'count')

-- Two halves of 32 bits: a Lua number loses bits above 2^53, and comparing texts with `<` follows the server's locale.
local function from_hex(text)
  return tonumber(string.sub(text, 1, 8), 16), tonumber(string.sub(text, 9, 16), 16)
end

if stored[2] then
  local f1, f2 = from_hex(ARGV[1])
  local s1, s2 = from_hex(stored[2])
  if s1 > f1 or (s1 == f1 and s2 > f2) then
    return { 'fenced', stored[2] }
  end
end

local count = tonumber(stored[3] or '-1')
if stored[1] and call('ZCARD', KEYS[2]) == count and call('HLEN', KEYS[3]) == count + call('ZCARD', KEYS[4]) then
  call('HSET', head, 'fence', ARGV[1])
else
  -- Nothing, or only a part of what was there: what an evicting or half restored server leaves behind.
  call('UNLINK', unpack(KEYS))
  local zero = string.rep('0', 16)
  call('HSET', head, 'generation', ARGV[2], 'fence', ARGV[1], 'position', zero, 'ready', '0', 'watermark', zero,
    'count', '0', 'progress', '', 'committed', zero, 'fresh', zero)
end
return { 'open', call('HMGET', head, unpack(ARGV, 3)) }
