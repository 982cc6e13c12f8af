-- Correct what is committed in one scope by amounts that may be negative. As `settle`.

local scopes, number = find(FIRST)
if not scopes then
  return missing(number)
end
local scope = scopes[1]
local known = read_hold(HOLD)
local wrong
if known then
  wrong = another_than(known, 'adjust')
else
  wrong = doubt(id)
end
if wrong then
  return wrong
end
if not countable(scopes) then
  return answer('uncountable')
end

if not known then
  local change = split(amounts_given)
  local committed = redis.call('HMGET', scope.key, unpack(COMMITTED))
  for d = 1, DIMENSIONS do
    if string.byte(change[d]) == 45 and less(committed[d] or '0', string.sub(change[d], 2)) then
      return answer('below', committed)
    end
  end
  remember(scopes, 'adjust', 'committed', amounts_given)
  redis.call('HSET', HOLD, 'charged', amounts_given)
  move(scopes, {scope.period}, change, nil, nil, 0)
  gave_room()
end
wrote()
return answer('adjusted', redis.call('HMGET', scope.key, unpack(COMMITTED)), overdue())
