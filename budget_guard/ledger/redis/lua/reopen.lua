-- Admit again after the store lost its tail. KEYS: tenant, scopes. ARGV: the generation that is known at least.

local next = math.max(generation(epoch), generation(fenced), generation(ARGV[2])) + 1
epoch = text(next) .. '-' .. ARGV[4]
redis.call('HSET', KEYS[1], 'epoch', epoch, 'scopes', redis.call('SCARD', KEYS[2]))
redis.call('HDEL', KEYS[1], 'fenced')
fenced = nil
return answer('reopened')
