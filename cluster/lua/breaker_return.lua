-- Gives a lease back, unless it has expired and belongs to somebody else.
-- KEYS[1] key of the lease   ARGV: token
if redis.call('GET', KEYS[1]) == ARGV[1] then
  return redis.call('DEL', KEYS[1])
end
return 0
