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
  local address = string.format("%d.%d.%d.%d", math.random(11, 99), math.random(0, 255), math.random(0, 255), math.random(0, 255))
  return wrk.format("GET", "/", { ["X-Forwarded-For"] = address })
end
function done(summary)
  io.write(string.format("requests %d, refused or failed %d, seconds %.1f\n", summary.requests,
    summary.errors.status + summary.errors.connect + summary.errors.read + summary.errors.timeout, summary.duration / 1e6))
end
