-- The usage history, in the hash of each scope: 'h<hour><labels>' is the row for labels, as JSON, in an hour, and has ten
-- quantities as 'n,n,...'. 'hl' is the latest hour that has a row, 'hm' how many rows it has.

local NO_LABELS = '["","","","",""]'
local OTHERS = '["(others)","(others)","(others)","(others)","(others)"]'
local MOST_LABELS, MOST_ROWS, DAY = 200, 20000, 24
local EXACT = 9007199254740991 -- whole numbers up to here a double holds exactly
local HIGHEST = 9.2e18 -- further from nothing no sum goes: HINCRBY, which has 64 bits, cannot fail then

-- The sum of two whole numbers as text; the second is no further from nothing than EXACT.
local function sum(a, b)
  if b == 0 then
    return a
  end
  local before = tonumber(a) or 0
  local sum = before + b
  if sum <= EXACT and sum >= -EXACT and before <= EXACT and before >= -EXACT then
    return text(sum)
  end
  if sum > HIGHEST or sum < -HIGHEST then
    return a
  end
  redis.call('HSET', KEYS[1], 'sum', a)
  redis.call('HINCRBY', KEYS[1], 'sum', text(b))
  return redis.call('HGET', KEYS[1], 'sum')
end

-- A row, nil for a new one, with more quantities.
local function row_with(row, more)
  local after = row and split(row) or {}
  for i = 1, #more do
    after[i] = sum(after[i] or '0', more[i])
  end
  return table.concat(after, ',')
end

-- As `row_with`, for quantities that may be larger than EXACT, to be looked at alone.
local function rows_added(row, more)
  local before, after = split(row), {}
  for i, quantity in ipairs(split(more)) do
    local number = tonumber(quantity)
    while number > EXACT or number < -EXACT do -- in parts that are no larger
      local part = number > 0 and EXACT or -EXACT
      before[i] = sum(before[i], part)
      quantity = sum(quantity, -part)
      number = tonumber(quantity)
    end
    after[i] = sum(before[i], number)
  end
  return table.concat(after, ',')
end

-- All rows of a scope: calls `see(field, hour, labels, row)` for each.
local function each_row(key, see)
  local fields = redis.call('HGETALL', key)
  for i = 1, #fields, 2 do
    local hour, labels = string.match(fields[i], '^h(%d+)(%[.*)$')
    if hour then
      see(fields[i], tonumber(hour), labels, fields[i + 1])
    end
  end
end

-- Sum up the rows of a scope that are old enough: those of a day, and all that are older than so many days.
local function roll_up(key, present, hours, days)
  local from_hours = math.floor((present - hours) / DAY) * DAY
  local from_days = (math.floor(present / DAY) - days) * DAY
  local sums, many, gone, changed = {}, {}, {}, {}
  each_row(key, function(field, hour, labels, row)
    if hour >= from_hours then
      return
    end
    local into
    if hour < from_days then
      into = 'h0' .. (hour == 0 and labels or NO_LABELS)
    else
      local day = math.floor(hour / DAY) * DAY
      into = 'h' .. day .. labels
      if not sums[into] then
        many[day] = (many[day] or 0) + 1
        if many[day] > MOST_LABELS then
          into = 'h' .. day .. OTHERS
        end
      end
    end
    if into ~= field then
      gone[#gone + 1] = field
    end
    if into ~= field or sums[into] then
      changed[into] = true
    end
    sums[into] = sums[into] and rows_added(sums[into], row) or row
  end)
  for _, field in ipairs(gone) do
    redis.call('HDEL', key, field)
  end
  for field in pairs(changed) do
    redis.call('HSET', key, field, sums[field])
  end
end
