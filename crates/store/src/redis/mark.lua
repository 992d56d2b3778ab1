-- Marks ids dirty. Every mark is a number that was not used before: the last one and one, or the server's clock, so
-- that it grows even over a loss of the last one.
--
-- KEYS  1 dirty ids (sorted set by mark)  2 the last mark      ARGV  1 ids at most  2... ids
-- Answer  {ids waiting, 1 if some did not fit}
-- Microseconds stay below 2^53, so a Lua number holds them exactly; `..` would round them.

local call = redis.call
local waiting, limit, overflow = call('ZCARD', KEYS[1]), tonumber(ARGV[1]), 0
local time = call('TIME')
local last = math.max(tonumber(call('GET', KEYS[2]) or '0') + 1, time[1] * 1000000 + time[2])
-- Reserved as a whole, and first: a full server refuses this and thereby all.
call('SET', KEYS[2], string.format('%.0f', last + #ARGV))
for at = 2, #ARGV do
  local new = not call('ZSCORE', KEYS[1], ARGV[at])
  if new and waiting >= limit then
    overflow = 1
  else
    if new then
      waiting = waiting + 1
    end
    last = last + 1
    call('ZADD', KEYS[1], string.format('%.0f', last), ARGV[at])
  end
end
return { waiting, overflow }
