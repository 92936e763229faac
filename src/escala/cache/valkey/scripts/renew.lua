-- Keep a lock for longer. KEYS: lock. ARGV: token, milliseconds. Returns 1, or 0 if the lock is not held.
if redis.call('GET', KEYS[1]) == ARGV[1] then
  return redis.call('PEXPIRE', KEYS[1], ARGV[2])
end
return 0
