-- Store.open_session, heartbeat and owned. Plan: {"open", session, lease} with the lease as text |
-- {"beat", sessions} | {"owned", session}.
-- A session is {lease, beats, life}.

local sessions = P .. 'sessions'
if plan[1] == 'open' then
  local _, session, lease = unpack(plan)
  local life = life_of(session)
  call('GET', P .. 'number')
  let_in()
  local beats = fresh_number()
  call('HSET', sessions, session, cmsgpack.pack({lease, beats, life or fresh_number()}))
  return ''
end
if plan[1] == 'owned' then
  local life = life_of(plan[2])
  local tokens = {}
  for _, member in ipairs(life and call('SMEMBERS', held_by(life)) or {}) do
    local queue, id = read_member(member)
    local packed = call('HGET', key_of('c', queue), id)
    if packed then
      local record = cmsgpack.unpack(packed)
      tokens[#tokens + 1] = {queue, id, record[1], record[2]}
    end
  end
  return cmsgpack.pack(tokens)
end
local unknown, changes = {}, {}
call('GET', P .. 'number')
local packed = many_values('HMGET', sessions, plan[2])
let_in()
local beats = fresh_number()
for index, session in ipairs(plan[2]) do
  if packed[index] then
    local found = cmsgpack.unpack(packed[index])
    changes[#changes + 1] = session
    changes[#changes + 1] = cmsgpack.pack({found[1], beats, found[3]})
  else
    unknown[#unknown + 1] = index - 1
  end
end
many('HSET', sessions, changes)
return cmsgpack.pack(unknown)
