-- Book amounts as spent and give the rest of the hold back. As `settle`; ARGV: ..., whether it is an estimate.

local hold, scopes, problem = hold_to_settle()
if problem then
  return problem
end

local estimate = ARGV[13] == '1'
local charged, uncertain = amounts_given, ARGV[13]
local replaced = hold and hold.charged
local changed = false
if replaced and not estimate and not hold.uncertain and replaced ~= amounts_given then
  return answer('conflict', hold.scopes, replaced)
end
if replaced and (estimate or not hold.uncertain) then -- an estimate never replaces what was booked before it
  charged, uncertain = replaced, hold.uncertain and '1' or '0'
else
  begin_history(scopes)
  local noted = replaced and (redis.call('HGET', HOLD, 'lines') or NO_LABELS .. '\t' .. replaced .. ',0,0,0,0\n')
  if not hold then
    remember(scopes, 'commit', 'committed', amounts_given)
    hold = read_hold(HOLD)
  elseif hold.open then
    settled(hold)
  end
  move(
    scopes, hold.periods, split(amounts_given), replaced and split(replaced), hold.open and split(hold.amounts),
    hold.open and -1 or 0
  )
  redis.call('HSET', HOLD, 'state', 'committed', 'charged', charged, 'uncertain', uncertain)
  note(scopes, hold.periods, lines_given, 1)
  if noted then
    note(scopes, hold.periods, noted, -1)
    redis.call('HDEL', HOLD, 'lines')
  end
  if estimate then
    redis.call('HSET', HOLD, 'lines', lines_given)
  end
  changed = true
end
wrote(changed)
return answer(
  'settled', redis.call('HMGET', scopes[1].key, unpack(COMMITTED)), charged, uncertain, spent_above(scopes),
  cost_left(scopes), overdue()
)
