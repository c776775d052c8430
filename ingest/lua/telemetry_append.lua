-- Store each reading of a batch once: test and set its bit, and append only when the bit was clear.
-- Both happen in one script, so neither a crash nor a second writer can come between them.
--
-- KEYS[1]     the stream
-- KEYS[2..]   bitmap chunks; chunk i of the arguments is KEYS[i + 1]
-- ARGV[1]     life of a chunk after its last use, in seconds
-- ARGV[2..]   per reading: chunk (0: the reading has no key, store it always), bit, data
-- Returns the number of readings stored.
local stored = 0
for i = 2, #ARGV, 3 do
  local chunk = tonumber(ARGV[i])
  if chunk == 0 or redis.call('SETBIT', KEYS[chunk + 1], ARGV[i + 1], 1) == 0 then
    redis.call('XADD', KEYS[1], '*', 'r', ARGV[i + 2])
    stored = stored + 1
  end
end
for i = 2, #KEYS do
  redis.call('EXPIRE', KEYS[i], ARGV[1])
end
return stored
