-- Sums of the usage history of scopes. KEYS: tenant, scopes... ARGV: the first hour, the first one that is too late (''
-- for none), by which time ('hour', 'day' or ''), and by which labels ('00010').

local since, before, time, mask = tonumber(ARGV[5]), tonumber(ARGV[6] or ''), ARGV[7], ARGV[8]
local chosen = {}

-- The labels that are asked for.
local function names(labels)
  if not chosen[labels] then
    local found = {}
    for i, label in ipairs(cjson.decode(labels)) do
      if string.byte(mask, i) == 49 then
        found[#found + 1] = label
      end
    end
    chosen[labels] = found
  end
  return chosen[labels]
end

local all = {}
for i = 2, #KEYS do
  local sums, order = {}, {}
  each_row(KEYS[i], function(_, hour, labels, row)
    if hour >= since and not (before and hour >= before) then
      local at = ''
      if time == 'hour' then
        at = text(hour)
      elseif time == 'day' then
        at = text(math.floor(hour / DAY) * DAY)
      end
      local its = names(labels)
      local name = at .. '\0' .. table.concat(its, '\0')
      if sums[name] then
        sums[name][3] = rows_added(sums[name][3], row)
      else
        sums[name] = {at, its, row}
        order[#order + 1] = sums[name]
      end
    end
  end)
  all[#all + 1] = order
end
return answer('usage', all)
