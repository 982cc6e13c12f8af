-- Correct what is committed in one scope by amounts that may be negative. As `settle`.

local scopes, problem = find(FIRST)
if not scopes then
  return problem
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

if not known then
  local change = split(amounts_given)
  local committed = redis.call('HMGET', scope.key, unpack(COMMITTED))
  for d = 1, DIMENSIONS do
    if tonumber(committed[d] or '0') < -change[d] then
      return answer('below', committed)
    end
  end
  begin_history(scopes)
  remember(scopes, 'adjust', 'committed', amounts_given)
  redis.call('HSET', HOLD, 'charged', amounts_given)
  move(scopes, {scope.period}, change, nil, nil, 0)
  note(scopes, {scope.period}, lines_given, 1)
end
wrote(not known)
return answer('adjusted', redis.call('HMGET', scope.key, unpack(COMMITTED)), overdue())
