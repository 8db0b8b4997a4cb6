-- For wrk: walks a list of URL paths, one request each, over and over.
--
--   wrk ... -s walk.lua http://127.0.0.1:PORT -- LIST START DELAY
--
-- LIST is a file with a path a line; START the line to begin with, from 0;
-- DELAY the most milliseconds that a connection waits before each request, 0
-- for not at all.
-- Requests are rendered beforehand, and replies are not looked at: a thread
-- does little more than send and receive.  One cursor for all connections of
-- a thread.  The last line printed is for test/bench/Bench.pm.

local requests = {}
local next_one, count, most = 1, 0, 0
local thread

function setup(one)
	thread = one
end

function init(args)
	for path in io.lines(args[1]) do
		count = count + 1
		requests[count] = wrk.format("GET", path)
	end
	next_one = tonumber(args[2] or 0) % count + 1
	most = tonumber(args[3] or 0)
	math.randomseed(next_one)
	-- wrk asks only when there is such a function; it does so every time
	if most > 0 then
		delay = function() return math.random(0, most) end
	end
	-- what was spent until now is no part of the run
	prepared = os.clock()
end

function request()
	local one = requests[next_one]
	next_one = next_one < count and next_one + 1 or 1
	return one
end

function done(summary, latency)
	local errors = summary.errors
	io.write(string.format(
		"RESULT requests=%d us=%d bytes=%d status=%d broken=%d " ..
		"cpu=%d p50=%d p99=%d p999=%d max=%d\n",
		summary.requests, summary.duration, summary.bytes, errors.status,
		errors.connect + errors.read + errors.write + errors.timeout,
		(os.clock() - thread:get("prepared")) * 1e6, latency:percentile(50), latency:percentile(99),
		latency:percentile(99.9), latency.max))
end
