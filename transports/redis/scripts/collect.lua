-- Store.collect. Plan: {session, limit, fence}. Answer as in `claims`, the head being {"lost"} |
-- {"ok", runs}.

local session, limit, fence = plan[1], plan[2], plan[3]
local life = life_of(session)
if not life then
  return {cmsgpack.pack({'lost'})}
end
local tag = life .. '.' .. fence
call('SCARD', P .. 'dead')

local over = call('ZRANGEBYSCORE', P .. 'ttl', '-inf', time(), 'LIMIT', 0, 100)
if #over > 0 then
  local fate, whole = fates(), {}
  for _, queue in ipairs(over) do
    whole[#whole + 1] = sound(fate.touch, queue) and queue or nil
  end
  let_in()
  for _, queue in ipairs(whole) do
    if fate.sweep(queue) then
      break
    end
    local following = call('ZRANGE', key_of('t', queue), 0, 0, 'WITHSCORES')
    if following[2] then
      call('ZADD', P .. 'ttl', following[2], queue)
    else
      call('ZREM', P .. 'ttl', queue)
    end
  end
end

local handed = 0

local function take(queue, room, is_first)
  local rows = call('ZRANGE', key_of('x', queue), 0, math.min(room, CHUNK) - 1, 'WITHSCORES')
  local mids, ids, records = {}, {}, {}
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
      local attempts, crashes, most, reason = read_meta(metas[index])
      reason = reason == '' and 'expired' or reason
      local seq, priority = string.format('%.0f', rows[index * 2]), string.sub(mids[index], 1, 1)
      records[#records + 1] = id
      records[#records + 1] = table.concat(
        {tag, seq, priority, attempts, crashes, most, '0', reason, ''}, ' ')
      report(queue, tag, tonumber(priority), tonumber(attempts), reason, id, contents[index])
      handed = handed + 1
    end
  end
  open_claims(queue, life, records, is_first)
  if call('ZCARD', key_of('x', queue)) == 0 then
    call('SREM', P .. 'dead', queue)
  end
  return #mids
end

local function look(queue)
  check('ZCARD', key_of('x', queue))
  check('HLEN', key_of('m', queue))
  check('HLEN', key_of('a', queue))
  return check_claims(queue, life)
end

local queues, is_first = {}, {}
for _, queue in ipairs(call('SRANDMEMBER', P .. 'dead', 100)) do
  local whole, found = sound(look, queue)
  if whole then
    queues[#queues + 1], is_first[queue] = queue, found
  end
end
for _, queue in ipairs(queues) do
  while handed < limit and take(queue, limit - handed, is_first[queue]) == CHUNK do
  end
end
answer[1] = cmsgpack.pack({'ok', runs})
return answer
