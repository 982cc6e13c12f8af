-- What every script begins with.
--
-- KEYS[1] is the tenant's own record, and every other key is named by the caller. ARGV[1] is the time in microseconds
-- ('' for the server's own), ARGV[2] and ARGV[3] are the epoch and the sequence that the caller saw last, ARGV[4] names
-- a new epoch; the verb's own arguments follow from ARGV[5].
--
-- A balance is a decimal string, and only HINCRBY moves it: a Lua number is a double and would lose what is beyond
-- 2^53. It is compared with nothing but amounts, which are below 2^53: so the comparison is exact, however the balance is
-- rounded. Redis does not roll back: a verb reads and checks everything before its first write.

local DIMENSIONS = 6
local COMMITTED = {'c0', 'c1', 'c2', 'c3', 'c4', 'c5'}
local AVAILABLE = {'a0', 'a1', 'a2', 'a3', 'a4', 'a5'} -- limit (0 where there is none) - committed - reserved
local TOLERANCE = 300000000 -- microseconds that the time in an id may be away from the server's
local LOWEST = -4e18 -- further below nothing no balance goes: HINCRBY, which has 64 bits, cannot fail then

local function text(number)
  return string.format('%.0f', number)
end

local now
if ARGV[1] ~= '' then
  now = tonumber(ARGV[1])
else
  local time = redis.call('TIME')
  now = time[1] * 1000000 + time[2]
end

-- The epoch and the sequence never go back. Where they did, the store lost its tail, and nothing is admitted until
-- `reopen` says so.
local tenant = redis.call('HMGET', KEYS[1], 'epoch', 'sequence', 'fenced', 'version', 'forgotten', 'scopes')
local epoch, sequence, fenced = tenant[1], tonumber(tenant[2] or '0'), tenant[3]
local version, forgotten = tonumber(tenant[4] or '0'), tonumber(tenant[5] or '-1')
local scopes_made = tonumber(tenant[6] or '') -- nil in a store that an older version began

local function generation(name)
  return name and tonumber(string.match(name, '^%d+')) or 0
end

do
  local known = ARGV[2]
  local lost = false
  if known ~= '' and known == epoch then
    lost = sequence < tonumber(ARGV[3])
  elseif known ~= '' then
    lost = generation(epoch) <= generation(known)
  end
  if not epoch then
    epoch = (lost and '0-' or '1-') .. ARGV[4]
    scopes_made = 0
    redis.call('HSET', KEYS[1], 'epoch', epoch, 'scopes', '0')
  end
  if lost and generation(fenced) < generation(known) then
    fenced = text(generation(known))
    redis.call('HSET', KEYS[1], 'fenced', fenced)
  end
end

-- Admit nothing until `reopen` says so.
local function fence()
  fenced = text(math.max(generation(epoch), generation(fenced)))
  redis.call('HSET', KEYS[1], 'fenced', fenced)
end

local function answer(...)
  return {epoch, text(sequence), fenced or '', ...}
end

-- Note what was written, also where it was a repetition: WAIT then waits for the first time as well.
local function wrote(gave_room)
  sequence = sequence + 1
  if gave_room then
    version = version + 1
  end
  redis.call('HSET', KEYS[1], 'sequence', text(sequence), 'version', text(version))
end

-- Whether the store has lost the counters of a scope that it had, or the list of these. NAMES is the list's key.
local function is_lost(NAMES, key, name)
  if scopes_made and redis.call('SCARD', NAMES) ~= scopes_made then
    return true
  end
  return redis.call('SISMEMBER', NAMES, name) == 1 and redis.call('EXISTS', key) == 0
end

-- Note that there is a scope. A scope is counted once: if it is known and not there, the store lost it.
local function made(NAMES, name)
  if redis.call('SADD', NAMES, name) == 1 and scopes_made then
    scopes_made = scopes_made + 1
    redis.call('HSET', KEYS[1], 'scopes', text(scopes_made))
  end
end

-- Amounts and periods are kept as 'n,n,n'.
local function split(list)
  local parts = {}
  for part in string.gmatch(list, '[^,]+') do
    parts[#parts + 1] = part
  end
  return parts
end

local function minus(amount) -- HINCRBY takes no '-0'
  return amount == '0' and amount or '-' .. amount
end

local function month_start(day) -- days since 1970 began
  local shifted = day + 719468 -- since the first of March of the year 0
  local of_era = shifted % 146097
  local year = math.floor(
    (of_era - math.floor(of_era / 1460) + math.floor(of_era / 36524) - math.floor(of_era / 146096)) / 365
  )
  local of_year = of_era - (365 * year + math.floor(year / 4) - math.floor(year / 100))
  local month = math.floor((5 * of_year + 2) / 153)
  return day - (of_year - math.floor((153 * month + 2) / 5))
end

local LENGTH = {minute = 60, hour = 3600, day = 86400, week = 604800} -- seconds

-- When the window that now is in began, and when it ends, in microseconds; '' for a scope without one.
local function window_now(window)
  if window == 'none' then
    return '', ''
  end
  local start, finish
  if window == 'month' then
    local day = month_start(math.floor(now / 86400000000))
    start, finish = day * 86400, month_start(day + 31) * 86400
  else
    local length = LENGTH[window]
    local offset = window == 'week' and 3 * 86400 or 0 -- 1970 began on a Thursday
    start = math.floor((math.floor(now / 1000000) + offset) / length) * length - offset
    finish = start + length
  end
  return text(start * 1000000), text(finish * 1000000)
end

-- Count from nothing if the next window has begun. Never back, whatever the clock does.
local function roll(scope)
  if scope.ends == '' or now < tonumber(scope.ends) then
    return
  end
  local fields = redis.call('HMGET', scope.key, 'window', 'l0', 'l1', 'l2', 'l3', 'l4', 'l5')
  redis.call('HDEL', scope.key, 'n', 'x0', 'x1', 'x2', 'x3', 'x4', 'x5', unpack(COMMITTED))
  scope.period = text(redis.call('HINCRBY', scope.key, 'period', 1))
  local starts, ends = window_now(fields[1])
  redis.call('HSET', scope.key, 'starts', starts, 'ends', ends, 'from', starts)
  scope.from = starts
  for d = 1, DIMENSIONS do
    local limit = fields[d + 1] or '0'
    scope[d] = tonumber(limit)
    redis.call('HSET', scope.key, AVAILABLE[d], limit)
  end
end

-- The scopes whose keys are KEYS[first] to KEYS[last], in their present windows, each with what is available in every
-- dimension, to compare. If one is missing, lost or damaged, nil and what to answer.
local function find(first, last)
  local found = {}
  for i = first, last or #KEYS do
    local fields = redis.call('HMGET', KEYS[i], 'limited', 'period', 'ends', 'revoked', 'from', unpack(AVAILABLE))
    if not fields[1] then
      return nil, answer(fenced and 'fenced' or 'missing', i - first + 1)
    end
    local scope = {
      key = KEYS[i], limited = fields[1], period = fields[2], ends = fields[3], revoked = fields[4],
      from = fields[5], -- since when what is committed is counted; '' for always, none where no history is kept yet
    }
    for d = 1, DIMENSIONS do
      local available = tonumber(fields[5 + d] or '0')
      if not available or available < LOWEST then
        return nil, answer('damaged', i - first + 1)
      end
      scope[d] = available
    end
    found[#found + 1] = scope
  end
  for _, scope in ipairs(found) do
    roll(scope)
  end
  return found
end

local function periods(scopes)
  local list = {}
  for i, scope in ipairs(scopes) do
    list[i] = scope.period
  end
  return table.concat(list, ',')
end

-- Everything about every scope, for the caller to put into words.
local function all_about(scopes)
  local names = {'limited', 'window', 'starts', 'n', 'revoked', 'revoked_at', 'note'}
  for _, letter in ipairs({'l', 'c', 'a'}) do
    for d = 0, DIMENSIONS - 1 do
      names[#names + 1] = letter .. d
    end
  end
  local all = {}
  for i, scope in ipairs(scopes) do
    all[i] = redis.call('HMGET', scope.key, unpack(names))
  end
  return all
end

local function read_hold(key)
  local fields = redis.call(
    'HMGET', key, 'state', 'scopes', 'amounts', 'periods', 'charged', 'uncertain', 'suspend', 'verb'
  )
  if not fields[1] then
    return nil
  end
  local state = fields[1]
  return {
    key = key,
    state = state,
    open = state == 'reserved' or state == 'forwarded' or state == 'suspended',
    scopes = fields[2],
    amounts = fields[3],
    periods = split(fields[4]),
    charged = fields[5],
    uncertain = fields[6] == '1',
    suspend = fields[7] ~= '0',
    verb = fields[8], -- what it was first heard of by
  }
end

-- What keeps a record from being a hold; nil if nothing does.
local function no_hold(record)
  if record.verb == 'charge' or record.verb == 'adjust' then
    return answer('another', record.verb)
  end
  return nil
end

local function made_at(id) -- microseconds
  return tonumber(string.sub(id, 1, 12), 16) * 1000
end

-- What keeps an id that is not known from being a new one; nil if nothing does.
local function doubt(id)
  if made_at(id) / 1000 <= forgotten then
    return answer('stale')
  end
  if made_at(id) > now + TOLERANCE then
    return answer('early', text(now))
  end
  return nil
end

-- Move the counters of the scopes whose present window is the hold's: book `spent` in the place of `replaced`, and
-- give `freed` back.
local function move(scopes, periods, spent, replaced, freed, holds)
  for i, scope in ipairs(scopes) do
    if scope.period == periods[i] then
      for d = 1, DIMENSIONS do
        local booked = (spent and spent[d] or 0) - (replaced and replaced[d] or 0)
        local given = (freed and freed[d] or 0) - booked
        if booked ~= 0 then
          redis.call('HINCRBY', scope.key, COMMITTED[d], text(booked))
        end
        if given ~= 0 then
          redis.call('HINCRBY', scope.key, AVAILABLE[d], text(given))
        end
      end
      if holds ~= 0 then
        redis.call('HINCRBY', scope.key, 'n', holds)
      end
    end
  end
end
