-- Begins a rewrite: empties the keys that the new journal is built under.
-- The caller gets a new fence, so that a record it sent earlier, on another connection,
-- cannot be applied on top of what it writes now.
-- KEYS: 1 fence, 2 new log, 3 new marks, 4 new head
-- ARGV: 1 fence of the caller
-- Returns the caller's new fence, or minus the fence of a younger hub.
local stored = tonumber(redis.call('GET', KEYS[1]) or 0)
local mine = tonumber(ARGV[1])
if stored > mine then
  return -stored
end
redis.call('SET', KEYS[1], mine + 1)
redis.call('DEL', KEYS[2], KEYS[3])
redis.call('SET', KEYS[4], '')
return mine + 1
