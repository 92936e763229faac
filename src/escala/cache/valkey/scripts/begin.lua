-- Try to take the right to load one value for all processes.
-- KEYS: lock, entry, tags. ARGV: token, the lock's milliseconds, a fresh generation, the generations' seconds, the entry's field.
-- Returns {1, entry or false, generation of each tag}, or {0, the milliseconds that the holder has left}.
if not redis.call('SET', KEYS[1], ARGV[1], 'NX', 'PX', ARGV[2]) then
  return {0, redis.call('PTTL', KEYS[1])}
end
local found = redis.pcall('HGET', KEYS[2], ARGV[5])
if type(found) ~= 'string' then
  found = false
end
local answer = {1, found}
for i = 3, #KEYS do
  local generation = redis.call('GET', KEYS[i])
  if generation then
    redis.call('EXPIRE', KEYS[i], ARGV[4])
  else
    generation = ARGV[3]
    redis.call('SET', KEYS[i], generation, 'EX', ARGV[4])
  end
  answer[i] = generation
end
return answer
