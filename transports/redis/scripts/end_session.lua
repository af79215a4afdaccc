-- Store.end_session. Plan: {session, beats}, beats 0 for a polite end. Answer: 1 if this ended it.

local session, beats = plan[1], plan[2]
local life, current = life_of(session)
if not life or (beats ~= 0 and current ~= beats) then
  return 0
end
local fate = fates()
local queues = call('SMEMBERS', held_by(life))
local held = {}
for index, queue in ipairs(queues) do
  held[index] = call('HGETALL', claims_of(life, queue))
  fate.touch(queue)
end
call('HDEL', P .. 'sessions', session)
call('UNLINK', held_by(life))
for index, queue in ipairs(queues) do
  call('UNLINK', claims_of(life, queue))
  call('SREM', key_of('h', queue), life)
  for position = 1, #held[index], 2 do
    local id, record = held[index][position], held[index][position + 1]
    fate.put_back(queue, id, record, 0, beats ~= 0, beats ~= 0)
  end
end
return 1
