-- Hold amounts in every scope if the room fits into every limit.
--
-- KEYS: tenant, open, hold, scopes... ARGV: id, scopes, amounts, room ('' to hold without asking), microseconds to
-- live, whether to suspend, how many due holds to name first, the state to begin in.

local OPEN, HOLD, FIRST = KEYS[2], KEYS[3], 4
local id, scopes_named, amounts_given = ARGV[5], ARGV[6], ARGV[7]

local hold = read_hold(HOLD)
if hold then
  wrote()
  return answer('known', hold.verb, hold.scopes, hold.amounts)
end
local doubtful = doubt(id)
if doubtful then
  return doubtful
end
if made_at(id) < now - TOLERANCE then
  return answer('late', text(now))
end
if fenced then
  return answer('fenced')
end
local due = redis.call('ZRANGEBYSCORE', OPEN, '-inf', text(now), 'LIMIT', 0, ARGV[11])
if #due > 0 then
  return answer('due', due)
end
local scopes, problem = find(FIRST)
if not scopes then
  return problem
end
for i, scope in ipairs(scopes) do
  if scope.revoked then
    return answer('revoked', i, redis.call('HMGET', scope.key, 'revoked', 'revoked_at'))
  end
end
if ARGV[8] ~= '' then
  local room = split(ARGV[8])
  for _, scope in ipairs(scopes) do
    for d = 1, DIMENSIONS do
      if string.byte(scope.limited, d) == 49 and scope[d] < tonumber(room[d]) then
        return answer('refused', text(version), all_about(scopes))
      end
    end
  end
end

local amounts = split(amounts_given)
for _, scope in ipairs(scopes) do
  for d = 1, DIMENSIONS do
    if amounts[d] ~= '0' then
      redis.call('HINCRBY', scope.key, AVAILABLE[d], minus(amounts[d]))
    end
  end
  redis.call('HINCRBY', scope.key, 'n', 1)
end
redis.call(
  'HSET', HOLD, 'state', ARGV[12], 'scopes', scopes_named, 'amounts', amounts_given, 'periods', periods(scopes),
  'suspend', ARGV[10], 'verb', 'reserve'
)
redis.call('ZADD', OPEN, text(now + ARGV[9]), id)
wrote()
return answer('held')
