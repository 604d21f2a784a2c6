-- Says that a gateway is there, and how many there are. KEYS: the list of them. ARGV: this one, how long each counts (ms).
local time = redis.call('TIME')
local now = math.floor(time[1] * 1000 + time[2] / 1000)
local text = function(n) return string.format('%.0f', n) end
redis.call('ZADD', KEYS[1], text(now), ARGV[1])
redis.call('ZREMRANGEBYSCORE', KEYS[1], '-inf', text(now - ARGV[2]))
redis.call('PEXPIRE', KEYS[1], ARGV[2])
return redis.call('ZCARD', KEYS[1])
