-- The ids of holds whose time is up, first come first. KEYS: tenant, open. ARGV: how many at most.

return answer('due', redis.call('ZRANGEBYSCORE', KEYS[2], '-inf', text(now), 'LIMIT', 0, ARGV[5]))
