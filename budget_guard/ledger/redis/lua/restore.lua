-- Take a revocation back. KEYS: tenant, scope.

local restored = redis.call('HDEL', KEYS[2], 'revoked', 'revoked_at') > 0 and 1 or 0
wrote()
return answer('restored', restored)
