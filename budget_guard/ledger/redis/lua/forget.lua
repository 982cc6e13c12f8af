-- Forget the oldest settled holds, and fold what they were charged into their scopes. KEYS: tenant, settled, then every
-- hold, followed by its scopes. ARGV: for every hold its id and the number of its scopes.

local SETTLED = KEYS[2]

local function fold(hold, scopes)
  local charged = split(hold.charged)
  for i, scope in ipairs(scopes) do
    if scope.period == hold.periods[i] then
      for d = 1, DIMENSIONS do
        if charged[d] ~= '0' then
          redis.call('HINCRBY', scope.key, 'x' .. d - 1, charged[d])
        end
      end
    end
  end
end

local at = 3
for argument = 5, #ARGV, 2 do
  local id, many = ARGV[argument], tonumber(ARGV[argument + 1])
  if redis.call('LINDEX', SETTLED, 0) == id then -- else somebody was faster
    local hold, scopes = read_hold(KEYS[at]), find(at + 1, at + many)
    redis.call('LPOP', SETTLED)
    redis.call('DEL', KEYS[at])
    forgotten = math.max(forgotten, made_at(id) / 1000)
    if hold and hold.charged and scopes then
      fold(hold, scopes)
    end
  end
  at = at + 1 + many
end
redis.call('HSET', KEYS[1], 'forgotten', text(forgotten))
wrote()
return answer('forgotten')
