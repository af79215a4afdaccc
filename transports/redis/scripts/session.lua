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
  life = tonumber(life) or fresh_number()
  call('HSET', sessions, session, cmsgpack.pack({lease, beats, life}))
  return ''
end
if plan[1] == 'owned' then
  local life = life_of(plan[2])
  local tokens = {}
  for _, queue in ipairs(life and call('SMEMBERS', held_by(life)) or {}) do
    local claims = call('HGETALL', claims_of(life, queue))
    for position = 1, #claims, 2 do
      tokens[#tokens + 1] = {queue, claims[position], string.match(claims[position + 1], '^%S+')}
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
  local found = read_session(packed[index])
  if found then
    changes[#changes + 1] = session
    changes[#changes + 1] = cmsgpack.pack({found[1], beats, found[3]})
  else
    unknown[#unknown + 1] = index - 1
  end
end
many('HSET', sessions, changes)
return cmsgpack.pack(unknown)
