-- Writes rows and removals into a snapshot: the same rule as `judge`, `judge_removal` and `tombstone` in
-- contacts::record, which the behaviour suite compares.
--
-- KEYS  1 head (hash)  2 bodies (lex sorted set)  3 ids (hash)  4 lookup keys (lex sorted set)  5 tombstones (same)
-- ARGV  1 fence, 16 hex digits  2 number of rows  3 number of removals  4 number of arguments of head changes
--       then the head changes (field, value), the rows (id, version, indexed, content, keys) and the removals
--       (id, version)
--       version: updated and observed, of a row also the hash; content: `updated` as 16 hex digits and the JSON;
--       keys: the lookup keys. Numbers in them are 8 bytes, high byte first.
-- Answer  {'lost'} | {'fenced', fence} | {'done', written, same, stale, removed, position}
--
-- Numbers of 64 bits are handled as two halves of 32: a Lua number loses bits above 2^53, and comparing texts with `<`
-- follows the server's locale.

local head, bodies, ids, lookups, stones = KEYS[1], KEYS[2], KEYS[3], KEYS[4], KEYS[5]
local call, unpack_bytes = redis.call, struct.unpack

local function from_hex(text)
  return tonumber(string.sub(text, 1, 8), 16), tonumber(string.sub(text, 9, 16), 16)
end

local function hex(bytes, at)
  return string.format('%08x%08x', unpack_bytes('>I4I4', bytes, at))
end

local function later(a1, a2, b1, b2)
  return a1 > b1 or (a1 == b1 and a2 > b2)
end

local stored = call('HMGET', head, 'generation', 'fence', 'position', 'count')
if not stored[1] then
  return { 'lost' }
end
local count = tonumber(stored[4])
if call('ZCARD', bodies) ~= count or call('HLEN', ids) ~= count + call('ZCARD', stones) then
  return { 'lost' }
end
local f1, f2 = from_hex(ARGV[1])
local s1, s2 = from_hex(stored[2])
if later(s1, s2, f1, f2) then
  return { 'fenced', stored[2] }
end
-- The first write is one that a full server refuses. After it the script runs to its end.
call('HSET', head, 'fence', ARGV[1])

local time = call('TIME')
local micros = time[1] * 1000000 + time[2]
local t1 = math.floor(micros / 4294967296)
local t2 = micros - t1 * 4294967296
local p1, p2 = from_hex(stored[3])

local function next_position()
  p2 = p2 + 1
  if p2 == 4294967296 then
    p1, p2 = p1 + 1, 0
  end
  if later(t1, t2, p1, p2) then
    p1, p2 = t1, t2
  end
  return struct.pack('>I4I4', p1, p2), string.format('%08x%08x', p1, p2)
end

-- A known id is stored as position, updated, observed, hash and lookup keys, 8 bytes each. Position 0: a tombstone.
local NOWHERE = string.rep('\0', 8)

local function is_stone(known)
  return string.sub(known, 1, 8) == NOWHERE
end

-- A call costs more than what it does, so ids are read all at once, and what is put in is gathered. Only if an id comes
-- twice does the order matter: what was gathered of it is put in first.
local MANY = 1000 -- arguments of a call; Lua can pass almost 8000

local known_of, gathered = {}, {}
local new_bodies, new_ids, new_lookups = {}, {}, {}

local function flush()
  if #new_bodies > 0 then
    call('ZADD', bodies, unpack(new_bodies))
    new_bodies = {}
  end
  if #new_ids > 0 then
    call('HSET', ids, unpack(new_ids))
    new_ids = {}
  end
  if #new_lookups > 0 then
    call('ZADD', lookups, unpack(new_lookups))
    new_lookups = {}
  end
end

local function gather(list, one, other)
  list[#list + 1] = one
  list[#list + 1] = other
  if #list >= MANY then
    flush()
  end
end

local function recall(id)
  if gathered[id] then
    flush()
  end
  return known_of[id]
end

local function remember(id, known)
  known_of[id], gathered[id] = known, true
  gather(new_ids, id, known)
end

local function forget_body(position)
  call('ZREMRANGEBYLEX', bodies, '[' .. position, '(' .. position .. 'g')
end

local function forget_lookups(id, keys)
  for at = 1, #keys, 8 do
    call('ZREM', lookups, hex(keys, at) .. id)
  end
end

local written, same, stale, removed = 0, 0, 0, 0

local function write(id, version, indexed, content, keys)
  local known = recall(id)
  local known_keys = ''
  if known then
    local u1, u2, o1, o2 = unpack_bytes('>I4I4I4I4', version)
    local ku1, ku2, ko1, ko2 = unpack_bytes('>I4I4I4I4', known, 9)
    if is_stone(known) then
      if not later(o1, o2, ko1, ko2) or (indexed == '1' and not later(u1, u2, ku1, ku2)) then
        stale = stale + 1
        return
      end
      call('ZREM', stones, hex(known, 17) .. id)
    else
      local same_time = u1 == ku1 and u2 == ku2
      if not (later(u1, u2, ku1, ku2) or (same_time and later(o1, o2, ko1, ko2))) then
        stale = stale + 1
        return
      end
      local position = hex(known, 1)
      known_keys = string.sub(known, 33)
      if string.sub(version, 17, 24) == string.sub(known, 25, 32) then
        same = same + 1
        if not same_time then
          forget_body(position)
          gather(new_bodies, 0, position .. content)
        end
        remember(id, string.sub(known, 1, 8) .. version .. known_keys)
        return
      end
      forget_body(position)
      count = count - 1
    end
  end
  if known_keys ~= keys then
    forget_lookups(id, known_keys)
    for at = 1, #keys, 8 do
      gather(new_lookups, 0, hex(keys, at) .. id)
    end
  end
  local packed, text = next_position()
  gather(new_bodies, 0, text .. content)
  remember(id, packed .. version .. keys)
  count = count + 1
  written = written + 1
end

local function remove(id, version)
  local known = recall(id)
  local u1, u2, o1, o2 = unpack_bytes('>I4I4I4I4', version)
  if known then
    local ku1, ku2, ko1, ko2 = unpack_bytes('>I4I4I4I4', known, 9)
    local seen_later = later(o1, o2, ko1, ko2)
    local effective = seen_later
    if not is_stone(known) and (u1 > 0 or u2 > 0) then
      effective = later(u1, u2, ku1, ku2) or (u1 == ku1 and u2 == ku2 and seen_later)
    end
    if not effective then
      stale = stale + 1
      return
    end
    if is_stone(known) then
      call('ZREM', stones, hex(known, 17) .. id)
    else
      forget_body(hex(known, 1))
      forget_lookups(id, string.sub(known, 33))
      count = count - 1
      removed = removed + 1
    end
    if later(ku1, ku2, u1, u2) then
      u1, u2 = ku1, ku2
    end
    if later(ko1, ko2, o1, o2) then
      o1, o2 = ko1, ko2
    end
  end
  local stone = NOWHERE .. struct.pack('>I4I4I4I4', u1, u2, o1, o2) .. NOWHERE
  remember(id, stone)
  call('ZADD', stones, 0, hex(stone, 17) .. id)
end

local rows, removals, changes = tonumber(ARGV[2]), tonumber(ARGV[3]), tonumber(ARGV[4])
local first = 5 + changes
local asked = {}
for at = first, first + 5 * (rows - 1), 5 do
  asked[#asked + 1] = ARGV[at]
end
for at = first + 5 * rows, first + 5 * rows + 2 * (removals - 1), 2 do
  asked[#asked + 1] = ARGV[at]
end
for from = 1, #asked, MANY do
  local to = math.min(from + MANY - 1, #asked)
  for at, known in ipairs(call('HMGET', ids, unpack(asked, from, to))) do
    known_of[asked[from + at - 1]] = known
  end
end
local at = first
for _ = 1, rows do
  write(ARGV[at], ARGV[at + 1], ARGV[at + 2], ARGV[at + 3], ARGV[at + 4])
  at = at + 5
end
for _ = 1, removals do
  remove(ARGV[at], ARGV[at + 1])
  at = at + 2
end
flush()

local position = string.format('%08x%08x', p1, p2)
call('HSET', head, 'position', position, 'count', string.format('%.0f', count),
  'committed', string.format('%08x%08x', t1, t2), unpack(ARGV, 5, 4 + changes))
return { 'done', written, same, stale, removed, position }
