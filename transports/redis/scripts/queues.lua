-- Store.inspect and purge. Plan: {"inspect", queue}; answer {ready, delayed, claimed, more}, with
-- more = 1 if messages are left whose ttl is over: ask again. Or {"purge", queue}; answer: how many.

local queue = plan[2]
if plan[1] == 'inspect' then
  local more = sweep(queue)
  local delayed = call('ZCARD', key_of('d', queue))
  local due = call('ZCOUNT', key_of('d', queue), '-inf', now)
  return {unclaimed(queue) - delayed + due, delayed - due, call('HLEN', key_of('c', queue)),
    more and 1 or 0}
end

touch(queue)
local messages = key_of('m', queue)
local ids = call('HKEYS', key_of('c', queue))
local kept = {}
for index, content in ipairs(many_values('HMGET', messages, ids)) do
  if content then
    kept[#kept + 1] = ids[index]
    kept[#kept + 1] = content
  end
end
local count = call('HLEN', messages) - #kept / 2
call('UNLINK', unpack(keys_of_unclaimed(queue)))
call('SREM', P .. 'dead', queue)
call('ZREM', P .. 'ttl', queue)
many('HSET', messages, kept)
return count
