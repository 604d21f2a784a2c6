-- Takes tokens from one bucket of a limit, by this server's own clock. `limit/lease.rs` says why nothing passes that should not.
-- KEYS: the bucket. ARGV: token, rate, full (units, see limit/shared_quota.rs), least, want, left, back, debt (tokens),
-- divisor, node (empty: nothing is taken ahead), number of the call, hold (microseconds), how long ago this node has spent
-- what it had last (microseconds).
local time = redis.call('TIME')
local now = time[1] * 1000000 + time[2]
local token, rate, full = tonumber(ARGV[1]), tonumber(ARGV[2]), tonumber(ARGV[3])
local least, want, left = tonumber(ARGV[4]), tonumber(ARGV[5]), tonumber(ARGV[6])
local back, debt, divisor = tonumber(ARGV[7]), tonumber(ARGV[8]), tonumber(ARGV[9])
local node, number, hold = ARGV[10], tonumber(ARGV[11]), tonumber(ARGV[12])

-- What the bucket lacked, and when; and what each node holds: "number tokens until".
local at, deficit = now, 0
-- What was held until now (by others), or until some time since (by this node, and by those that have gone); the last such time.
local others, before, changed, keep, gone = 0, 0, now - tonumber(ARGV[13]), now, {}
local fields = redis.call('HGETALL', KEYS[1])
for i = 1, #fields, 2 do
  local name, value = fields[i], fields[i + 1]
  if name == 'at' then
    at = tonumber(value)
  elseif name == 'deficit' then
    deficit = tonumber(value)
  else
    local last, tokens, ends = string.match(value, '^(%d+) (%d+) (%d+)$')
    tokens, ends = tonumber(tokens), tonumber(ends)
    -- A call that comes after a later one has been given up, and its answer would not be looked at.
    if name == node and tonumber(last) >= number then return {0, deficit, 0, 0} end
    -- Further ahead than anybody may hold: the clock has been set back.
    local ended = ends <= now or ends > now + hold
    if ended then
      changed = math.max(changed, math.min(ends, now))
      gone[#gone + 1] = name
    end
    if name == node or ended then
      before = before + tokens
    else
      others = others + tokens
      keep = math.max(keep, ends)
    end
  end
end

-- A clock that was set back must not keep clients out until it is as late again.
local set_back = at > now + 1000000
if set_back then at = now end

-- Tokens come back, but the bucket never fills beyond what was held meanwhile.
if now > at then
  changed = math.min(math.max(changed, at), now)
  deficit = math.max(deficit - (changed - at) * rate, (others + before) * token)
  deficit = deficit - (now - changed) * rate
  at = now
end
deficit = math.max(deficit, (others + left + back) * token) - back * token
deficit = math.min(deficit + debt * token, math.max(full, deficit))

local free = math.max(0, math.floor((full - deficit) / token))
local granted = math.min(math.max(math.floor(free / divisor), least, 1), want)
if granted > free then granted = 0 end
deficit = deficit + granted * token
local wait = 0
if granted == 0 then
  wait = math.ceil(math.max(0, deficit + math.max(least, 1) * token - full) / rate)
end

-- A refusal changes nothing, and so costs no write.
if set_back or granted + debt > 0 or (node ~= '' and granted + least == 0) then
  local text = function(n) return string.format('%.0f', n) end
  redis.call('HSET', KEYS[1], 'at', text(at), 'deficit', text(deficit))
  for _, name in ipairs(gone) do redis.call('HDEL', KEYS[1], name) end
  if node ~= '' then
    -- What was asked for at least is spent now.
    local held = left + math.max(0, granted - least)
    keep = math.max(keep, now + hold)
    redis.call('HSET', KEYS[1], node, text(number) .. ' ' .. text(held) .. ' ' .. text(now + hold))
  end
  -- A bucket that is full again is one that nobody has used.
  local lives = math.max(deficit / rate, keep - now)
  redis.call('PEXPIRE', KEYS[1], text(math.ceil(lives / 1000) + 1))
end
return {granted, deficit, wait, others}
