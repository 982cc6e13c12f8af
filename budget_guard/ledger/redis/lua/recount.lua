-- What is committed in scopes, and what their usage history has for it. KEYS: tenant, scopes...

local all = {}
for i = 2, #KEYS do
  local fields = redis.call('HMGET', KEYS[i], 'from', unpack(COMMITTED))
  local from, begins = fields[1], 0
  if from and from ~= '' then
    begins = tonumber(from) / 3600000000
  end
  local told = false -- where it begins in the middle of an hour, that cannot be told
  if from and begins == math.floor(begins) then
    local total = '0,0,0,0,0,0,0,0,0,0'
    each_row(KEYS[i], function(_, hour, _, row)
      if hour >= begins then
        total = rows_added(total, row)
      end
    end)
    told = total
  end
  all[#all + 1] = {told, {unpack(fields, 2)}}
end
return answer('recount', all)
