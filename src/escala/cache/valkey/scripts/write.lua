-- Write an entry. With a token: only while the lock holds it, which is given back. Without: whatever is in progress,
-- and other versions' values of this entry go.
-- KEYS: lock, entry, tags. ARGV: token or '', field, expiry, body, milliseconds to live, a fresh generation, the
-- generations' seconds, the tags' names as a JSON list or '', and the generations of the tags before the load (without a
-- token: none).
-- Returns 1, or 0 if the lock is not held.
local token = ARGV[1]
if token ~= '' then
  if redis.call('GET', KEYS[1]) ~= token then
    return 0
  end
else
  redis.call('DEL', KEYS[2])
end
redis.call('DEL', KEYS[1])
local generations = {}
for i = 3, #KEYS do
  local generation = ARGV[6 + i]
  if not generation then
    generation = redis.call('GET', KEYS[i])
  end
  if generation then
    redis.call('EXPIRE', KEYS[i], ARGV[7])
  else
    generation = ARGV[6]
    redis.call('SET', KEYS[i], generation, 'EX', ARGV[7])
  end
  generations[i - 2] = generation
end
local value = ARGV[3] .. table.concat(generations) .. ARGV[4]
if type(redis.pcall('HSET', KEYS[2], ARGV[2], value)) == 'table' then
  redis.call('DEL', KEYS[2])
  redis.call('HSET', KEYS[2], ARGV[2], value)
end
if ARGV[8] ~= '' then
  redis.call('HSET', KEYS[2], 'tags ' .. ARGV[2], ARGV[8])
end
if redis.call('PTTL', KEYS[2]) < tonumber(ARGV[5]) then
  redis.call('PEXPIRE', KEYS[2], ARGV[5])
end
return 1
