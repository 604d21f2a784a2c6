-- Takes of several limits of one client, or of none of them, by this server's own clock.
-- KEYS: one for each limit. ARGV: node, cost, and six for each limit, by what it is:
--   bucket: token, rate, full (units, see limit/shared_quota.rs), debt (tokens that passed while nobody asked), 0
--   window: length (microseconds), count, number, current, previous
--   second, minute, hour, day, month (of the calendar, UTC): 0, count, number, current, 0
-- Windows and periods count by node, and the sum is what counts: the last three say what this node has let pass in the window of
-- this number and in the one before. What is less than that here has been lost, or passed while nobody asked. (number 0: nothing to tell)
local time = redis.call('TIME')
local now = time[1] * 1000000 + time[2]
local node, cost = ARGV[1], tonumber(ARGV[2])
local text = function(n) return string.format('%.0f', n) end
local second = 1000000
local lengths = { second = second, minute = 60 * second, hour = 3600 * second, day = 86400 * second }

-- The month of a day since 1970, and the first day of a month; limit/calendar.rs explains the numbers.
local function month_of(day)
  day = day + 719468
  local era = math.floor(day / 146097)
  local of_era = day % 146097
  local year = math.floor((of_era - math.floor(of_era / 1460) + math.floor(of_era / 36524) - math.floor(of_era / 146096)) / 365)
  local of_year = of_era - (365 * year + math.floor(year / 4) - math.floor(year / 100))
  return (era * 400 + year) * 12 + math.floor((5 * of_year + 2) / 153) + 2 - 1970 * 12
end
local function first_day(month)
  local months = month + 1970 * 12 - 2
  local years, month = math.floor(months / 12), months % 12
  local era, year = math.floor(years / 400), years % 400
  return era * 146097 + year * 365 + math.floor(year / 4) - math.floor(year / 100) + math.floor((153 * month + 2) / 5) - 719468
end

local function bucket(key, token, rate, full, debt)
  local kept = redis.call('HMGET', key, 'at', 'deficit')
  local at, deficit = tonumber(kept[1] or now), tonumber(kept[2] or 0)
  -- A clock that was set back must not keep clients out until it is as late again.
  if at > now + second then at = now end
  deficit = math.max(0, deficit - math.max(0, now - at) * rate)
  deficit = math.min(deficit + debt * token, math.max(full, deficit))
  local wait = math.max(0, math.ceil((deficit + cost * token - full) / rate))
  return { wait, function(taken)
    if taken + debt == 0 then return deficit, 0, 0 end
    local after = deficit + taken * token
    redis.call('HSET', key, 'at', text(math.max(at, now)), 'deficit', text(after))
    redis.call('PEXPIRE', key, text(math.ceil(after / rate / 1000) + 1))
    return after, 0, 0
  end }
end

local function counted(key, kind, length, count, told, current, previous)
  local number, ends
  if kind == 'month' then
    number = month_of(math.floor(now / lengths.day))
    ends = first_day(number + 1) * lengths.day
  else
    length = lengths[kind] or length
    number = math.floor(now / length)
    ends = (number + 1) * length
  end
  local window = kind == 'window'
  -- This node's own, of this window and of the one before; and everybody's.
  local own, all, gone, kept = {}, {}, {}, {}
  if told > 0 then own[told], own[told - 1] = current, previous end
  local fields = redis.call('HGETALL', key)
  for i = 1, #fields, 2 do
    local n, who = string.match(fields[i], '^(%d+):(.*)$')
    local value = tonumber(fields[i + 1])
    n = tonumber(n)
    -- What was counted before the clock was set back a little stays; what is further ahead must not keep anybody out.
    local at = n == number + 1 and number or n
    if at == number or window and at == number - 1 then
      if who == node and n == at then
        kept[at] = value
        value = math.max(value, own[at] or 0)
      end
      all[at] = (all[at] or 0) + value
    else
      gone[#gone + 1] = fields[i]
    end
  end
  for n, value in pairs(own) do
    if value > 0 and not kept[n] and (n == number or window and n == number - 1) then all[n] = (all[n] or 0) + value end
  end
  local cur, prev = all[number] or 0, window and all[number - 1] or 0
  local into, wait = window and now - number * length or ends - now, 0
  if not window then
    if cur + cost > count then wait = into end
  elseif prev * ((length - into) / length) + cur + cost > count then
    -- When no more than `room` of so many is still in sight.
    local function out_of_sight(many, room)
      return many <= room and 0 or length - math.floor(room * (length / many))
    end
    if cur + cost <= count then
      wait = math.max(1, out_of_sight(prev, count - cur - cost) - into)
    else
      wait = length - into + out_of_sight(cur, count - cost)
    end
  end
  return { wait, function(taken)
    local writes = taken > 0
    for n, value in pairs(own) do
      if value > (kept[n] or 0) and (n == number or window and n == number - 1) then
        redis.call('HSET', key, text(n) .. ':' .. node, text(value))
        writes = true
      end
    end
    if not writes then return cur, prev, into end
    for _, name in ipairs(gone) do redis.call('HDEL', key, name) end
    if taken > 0 then redis.call('HINCRBY', key, text(number) .. ':' .. node, text(taken)) end
    local lives = window and ends + length - now or ends - now + 60 * second
    redis.call('PEXPIRE', key, text(math.ceil(lives / 1000) + 1))
    return cur + taken, prev, into
  end }
end

local all, passes = {}, true
for i, key in ipairs(KEYS) do
  local at = 3 + (i - 1) * 6
  local kind, n = ARGV[at], {}
  for j = 1, 5 do n[j] = tonumber(ARGV[at + j]) end
  all[i] = kind == 'bucket' and bucket(key, n[1], n[2], n[3], n[4])
    or counted(key, kind, n[1], n[2], n[3], n[4], n[5])
  passes = passes and all[i][1] == 0
end
-- A refusal takes nothing, and so costs no write. What it has told has passed all the same, and is written: the others count by it.
local answer = { passes and 1 or 0 }
for _, limit in ipairs(all) do
  local a, b, c = limit[2](passes and cost or 0)
  for _, number in ipairs({ limit[1], a, b, c }) do answer[#answer + 1] = number end
end
return answer
