-- Store.end_session. Plan: {session, beats}, beats 0 for a polite end. Answer: 1 if this ended it.
--
-- What it holds of a queue with a key of a foreign type cannot go back. The rest does; the session
-- stays with that, and an error tells.

local session, beats = plan[1], plan[2]
local life, current = life_of(session)
if not life or (beats ~= 0 and current ~= beats) then
  return 0
end
local fate = fates()
local queues, held, problem = {}, {}, nil

local function look(queue)
  fate.touch(queue)
  return call('HGETALL', claims_of(life, queue))
end

for _, queue in ipairs(call('SMEMBERS', held_by(life))) do
  local whole, found = sound(look, queue)
  if whole then
    queues[#queues + 1], held[#held + 1] = queue, found
  else
    problem = found
  end
end
if not problem then
  call('HDEL', P .. 'sessions', session)
end
for index, queue in ipairs(queues) do
  call('UNLINK', claims_of(life, queue))
  call('SREM', held_by(life), queue)
  call('SREM', key_of('h', queue), life)
  for position = 1, #held[index], 2 do
    local id, record = held[index][position], held[index][position + 1]
    fate.put_back(queue, id, record, 0, beats ~= 0, beats ~= 0)
  end
end
return problem and redis.error_reply(problem) or 1
