-- Moves one circuit to a new state, if nobody moved it since the caller looked.
-- KEYS[1] hash of circuits   ARGV: service, generation seen ("0" = none), state, open time in ms
-- Answer: {1 moved | 0 somebody was first, generation, state, remaining ms}
local now = redis.call('TIME')
local now_ms = now[1] * 1000 + math.floor(now[2] / 1000)
local entry = redis.call('HGET', KEYS[1], ARGV[1])
local generation, state, open_until_ms = 0, 'closed', 0
if entry then
  local found = cjson.decode(entry)
  generation, state, open_until_ms = found.generation, found.state, found.open_until_ms
  if generation ~= tonumber(ARGV[2]) then
    return {0, generation, state, math.max(0, open_until_ms - now_ms)}
  end
end
-- From the clock, so that it also rises after this store has lost its data.
generation = math.max(generation + 1, now_ms, tonumber(ARGV[2]) + 1)
redis.call('HSET', KEYS[1], ARGV[1],
  cjson.encode({generation = generation, state = ARGV[3], open_until_ms = now_ms + tonumber(ARGV[4])}))
return {1, generation, ARGV[3], tonumber(ARGV[4])}
