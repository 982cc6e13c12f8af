-- Let an open hold expire later. KEYS: tenant, open, suspended, hold. ARGV: id, microseconds from now.

local OPEN, SUSPENDED = KEYS[2], KEYS[3]
local id = ARGV[5]
local hold = read_hold(KEYS[4])
if not hold then
  return doubt(id) or answer('unknown')
end
local wrong = no_hold(hold)
if wrong then
  return wrong
end
if hold.open then
  redis.call('ZADD', OPEN, text(now + ARGV[6]), id)
  redis.call('ZREM', SUSPENDED, id)
  if hold.state == 'suspended' then
    redis.call('HSET', hold.key, 'state', 'forwarded')
  end
end
wrote()
return answer('extended', hold.open and 1 or 0)
