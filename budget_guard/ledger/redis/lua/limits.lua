-- Set the ceilings of a scope, and open it if it is new. KEYS: tenant, scopes, scope. ARGV: its name, owner, window,
-- which dimensions are limited ('100010'), limits ('0' where there is none), a
-- text to keep with it.

local SCOPE = KEYS[3]
local name, owner, window, limited, limits, note = ARGV[5], ARGV[6], ARGV[7], ARGV[8], split(ARGV[9]), ARGV[10]
if is_lost(KEYS[2], SCOPE, name) then
  fence()
  return answer('lost', 1)
end
local before = redis.call('HMGET', SCOPE, 'owner', 'window', 'l0', 'l1', 'l2', 'l3', 'l4', 'l5')
if before[1] and before[1] ~= owner then
  return answer('foreign')
end
local scope = {}
if before[2] then
  local scopes, problem = find(3, 3)
  if not scopes then
    return problem
  end
  scope = scopes[1]
end

made(KEYS[2], name)
redis.call('HSET', SCOPE, 'owner', owner, 'limited', limited, 'note', note)
redis.call('HSETNX', SCOPE, 'period', '0')
if not before[2] then
  redis.call('HSET', SCOPE, 'from', '')
end
if before[2] ~= window then
  local start, finish = window_now(window)
  redis.call('HSET', SCOPE, 'window', window, 'starts', start, 'ends', finish)
end
for d = 1, DIMENSIONS do
  local old = before[d + 2] or '0'
  -- in the order that stays nearer to nothing
  if (scope[d] or 0) < 0 then
    redis.call('HINCRBY', SCOPE, AVAILABLE[d], limits[d])
    redis.call('HINCRBY', SCOPE, AVAILABLE[d], minus(old))
  else
    redis.call('HINCRBY', SCOPE, AVAILABLE[d], minus(old))
    redis.call('HINCRBY', SCOPE, AVAILABLE[d], limits[d])
  end
  redis.call('HSET', SCOPE, 'l' .. d - 1, limits[d])
end
wrote(true)
return answer('set')
