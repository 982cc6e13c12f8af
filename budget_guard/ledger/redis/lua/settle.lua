-- What the verbs that settle have in common.
--
-- KEYS: tenant, open, suspended, settled, hold, scopes... ARGV: id, scopes, amounts, how many settled holds to
-- remember, how many more to let gather before they are forgotten, the lines of the usage history, after how many hours
-- its rows become those of days, and for each scope after how many days one ('-' where it has none).

local OPEN, SUSPENDED, SETTLED, HOLD, FIRST = KEYS[2], KEYS[3], KEYS[4], KEYS[5], 6
local id, scopes_named, amounts_given = ARGV[5], ARGV[6], ARGV[7]
local RETAIN, GATHER = tonumber(ARGV[8]), tonumber(ARGV[9])
local lines_given = ARGV[10]

redis.call('LLEN', SETTLED) -- fails before the first write if it is something else
local many_settled = 0

-- Note that a hold is settled now, or something that never was one. The first write of all.
local function settled(hold)
  if hold then
    redis.call('ZREM', hold.state == 'suspended' and SUSPENDED or OPEN, id)
  end
  many_settled = redis.call('RPUSH', SETTLED, id)
end

-- What is committed in the scopes after the first, each with its limits.
local function spent_above(scopes)
  local all = {}
  for i = 2, #scopes do
    all[i - 1] = redis.call('HMGET', scopes[i].key, 'limited', 'l0', 'l1', 'l2', 'l3', 'l4', 'l5', unpack(COMMITTED))
  end
  return all
end

-- What is left of the dollars in each of the scopes that limit them.
local function cost_left(scopes)
  local all = {}
  for _, scope in ipairs(scopes) do
    if string.byte(scope.limited, 1) == 49 then
      all[#all + 1] = redis.call('HGET', scope.key, AVAILABLE[1])
    end
  end
  return all
end

-- The ids that the caller shall have forgotten now: one caller of as many as are let gather, not all of them at once.
-- None that is within the tolerance: forgotten, it would make stale what others have just made.
local function overdue()
  local old = {}
  local many = many_settled - RETAIN
  if many > 0 and many % GATHER == 0 then
    for i, each in ipairs(redis.call('LRANGE', SETTLED, 0, math.min(many, 200) - 1)) do
      if made_at(each) >= now - TOLERANCE then
        break
      end
      old[i] = each
    end
  end
  return old
end

-- What keeps a record from being the hold that the caller means; nil if nothing does.
local function another_hold(record)
  if record.scopes ~= scopes_named then
    return no_hold(record) or answer('elsewhere', record.scopes)
  end
  return no_hold(record)
end

-- The hold to settle, nil if it is unknown, and its scopes; or, third, what keeps it from being settled.
local function hold_to_settle()
  local hold = read_hold(HOLD)
  local wrong
  if hold then
    wrong = another_hold(hold)
  else
    wrong = doubt(id)
  end
  if wrong then
    return nil, nil, wrong
  end
  local scopes, problem = find(FIRST)
  return hold, scopes, problem
end

-- What keeps a record from being of the same verb with the same parameters; nil if nothing does.
local function another_than(record, verb)
  if record.verb ~= verb then
    return answer('another', record.verb)
  end
  if record.scopes ~= scopes_named or record.amounts ~= amounts_given then
    return answer('conflict', record.scopes, record.amounts)
  end
  return nil
end

-- A record for what is heard of for the first time, by the verb, and holds nothing.
local function remember(scopes, verb, state, amounts)
  redis.call(
    'HSET', HOLD, 'state', state, 'scopes', scopes_named, 'amounts', amounts, 'periods', periods(scopes), 'verb', verb
  )
  settled()
end

-- Add quantities to the row of a scope for labels in an hour.
local function add_row(scope, hour, labels, quantities, days)
  local field = 'h' .. text(hour) .. labels
  local row = redis.call('HGET', scope.key, field)
  if not row then
    local latest = redis.call('HMGET', scope.key, 'hl', 'hm')
    local last, many = tonumber(latest[1] or '-1'), tonumber(latest[2] or '0')
    if hour > last then
      if last >= 0 and math.floor(hour / DAY) > math.floor(last / DAY) then
        roll_up(scope.key, hour, tonumber(ARGV[11]), days)
      end
      last, many = hour, 0
    end
    if (hour == last and many >= MOST_LABELS) or redis.call('HLEN', scope.key) > MOST_ROWS then
      field = 'h' .. text(hour) .. OTHERS
      row = redis.call('HGET', scope.key, field)
    elseif hour == last then
      redis.call('HSET', scope.key, 'hl', text(last), 'hm', text(many + 1))
    end
  end
  redis.call('HSET', scope.key, field, row_with(row, quantities))
end

-- The hour in which the history of a scope has the hold: that in which its id was made, or one of the same window.
local function hour_in(scope, period)
  local hour = math.floor(made_at(id) / 3600000000)
  local from = tonumber(scope.from or '')
  if not from or from % 3600000000 ~= 0 then
    return hour
  end
  local begins = from / 3600000000
  return scope.period == period and math.max(hour, begins) or math.min(hour, begins - 1)
end

-- What was committed before there was a history is one row without labels. Before anything is moved.
local function begin_history(scopes)
  for _, scope in ipairs(scopes) do
    if not scope.from then
      scope.from = scope.period ~= '0' and redis.call('HGET', scope.key, 'starts') or ''
      redis.call('HSET', scope.key, 'from', scope.from)
      local committed = redis.call('HMGET', scope.key, unpack(COMMITTED))
      for d = 1, DIMENSIONS do
        committed[d] = committed[d] or '0'
      end
      local hour = math.floor((tonumber(scope.from) or 0) / 3600000000)
      redis.call('HSET', scope.key, 'h' .. text(hour) .. NO_LABELS, table.concat(committed, ',') .. ',0,0,0,0')
    end
  end
end

-- Put lines into the history of the scopes, or take them out where the sign is -1.
local function note(scopes, periods, lines, sign)
  local days = split(ARGV[12])
  for labels, row in string.gmatch(lines, '([^\t]+)\t([^\n]+)\n') do
    local quantities = split(row)
    for i = 1, #quantities do
      quantities[i] = sign * quantities[i]
    end
    for i, scope in ipairs(scopes) do
      if days[i] ~= '-' then
        add_row(scope, hour_in(scope, periods[i]), labels, quantities, tonumber(days[i]))
      end
    end
  end
end
