-- What every script begins with.
--
-- KEYS[1] is the prefix of all keys of one broker, with its hash tag. A script may fail only before
-- its first write: so it reads each key that it is going to write, which fails there if the key has
-- another type. Numbers go into keys and members through %.0f, since tostring keeps 14 digits only.

local P = KEYS[1]
local call = redis.call
local now = nil

-- The server's clock, in microseconds; the same whenever a step asks. Most do not.
local function time()
  now = now or clock()
  return now
end

local CHUNK = 1000

-- Fail now, before the first write, if this key has another type than the command is for.
local checked = {}

local function check(command, key)
  if not checked[key] then
    call(command, key)
    checked[key] = true
  end
end

-- Read what belongs to one of several queues. False, and what is wrong, if one of its keys has a
-- foreign type: then the others have their turn all the same. Other errors pass.
local function sound(read, ...)
  local fine, found = pcall(read, ...)
  if fine then
    return true, found
  end
  local problem = type(found) == 'table' and found.err or found
  if not string.find(problem, 'WRONGTYPE') then
    error(found)
  end
  return false, problem
end

-- A removal, of what is not there. After it a full server lets the script write: for the small
-- things that consumers need so that they can drain it.
local function let_in()
  call('DEL', P .. 'nothing')
end

-- A number that no call has given before, not even to a server that has lost its newest data.
local function fresh_number()
  local last = tonumber(call('GET', P .. 'number') or '0')
  local number = math.max(last + 1, time())
  call('SET', P .. 'number', string.format('%.0f', number))
  return number
end

-- Call a command with more arguments than Lua's stack may hold at once; CHUNK is even, for pairs.
local function many(command, key, list)
  local n = #list
  if n == 0 then
    return
  end
  if n <= CHUNK then
    call(command, key, unpack(list))
    return
  end
  for first = 1, n, CHUNK do
    call(command, key, unpack(list, first, math.min(first + CHUNK - 1, n)))
  end
end

-- The same for commands that answer with one value for each argument.
local function many_values(command, key, list)
  local n = #list
  if n == 0 then
    return {}
  end
  if n <= CHUNK then
    return call(command, key, unpack(list))
  end
  local values = {}
  for first = 1, n, CHUNK do
    local last = math.min(first + CHUNK - 1, n)
    for index, value in ipairs(call(command, key, unpack(list, first, last))) do
      values[first + index - 1] = value
    end
  end
  return values
end
