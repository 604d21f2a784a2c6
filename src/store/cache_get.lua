-- Looks for a kept answer. KEYS: its name. ARGV: which of its variants. Gives back the fields by which variants are told apart,
-- the answer, and for how long it has been kept (ms); each may be missing. One that has come to its end is not there.
local found = redis.call('HMGET', KEYS[1], 'vary', 'entry:' .. ARGV[1], 'time:' .. ARGV[1], 'end:' .. ARGV[1])
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
if not found[3] or not found[4] or now >= tonumber(found[4]) then return { found[1], false, false } end
return { found[1], found[2], math.max(0, now - found[3]) }
