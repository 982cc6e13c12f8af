-- Forget the names of scopes whose counters are lost. KEYS: tenant, scopes, then scopes. ARGV: their names.

for i = 3, #KEYS do
  if redis.call('EXISTS', KEYS[i]) == 0 then
    redis.call('SREM', KEYS[2], ARGV[i + 2])
  end
end
wrote()
return answer('dropped')
