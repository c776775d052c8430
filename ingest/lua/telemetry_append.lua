-- Store each reading of a batch once: test and set what it is known by, and append only when that was new.
-- Both happen in one script, so neither a crash nor a second writer can come between them.
--
-- KEYS[1]     the stream
-- KEYS[2]     content keys seen lately
-- KEYS[3]     content keys seen before those
-- KEYS[4..]   bitmap chunks; chunk i of the places is KEYS[i + 3]
-- ARGV[1]     life of what is remembered after its last use, in seconds
-- ARGV[2]     content keys that KEYS[2] holds before it takes the place of KEYS[3]
-- ARGV[3]     places: per reading two numbers of 4 bytes, little-endian. Its chunk and its bit; or 0 and the
--             number of its content key; or 0 and 0: it has no key, store it always
-- ARGV[4]     content keys, 16 bytes each
-- ARGV[5..]   the readings
-- Returns the number of readings stored.
local DIGEST = 16
local stored = 0

local function is_new_content(number)
  local digest = string.sub(ARGV[4], (number - 1) * DIGEST + 1, number * DIGEST)
  if redis.call('SISMEMBER', KEYS[3], digest) == 1 then
    return false
  end
  return redis.call('SADD', KEYS[2], digest) == 1
end

for i = 5, #ARGV do
  local chunk, place = struct.unpack('<I4I4', ARGV[3], (i - 5) * 8 + 1)
  local is_new
  if chunk > 0 then
    is_new = redis.call('SETBIT', KEYS[chunk + 3], place, 1) == 0
  else
    is_new = place == 0 or is_new_content(place)
  end
  if is_new then
    redis.call('XADD', KEYS[1], '*', 'r', ARGV[i])
    stored = stored + 1
  end
end
for i = 4, #KEYS do
  redis.call('EXPIRE', KEYS[i], ARGV[1])
end
if #ARGV[4] > 0 then
  if redis.call('SCARD', KEYS[2]) >= tonumber(ARGV[2]) then
    redis.call('RENAME', KEYS[2], KEYS[3])
  end
  redis.call('EXPIRE', KEYS[2], ARGV[1])
  redis.call('EXPIRE', KEYS[3], ARGV[1])
end
return stored
