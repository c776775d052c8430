-- Gives one process the probe of an open circuit whose open time is over.
-- KEYS[1] hash of circuits, KEYS[2] key of the lease   ARGV: service, generation seen, token, lease in ms
-- Answer: {1 granted | 0 refused, JSON of the circuit; '' = unknown here}
local now = redis.call('TIME')
local now_ms = now[1] * 1000 + math.floor(now[2] / 1000)
local entry = redis.call('HGET', KEYS[1], ARGV[1])
local told = ''
if entry then
  local found = cjson.decode(entry)
  found.remaining_ms = math.max(0, found.open_until_ms - now_ms)
  told = cjson.encode(found)
  if found.generation ~= tonumber(ARGV[2]) then
    return {0, told}
  end
end
local granted = redis.call('SET', KEYS[2], ARGV[3], 'NX', 'PX', ARGV[4])
return {granted and 1 or 0, told}
