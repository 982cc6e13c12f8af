-- What the verbs that settle have in common.
--
-- KEYS: tenant, open, suspended, settled, hold, scopes... ARGV: id, scopes, amounts, how many settled holds to remember,
-- how many more to let gather before they are forgotten.

local OPEN, SUSPENDED, SETTLED, HOLD, FIRST = KEYS[2], KEYS[3], KEYS[4], KEYS[5], 6
local id, scopes_named, amounts_given = ARGV[5], ARGV[6], ARGV[7]
local RETAIN, GATHER = tonumber(ARGV[8]), tonumber(ARGV[9])

-- Read so that a key of another type fails before the first write.
redis.call('ZCARD', OPEN)
redis.call('ZCARD', SUSPENDED)
local settled_before = redis.call('LLEN', SETTLED)

-- The ids that the caller shall have forgotten now.
local function overdue()
  local length = redis.call('LLEN', SETTLED)
  if length == settled_before or length < RETAIN + GATHER then
    return {}
  end
  return redis.call('LRANGE', SETTLED, 0, math.min(length - RETAIN, 200) - 1)
end

local function settled()
  redis.call('ZREM', OPEN, id)
  redis.call('ZREM', SUSPENDED, id)
  redis.call('RPUSH', SETTLED, id)
end

-- What keeps a record from being the hold that the caller means; nil if nothing does.
local function another_hold(record)
  if record.scopes ~= scopes_named then
    return no_hold(record) or answer('elsewhere', record.scopes)
  end
  return no_hold(record)
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
