-- Whether a scope that is missing was ever opened. KEYS: tenant, scopes, scope. ARGV: its name.

if is_lost(KEYS[2], KEYS[3], ARGV[5]) then
  fence()
  return answer('lost', 1)
end
return answer(fenced and 'fenced' or 'missing', 1)
