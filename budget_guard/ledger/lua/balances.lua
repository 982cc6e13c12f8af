-- The counters of scopes, all of the same moment. KEYS: tenant, scopes...

local scopes, number = find(2)
if not scopes then
  return answer('missing', number)
end
return answer('balances', all_about(scopes))
