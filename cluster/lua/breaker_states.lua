-- Reads all circuits by the store's own clock.
-- KEYS[1] hash of circuits   Answer: {service, JSON of the circuit, service, ...}
local now = redis.call('TIME')
local now_ms = now[1] * 1000 + math.floor(now[2] / 1000)
local answer = {}
local entries = redis.call('HGETALL', KEYS[1])
for i = 1, #entries, 2 do
  local found = cjson.decode(entries[i + 1])
  found.remaining_ms = math.max(0, found.open_until_ms - now_ms)
  answer[#answer + 1] = entries[i]
  answer[#answer + 1] = cjson.encode(found)
end
return answer
