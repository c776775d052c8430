-- Stores one record of the hub: its publications, the marks of their channels, the log's mark.
-- KEYS: 1 fence, 2 log (a stream), 3 marks (a hash), 4 head (the log's mark, a string)
-- ARGV: 1 fence of the caller, 2 head, 3 id of the record in the log,
--       4 smallest id to keep, 5 number of forgotten channels, 6 number of marks;
--       then the forgotten channels, then channel and mark in turn, then header and payload in turn.
-- Returns 0, or -1 if this journal does not know the caller or holds nothing to add to, or the
-- fence of a younger hub.
local fence = tonumber(redis.call('GET', KEYS[1]) or -1)
if fence ~= tonumber(ARGV[1]) then
  return (fence > tonumber(ARGV[1])) and fence or -1
end
if redis.call('EXISTS', KEYS[4]) == 0 then
  return -1
end
local place = 7
for _ = 1, tonumber(ARGV[5]) do
  redis.call('HDEL', KEYS[3], ARGV[place])
  place = place + 1
end
for _ = 1, tonumber(ARGV[6]) do
  redis.call('HSET', KEYS[3], ARGV[place], ARGV[place + 1])
  place = place + 2
end
if place <= #ARGV then
  redis.call('XADD', KEYS[2], ARGV[3], unpack(ARGV, place))
end
redis.call('XTRIM', KEYS[2], 'MINID', ARGV[4])
redis.call('SET', KEYS[4], ARGV[2])
return 0
