-- Every request is another client's: a random address, as a trusted proxy tells it.
local seeds = 0
function setup(thread)
  seeds = seeds + 1
  thread:set("seed", seeds)
end
function init()
  math.randomseed(os.time() * 100 + seed)
end
function request()
  -- Several at once: what the sender costs is not what is looked at.
  local lines = {}
  for i = 1, 16 do
    lines[i] = string.format("GET / HTTP/1.1\r\nHost: a\r\nX-Forwarded-For: %d.%d.%d.%d\r\n\r\n",
      math.random(11, 99), math.random(0, 255), math.random(0, 255), math.random(0, 255))
  end
  return table.concat(lines)
end
function done(summary)
  io.write(string.format("requests %d, refused or failed %d, seconds %.1f\n", summary.requests,
    summary.errors.status + summary.errors.connect + summary.errors.read + summary.errors.timeout, summary.duration / 1e6))
end
