-- Give the whole hold back, unspent. As `settle`.

local hold, scopes, problem = hold_to_settle()
if problem then
  return problem
end

local released = 0
if not hold then
  -- keeps its own reserve, which comes later, from holding anything
  remember(scopes, 'release', 'released', '0,0,0,0,0,0')
elseif hold.open then
  released = 1
  settled(hold)
  move(scopes, hold.periods, nil, nil, split(hold.amounts), -1)
  redis.call('HSET', HOLD, 'state', 'released')
end
wrote(released == 1)
return answer('released', released, overdue())
