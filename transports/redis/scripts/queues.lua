-- Store.inspect and purge. Plan: {"inspect", queue}; answer {ready, delayed, claimed, more}, with
-- more = 1 if messages are left whose ttl is over: ask again. Or {"purge", queue}; answer: how many.

local queue = plan[2]
local fate = fates()
local lives = call('SMEMBERS', key_of('h', queue))
if plan[1] == 'inspect' then
  fate.touch(queue)
  local more = fate.sweep(queue)
  local delayed = call('ZCARD', key_of('d', queue))
  local due = call('ZCOUNT', key_of('d', queue), '-inf', time())
  local claimed = 0
  for _, life in ipairs(lives) do
    claimed = claimed + call('HLEN', claims_of(life, queue))
  end
  return {fate.unclaimed(queue) - delayed + due, delayed - due, claimed, more and 1 or 0}
end

fate.touch(queue)
local messages = key_of('m', queue)
local kept = {}
for _, life in ipairs(lives) do
  local ids = call('HKEYS', claims_of(life, queue))
  for index, content in ipairs(many_values('HMGET', messages, ids)) do
    if content then
      kept[#kept + 1] = ids[index]
      kept[#kept + 1] = content
    end
  end
end
local count = call('HLEN', messages) - #kept / 2
call('UNLINK', unpack(fate.keys_of_unclaimed(queue)))
call('SREM', P .. 'dead', queue)
call('ZREM', P .. 'ttl', queue)
many('HSET', messages, kept)
return count
