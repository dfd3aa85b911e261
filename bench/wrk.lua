-- For wrk: says at the end what happened, on one line of JSON. With arguments COUNT and PREFIX it asks in turn for
-- each of the files of a large site, in an order that no cache can guess. With `visitors` each request has a cookie of
-- its own, so that none is like one before. With `signups PREFIX` it signs up with an address of its own each time.
local requests, next_one = {}, 0

local function visitors(count)
  local plain = wrk.format():sub(1, -3)
  for n = 0, count - 1 do
    requests[n] = string.format("%sCookie: visitor=%08x\r\n\r\n", plain, n * 7919)
  end
  request = function()
    local found = requests[next_one]
    next_one = (next_one + 1) % count
    return found
  end
end

local function signups(prefix)
  local body = '{"site":"bench","email":"%s%d@example.com","name":"Robin Fell","kind":"Dog","message":"She is shy at first."}'
  wrk.method = "POST"
  wrk.headers["Content-Type"] = "application/json"
  request = function()
    next_one = next_one + 1
    return wrk.format(nil, nil, nil, string.format(body, prefix, next_one))
  end
end

function init(args)
  if args[1] == "signups" then
    return signups(args[2])
  end
  if args[1] == "visitors" then
    return visitors(50000)
  end
  local count, prefix = tonumber(args[1]), args[2]
  if not count then
    return
  end
  local step = 7919 -- a prime that divides no count in use, so that every file has its turn
  for n = 0, count - 1 do
    local number = (n * step) % count
    requests[n] = wrk.format(nil, string.format("%sd%03d/f%06d.txt", prefix, math.floor(number / 1000), number))
  end
  request = function()
    local found = requests[next_one]
    next_one = (next_one + 1) % count
    return found
  end
end

function done(summary, latency)
  local errors = summary.errors
  print(string.format(
    'BENCH {"requests": %.0f, "microseconds": %.0f, "bytes": %.0f, "refused": %d, "connect": %d, "read": %d, "write": %d, "timeout": %d, "p50": %.0f, "p99": %.0f}',
    summary.requests, summary.duration, summary.bytes,
    errors.status, errors.connect, errors.read, errors.write, errors.timeout,
    latency:percentile(50), latency:percentile(99)))
end
