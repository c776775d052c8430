-- Begins a rewrite: empties the keys that the new journal is built under.
-- KEYS: 1 fence, 2 new log, 3 new marks, 4 new head
-- ARGV: 1 fence of the caller
-- Returns 0, or the fence of a younger hub.
local fence = tonumber(redis.call('GET', KEYS[1]) or -1)
if fence > tonumber(ARGV[1]) then
  return fence
end
redis.call('SET', KEYS[1], ARGV[1])
redis.call('DEL', KEYS[2], KEYS[3])
redis.call('SET', KEYS[4], '')
return 0
