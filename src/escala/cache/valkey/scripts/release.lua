-- Give a lock back without a value, and tell those that wait. KEYS: lock. ARGV: token, channel, message.
if redis.call('GET', KEYS[1]) == ARGV[1] then
  redis.call('DEL', KEYS[1])
  redis.call('PUBLISH', ARGV[2], ARGV[3])
  return 1
end
return 0
