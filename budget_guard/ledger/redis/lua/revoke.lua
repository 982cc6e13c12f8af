-- Refuse every further hold in a scope, which is opened if it is new. KEYS: tenant, scopes, scope. ARGV: its name,
-- reason.

if is_lost(KEYS[2], KEYS[3], ARGV[5]) then
  fence()
  return answer('lost', 1)
end
made(KEYS[2], ARGV[5])
if redis.call('HEXISTS', KEYS[3], 'limited') == 0 then
  redis.call(
    'HSET', KEYS[3], 'limited', '000000', 'window', 'none', 'period', '0', 'starts', '', 'ends', '', 'from', ''
  )
end
if redis.call('HSETNX', KEYS[3], 'revoked', ARGV[6]) == 1 then
  redis.call('HSET', KEYS[3], 'revoked_at', text(now))
end
wrote(true) -- whoever waits shall hear of it
return answer('revoked')
