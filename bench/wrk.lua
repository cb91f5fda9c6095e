-- Sends the bodies of a file in turn, one per request, and prints the result as one line of JSON.
-- Arguments after the URL: method, file with one body per line, Authorization header, Accept header; "-" for none.

local requests = {}
local sent = 0

function init(args)
  local method, file, key, accept = args[1], args[2], args[3], args[4]
  local headers = { ["Content-Type"] = "application/json" }
  if key ~= "-" then headers["Authorization"] = key end
  if accept ~= "-" then headers["Accept"] = accept end
  if file == "-" then
    requests[1] = wrk.format(method, nil, headers)
  else
    for body in io.lines(file) do
      requests[#requests + 1] = wrk.format(method, nil, headers, body)
    end
  end
end

function request()
  sent = sent % #requests + 1
  return requests[sent]
end

function done(summary, latency, _)
  local errors = summary.errors
  io.write(string.format(
    '\nRESULT {"seconds": %.6f, "requests": %d, "refused": %d, "broken": %d, "p50": %.6f, "p99": %.6f}\n',
    summary.duration / 1e6, summary.requests, errors.status,
    errors.connect + errors.read + errors.write + errors.timeout,
    latency:percentile(50) / 1e6, latency:percentile(99) / 1e6))
end
