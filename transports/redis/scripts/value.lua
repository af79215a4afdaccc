-- KeyValue. A key is a hash: v the value, n its version, x when it expires (0: never). Redis deletes
-- it a minute after it expired; x decides.
-- Plan: {"now"} | {"get", key} | {"set", until, key, ttl, version, key, ttl, version ...} |
-- {"increment", until, key, ttl, amount} | {"delete", until, key, version}; ttl in microseconds or
-- -1, version -1 for any; the values to set are ARGV[2] and so on. What comes after `until` was given
-- up by its caller, and others may have changed the key since: it changes nothing.
-- Answers: "late"; or now the time as text; get {version, value} or nothing; set for each the version
-- or nothing; increment the number as text, or 0 if it is none; delete 1 or 0.

local command = plan[1]
if command == 'now' then
  return string.format('%.0f', time())
elseif command ~= 'get' and time() > plan[2] then
  return 'late'
end
local name, version, alive

local function look_at(key)
  name = P .. 'key:' .. key
  local number, expires = unpack(call('HMGET', name, 'n', 'x'))
  version, alive = number, number and (expires == '0' or tonumber(expires) > time())
end

local function live_for(ttl)
  if ttl < 0 then
    call('PERSIST', name)
  else
    call('PEXPIRE', name, math.ceil(ttl / 1000) + 60000)
  end
end

local function until_of(ttl)
  return ttl < 0 and '0' or string.format('%.0f', time() + ttl)
end

if command == 'set' then
  local answers = {}
  for at = 3, #plan, 3 do
    local ttl, wanted = plan[at + 1], plan[at + 2]
    look_at(plan[at])
    local answer = false
    if wanted < 0 or wanted == (alive and tonumber(version) or 0) then
      answer = string.format('%.0f', fresh_number())
      call('HSET', name, 'v', ARGV[#answers + 2], 'n', answer, 'x', until_of(ttl))
      live_for(ttl)
    end
    answers[#answers + 1] = answer
  end
  return answers
end

look_at(command == 'get' and plan[2] or plan[3])
if command == 'get' then
  return alive and {version, call('HGET', name, 'v')} or {}
elseif command == 'increment' then
  local ttl, amount = plan[4], plan[5]
  if alive then
    local total = redis.pcall('HINCRBY', name, 'v', amount)
    if type(total) == 'table' then
      return string.find(total.err, 'hash value is not') and 0
        or string.find(total.err, 'overflow') and 0 or total
    end
    call('HSET', name, 'n', string.format('%.0f', fresh_number()))
  else
    local number = string.format('%.0f', fresh_number())
    call('HSET', name, 'v', amount, 'n', number, 'x', until_of(ttl))
    live_for(ttl)
  end
  return call('HGET', name, 'v')
end
local wanted = plan[4]
if not alive or (wanted >= 0 and wanted ~= tonumber(version)) then
  return 0
end
return call('UNLINK', name)
