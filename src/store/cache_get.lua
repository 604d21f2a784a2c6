-- Looks for a kept answer. KEYS: its name. ARGV: which of its variants. Gives back the fields by which variants are told apart,
-- the answer, and for how long it has been kept (ms); each may be missing.
local found = redis.call('HMGET', KEYS[1], 'vary', 'entry:' .. ARGV[1], 'time:' .. ARGV[1])
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
return { found[1], found[2], found[3] and math.max(0, now - found[3]) or false }
