-- Names of scopes that match a pattern, from a cursor on. KEYS: tenant, scopes. ARGV: cursor, pattern, about how many to
-- look at.

local found = redis.call('SSCAN', KEYS[2], ARGV[5], 'MATCH', ARGV[6], 'COUNT', ARGV[7])
return answer('found', found[1], found[2])
