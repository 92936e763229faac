-- Give tags new generations, delete entries with their locks, and tell every process.
-- KEYS: tags, entries, locks. ARGV: number of tags, number of entries, a fresh generation, the generations' seconds, channel, message.
local tags, entries = tonumber(ARGV[1]), tonumber(ARGV[2])
for i = 1, tags do
  redis.call('SET', KEYS[i], ARGV[3], 'EX', ARGV[4])
end
for i = tags + 1, tags + 2 * entries do
  redis.call('DEL', KEYS[i])
end
redis.call('PUBLISH', ARGV[5], ARGV[6])
return 1
