-- Read an entry whose tags are stored with it. KEYS: entry. ARGV: prefix of keys, field.
-- Returns {the entry, the tags' names as a JSON list, generation of each tag}, or {false, false}.
-- The tags' keys are not declared as KEYS: they have the entry's hash tag, so they are on the same server.
local found = redis.pcall('HMGET', KEYS[1], ARGV[2], 'tags ' .. ARGV[2])
if found.err or not found[1] or not found[2] then
  return {false, false}
end
for _, name in ipairs(cjson.decode(found[2])) do
  found[#found + 1] = redis.call('GET', ARGV[1] .. name)
end
return found
