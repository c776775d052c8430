-- Store each reading of a batch once: test and set its bit, and append only when the bit was clear.
-- Both happen in one script, so neither a crash nor a second writer can come between them.
--
-- KEYS[1]     the stream
-- KEYS[2..]   bitmap chunks; chunk i of the places is KEYS[i + 1]
-- ARGV[1]     life of a chunk after its last use, in seconds
-- ARGV[2]     places: per reading its chunk (0: it has no key, store it always) and its bit, each 4 bytes, little-endian
-- ARGV[3..]   the readings
-- Returns the number of readings stored.
local stored = 0
for i = 3, #ARGV do
  local chunk, bit = struct.unpack('<I4I4', ARGV[2], (i - 3) * 8 + 1)
  if chunk == 0 or redis.call('SETBIT', KEYS[chunk + 1], bit, 1) == 0 then
    redis.call('XADD', KEYS[1], '*', 'r', ARGV[i])
    stored = stored + 1
  end
end
for i = 2, #KEYS do
  redis.call('EXPIRE', KEYS[i], ARGV[1])
end
return stored
