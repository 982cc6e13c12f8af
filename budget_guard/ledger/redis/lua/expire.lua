-- Expire holds whose time is up. KEYS: tenant, open, suspended, settled, then every hold, followed by its scopes.
-- ARGV: for every hold its id and the number of its scopes.

local OPEN, SUSPENDED, SETTLED = KEYS[2], KEYS[3], KEYS[4]
local expired, freed, at = 0, false, 5
for argument = 5, #ARGV, 2 do
  local id, many = ARGV[argument], tonumber(ARGV[argument + 1])
  local hold = read_hold(KEYS[at])
  local scopes = find(at + 1, at + many)
  at = at + 1 + many
  local expires = redis.call('ZSCORE', OPEN, id)
  if hold and expires and tonumber(expires) <= now and scopes then
    expired = expired + 1
    redis.call('ZREM', OPEN, id)
    if hold.state == 'forwarded' and hold.suspend then
      redis.call('HSET', hold.key, 'state', 'suspended')
      redis.call('ZADD', SUSPENDED, text(now), id)
    else
      redis.call('HSET', hold.key, 'state', 'expired')
      redis.call('RPUSH', SETTLED, id)
      move(scopes, hold.periods, nil, nil, split(hold.amounts), -1)
      freed = true
    end
  end
end
wrote(freed)
return answer('expired', expired)
