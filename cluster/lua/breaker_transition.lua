-- Moves one circuit to a new state, if nobody moved it since the caller looked.
-- An operator's word counts in any case: it is about the service, not about what the caller had seen.
-- KEYS[1] hash of circuits
-- ARGV: service, generation seen ("0" = none), state, open time in ms, cause, author, reason
-- Answer: {1 moved | 0 somebody was first, JSON of the circuit}
local now = redis.call('TIME')
local now_ms = now[1] * 1000 + math.floor(now[2] / 1000)
local entry = redis.call('HGET', KEYS[1], ARGV[1])
local generation = 0
if entry then
  local found = cjson.decode(entry)
  generation = found.generation
  if generation ~= tonumber(ARGV[2]) and ARGV[5] ~= 'forced' and ARGV[5] ~= 'reset' then
    found.remaining_ms = math.max(0, found.open_until_ms - now_ms)
    return {0, cjson.encode(found)}
  end
end
local moved = {
  -- From the clock, so that it also rises after this store has lost its data.
  generation = math.max(generation + 1, now_ms, tonumber(ARGV[2]) + 1),
  state = ARGV[3], open_until_ms = now_ms + tonumber(ARGV[4]), remaining_ms = tonumber(ARGV[4]),
  cause = ARGV[5], author = ARGV[6], reason = ARGV[7],
}
local told = cjson.encode(moved)
redis.call('HSET', KEYS[1], ARGV[1], told)
return {1, told}
