-- Store.read_table and write_table. Plan: {"read", names} or {"read", false} for all; answer:
-- {name, version, value, ...}. Or {"write", names, versions, removed, drop}, the new value of name
-- n being ARGV[n + 1]; answer: 1, or 0 if one version is not the expected one.

local versions, values = P .. 'versions', P .. 'entries'
if plan[1] == 'read' then
  local names = plan[2] or call('HKEYS', versions)
  local found = {}
  local known = many_values('HMGET', versions, names)
  local entries = many_values('HMGET', values, names)
  for index, name in ipairs(names) do
    if known[index] and entries[index] then
      found[#found + 1] = name
      found[#found + 1] = known[index]
      found[#found + 1] = entries[index]
    end
  end
  return found
end

local _, names, expected, removed, drop = unpack(plan)
for index, version in ipairs(many_values('HMGET', versions, names)) do
  if tonumber(version or '0') ~= expected[index] then
    return 0
  end
end
call('HLEN', values)
call('GET', P .. 'number')
local fate = #drop > 0 and fates()
for _, queue in ipairs(drop) do
  fate.touch(queue)
  for _, life in ipairs(call('SMEMBERS', key_of('h', queue))) do
    check('SCARD', held_by(life))
  end
end
let_in()
for index, name in ipairs(names) do
  if removed[index] then
    call('HDEL', versions, name)
    call('HDEL', values, name)
  else
    call('HSET', versions, name, string.format('%.0f', fresh_number()))
    call('HSET', values, name, ARGV[index + 1])
  end
end
for _, queue in ipairs(drop) do
  for _, life in ipairs(call('SMEMBERS', key_of('h', queue))) do
    call('SREM', held_by(life), queue)
    call('UNLINK', claims_of(life, queue))
  end
  call('UNLINK', key_of('h', queue), unpack(fate.keys_of_unclaimed(queue)))
  call('SREM', P .. 'dead', queue)
  call('ZREM', P .. 'ttl', queue)
end
return 1
