#!lua flags=allow-oom
-- The purges of all gateways, numbered. KEYS: the state, the log. ARGV: an epoch to begin with, if one is needed; the epoch and the
-- number that are known; the most purges that are remembered; then new ones.
-- Gives back the epoch, the last number, whether what follows is all that came after the known number, and that; to whom knows no
-- epoch all that is remembered.
-- Neither key ends: while Redis makes room by a policy that takes keys with an end, they stay.
local state = redis.call('HMGET', KEYS[1], 'epoch', 'number', 'run')
local epoch, number, known = state[1], tonumber(state[2] or 0), tonumber(ARGV[3])
-- A server that was started again, or another one in its place, may have lost the last of them.
local run = string.match(redis.call('INFO', 'server'), 'run_id:(%w+)') or ''
if not epoch or state[3] ~= run or (epoch == ARGV[2] and number < known) then
  epoch, number = ARGV[1], 0
  redis.call('DEL', KEYS[2])
end
for i = 5, #ARGV do
  number = number + 1
  redis.call('RPUSH', KEYS[2], ARGV[i])
end
redis.call('LTRIM', KEYS[2], -ARGV[4], -1)
redis.call('HSET', KEYS[1], 'epoch', epoch, 'number', string.format('%.0f', number), 'run', run)
if ARGV[2] == '' then return { epoch, number, 1, redis.call('LRANGE', KEYS[2], 0, -1) } end
local missing = number - known
if epoch ~= ARGV[2] or missing > redis.call('LLEN', KEYS[2]) then return { epoch, number, 0, {} } end
if missing == 0 then return { epoch, number, 1, {} } end
return { epoch, number, 1, redis.call('LRANGE', KEYS[2], -missing, -1) }
