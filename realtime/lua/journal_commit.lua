-- Ends a rewrite: the new journal takes the place of the old one, at once.
-- KEYS: 1 fence, 2 log, 3 marks, 4 head, 5 new log, 6 new marks, 7 new head
-- ARGV: 1 fence of the caller
-- Returns 0, or -1 if this journal does not know the caller, or the fence of a younger hub.
local fence = tonumber(redis.call('GET', KEYS[1]) or -1)
if fence ~= tonumber(ARGV[1]) then
  return (fence > tonumber(ARGV[1])) and fence or -1
end
for place = 2, 4 do
  if redis.call('EXISTS', KEYS[place + 3]) == 1 then
    redis.call('RENAME', KEYS[place + 3], KEYS[place])
  else
    redis.call('DEL', KEYS[place])
  end
end
return 0
