-- The names of every scope and every hold. KEYS: tenant, scopes, open, suspended, settled.

return answer(
  'names', redis.call('SMEMBERS', KEYS[2]), redis.call('ZRANGE', KEYS[3], 0, -1), redis.call('ZRANGE', KEYS[4], 0, -1),
  redis.call('LRANGE', KEYS[5], 0, -1)
)
