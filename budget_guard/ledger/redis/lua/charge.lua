-- Book what was spent without a hold. As `settle`.

local scopes, problem = find(FIRST)
if not scopes then
  return problem
end
local known = read_hold(HOLD)
local wrong
if known then
  wrong = another_than(known, 'charge')
else
  wrong = doubt(id)
end
if wrong then
  return wrong
end

if not known then
  begin_history(scopes)
  remember(scopes, 'charge', 'committed', amounts_given)
  redis.call('HSET', HOLD, 'charged', amounts_given)
  local own = {}
  for i, scope in ipairs(scopes) do
    own[i] = scope.period
  end
  move(scopes, own, split(amounts_given), nil, nil, 0)
  note(scopes, own, lines_given, 1)
end
wrote()
return answer('booked', text(version), all_about(scopes), overdue())
