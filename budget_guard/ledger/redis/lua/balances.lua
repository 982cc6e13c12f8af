-- The counters of scopes, all of the same moment. KEYS: tenant, scopes...

local scopes, problem = find(2)
if not scopes then
  return problem
end
return answer('balances', all_about(scopes))
