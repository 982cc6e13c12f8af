-- Note that the call was sent. KEYS: tenant, hold. ARGV: id.

local hold = read_hold(KEYS[2])
if not hold then
  return doubt(ARGV[5]) or answer('unknown')
end
local wrong = no_hold(hold)
if wrong then
  return wrong
end
if hold.state == 'expired' or hold.state == 'released' then
  return answer('over', hold.state)
end
if hold.state == 'reserved' then
  redis.call('HSET', hold.key, 'state', 'forwarded')
end
wrote()
return answer('forwarded')
