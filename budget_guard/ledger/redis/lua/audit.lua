-- The counters of every scope and the records of every hold, all of the same moment. KEYS: tenant, scopes, open,
-- suspended, settled, then every scope and every hold. ARGV: how many scopes, and the ids of the holds, in this order.

local many = tonumber(ARGV[5])
local named = {}
for i = 6, #ARGV do
  named[ARGV[i]] = true
end
local present = {
  redis.call('ZRANGE', KEYS[3], 0, -1), redis.call('ZRANGE', KEYS[4], 0, -1), redis.call('LRANGE', KEYS[5], 0, -1)
}
if redis.call('SCARD', KEYS[2]) ~= many then
  return answer('again')
end
for _, ids in ipairs(present) do
  for _, id in ipairs(ids) do
    if not named[id] then
      return answer('again')
    end
  end
end
local scopes, holds = {}, {}
for i = 6, 5 + many do
  local names = {'period', 'n'}
  for _, letter in ipairs({'l', 'c', 'a', 'x'}) do
    for d = 0, DIMENSIONS - 1 do
      names[#names + 1] = letter .. d
    end
  end
  scopes[#scopes + 1] = redis.call('HMGET', KEYS[i], unpack(names))
end
for i = 6 + many, #KEYS do
  holds[#holds + 1] = redis.call('HMGET', KEYS[i], 'state', 'scopes', 'amounts', 'periods', 'charged')
end
return answer('audit', scopes, holds)
