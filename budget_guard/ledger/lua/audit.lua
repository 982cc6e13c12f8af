-- The counters of every scope and the records of every hold, all of the same moment. KEYS: tenant, scopes, open, suspended,
-- settled, then every scope and every hold. ARGV: how many scopes there are, and the ids of the holds, in the same order.

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
  scopes[#scopes + 1] = redis.call('HMGET', KEYS[i], 'period', 'n', unpack(ABOUT, 7))
  for d = 1, DIMENSIONS do
    local last = scopes[#scopes]
    last[#last + 1] = redis.call('HGET', KEYS[i], ARCHIVED[d])
  end
end
for i = 6 + many, #KEYS do
  holds[#holds + 1] = redis.call('HMGET', KEYS[i], 'state', 'scopes', 'amounts', 'periods', 'charged')
end
return answer('audit', scopes, holds)
