-- What the verbs that settle have in common.
--
-- KEYS: tenant, open, suspended, settled, hold, scopes... ARGV: id, scopes, amounts, how many settled holds to
-- remember, how many more to let gather before they are forgotten.

local OPEN, SUSPENDED, SETTLED, HOLD, FIRST = KEYS[2], KEYS[3], KEYS[4], KEYS[5], 6
local id, scopes_named, amounts_given = ARGV[5], ARGV[6], ARGV[7]
local RETAIN, GATHER = tonumber(ARGV[8]), tonumber(ARGV[9])

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
