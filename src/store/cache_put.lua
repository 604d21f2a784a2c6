-- Keeps an answer. KEYS: its name. ARGV: the fields by which variants are told apart, which of them it is, the answer, for how long
-- (ms), the most variants. The name ends with the last of its variants; each has its own end. What is no
-- hash is no answer, and makes room for one.
local kind = redis.call('TYPE', KEYS[1]).ok
-- Not where there is nothing: a Redis that is full takes whatever comes after a change.
if kind ~= 'none' and (kind ~= 'hash' or redis.call('HLEN', KEYS[1]) >= 3 * ARGV[5] + 1) then redis.call('DEL', KEYS[1]) end
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local number = function(value) return string.format('%.0f', value) end
redis.call('HSET', KEYS[1], 'vary', ARGV[1], 'entry:' .. ARGV[2], ARGV[3], 'time:' .. ARGV[2], number(now), 'end:' .. ARGV[2], number(now + ARGV[4]))
if redis.call('PTTL', KEYS[1]) < tonumber(ARGV[4]) then redis.call('PEXPIRE', KEYS[1], ARGV[4]) end
return 1
