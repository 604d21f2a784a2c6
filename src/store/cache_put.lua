-- Keeps an answer. KEYS: its name. ARGV: the fields by which variants are told apart, which of them it is, the answer, for how long
-- (ms), the most variants.
if redis.call('HLEN', KEYS[1]) >= 2 * ARGV[5] + 1 then redis.call('DEL', KEYS[1]) end
local time = redis.call('TIME')
local now = string.format('%.0f', time[1] * 1000 + math.floor(time[2] / 1000))
redis.call('HSET', KEYS[1], 'vary', ARGV[1], 'entry:' .. ARGV[2], ARGV[3], 'time:' .. ARGV[2], now)
if redis.call('PTTL', KEYS[1]) < tonumber(ARGV[4]) then redis.call('PEXPIRE', KEYS[1], ARGV[4]) end
return 1
