-- Store.end_session. Plan: {session, beats}, beats 0 for a polite end. Answer: 1 if this ended it.

local session, beats = plan[1], plan[2]
local life, current = life_of(session)
if not life or (beats ~= 0 and current ~= beats) then
  return 0
end
local held = held_by(life)
local found, touched = {}, {}
for _, member in ipairs(call('SMEMBERS', held)) do
  local queue, id = read_member(member)
  local packed = call('HGET', key_of('c', queue), id)
  if packed then
    found[#found + 1] = {queue, id, cmsgpack.unpack(packed)}
    if not touched[queue] then
      touched[queue] = true
      touch(queue)
    end
  end
end
call('HDEL', P .. 'sessions', session)
call('UNLINK', held)
for _, one in ipairs(found) do
  call('HDEL', key_of('c', one[1]), one[2])
  put_back(one[1], one[2], one[3], 0, beats ~= 0, beats ~= 0)
end
return 1
