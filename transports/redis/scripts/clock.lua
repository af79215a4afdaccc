-- The server's clock, in microseconds. Tests replace this file by a clock of their own.
local function clock()
  local time = redis.call('TIME')
  return time[1] * 1000000 + time[2]
end
