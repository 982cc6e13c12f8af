-- The records of holds. KEYS: tenant, holds...

local found = {}
for i = 2, #KEYS do
  found[i - 1] = redis.call('HMGET', KEYS[i], 'state', 'scopes', 'amounts', 'periods', 'charged')
end
return answer('holds', found)
