-- What changes whenever room is given. KEYS: tenant.

return answer('version', text(version))
