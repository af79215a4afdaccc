-- Store.collect. Plan: {session, limit, fence}. Answer as for claim: a head {"lost"} |
-- {"ok", claims}, a claim being {queue, id, attempts, priority, life, reason}, and their contents.

local session, limit, fence = plan[1], plan[2], plan[3]
local life = life_of(session)
if not life then
  return {cmsgpack.pack({'lost'})}
end
call('SCARD', held_by(life))
call('SCARD', P .. 'dead')

local over = call('ZRANGEBYSCORE', P .. 'ttl', '-inf', now, 'LIMIT', 0, 100)
for _, queue in ipairs(over) do
  touch(queue)
end
if #over > 0 then
  let_in()
end
for _, queue in ipairs(over) do
  local swept = 0
  while sweep(queue) and swept < limit do
    swept = swept + SWEEP
  end
  local following = call('ZRANGE', key_of('t', queue), 0, 0, 'WITHSCORES')
  if following[2] then
    call('ZADD', P .. 'ttl', following[2], queue)
  else
    call('ZREM', P .. 'ttl', queue)
  end
end

local claims, answer = {}, {''}

local function take(queue, room)
  call('HLEN', key_of('c', queue))
  local rows = call('ZRANGE', key_of('x', queue), 0, math.min(room, CHUNK) - 1, 'WITHSCORES')
  local mids, ids, taken = {}, {}, {}
  for position = 1, #rows, 2 do
    mids[#mids + 1] = rows[position]
    ids[#ids + 1] = string.sub(rows[position], 2)
  end
  local contents = many_values('HMGET', key_of('m', queue), ids)
  local metas = many_values('HMGET', key_of('a', queue), ids)
  many('ZREM', key_of('x', queue), mids)
  many('HDEL', key_of('a', queue), ids)
  for index, id in ipairs(ids) do
    if contents[index] and metas[index] then
      local meta = cmsgpack.unpack(metas[index])
      local priority = tonumber(string.sub(mids[index], 1, 1))
      local record = {life, fence, tonumber(rows[index * 2]), priority, meta[1], meta[2], meta[3],
        0, meta[4], ''}
      taken[#taken + 1] = {id, record}
      claims[#claims + 1] = {queue, id, meta[1], priority, fence, meta[4]}
      answer[#answer + 1] = contents[index]
    end
  end
  open_claims(queue, life, taken)
  if call('ZCARD', key_of('x', queue)) == 0 then
    call('SREM', P .. 'dead', queue)
  end
  return #mids
end

for _, queue in ipairs(call('SRANDMEMBER', P .. 'dead', 100)) do
  while #claims < limit and take(queue, limit - #claims) == CHUNK do
  end
end
answer[1] = cmsgpack.pack({'ok', life, claims})
return answer
