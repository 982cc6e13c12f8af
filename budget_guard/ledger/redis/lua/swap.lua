-- Keep a text in the place of what is expected. KEYS: tenant, text. ARGV: what is expected, what shall be kept, each a
-- '+' and the text or '' for nothing; microseconds that it is kept.

local fields = redis.call('HMGET', KEYS[2], 'text', 'until')
local kept = ''
if fields[1] and tonumber(fields[2]) > now then
  kept = '+' .. fields[1]
end
if kept == ARGV[5] and kept .. ARGV[6] ~= '' then
  kept = ARGV[6]
  if kept == '' then
    redis.call('DEL', KEYS[2])
  else
    redis.call('HSET', KEYS[2], 'text', string.sub(kept, 2), 'until', text(now + ARGV[7]))
    redis.call('PEXPIRE', KEYS[2], text(math.ceil(ARGV[7] / 1000)))
  end
  wrote()
end
return answer('kept', kept)
