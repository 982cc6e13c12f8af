-- The ids of suspended holds and when they were, oldest first. KEYS: tenant, suspended. ARGV: how many at most.

return answer('suspended', redis.call('ZRANGE', KEYS[2], 0, ARGV[5] - 1, 'WITHSCORES'))
