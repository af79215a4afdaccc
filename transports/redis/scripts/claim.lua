-- Store.claim. Plan: {session, life, request, fence, repeat, wants, tokens}; life is 0 for the
-- first look and the session's after that; wants is a list of {queue, room}.
-- Answer: a list whose head is {"lost"} | {"gone"} | {"ok", life, due_in, stale, claims}, followed
-- by the content of each claim; a claim is {queue, id, attempts, priority}; due_in is the time in
-- microseconds until something is due, -1 for never.

local session, life, request, fence = plan[1], plan[2], plan[3], plan[4]
local wants, tokens = plan[6], plan[7]
local ALONE = 2

local current = life_of(session)
if life ~= 0 and current ~= life then
  return {cmsgpack.pack({'gone'})}
elseif not current then
  return {cmsgpack.pack({'lost'})}
end
life = current
call('SCARD', held_by(life))

local claims, answer = {}, {''}

local function report(queue, id, record, content)
  claims[#claims + 1] = {queue, id, record[5], record[4], record[2]}
  answer[#answer + 1] = content
end

-- What an earlier call with this request took, as far as it is still held.
local function take_again()
  local found = {}
  for _, member in ipairs(call('SMEMBERS', held_by(life))) do
    local queue, id = read_member(member)
    local packed = call('HGET', key_of('c', queue), id)
    if packed then
      local record = cmsgpack.unpack(packed)
      if record[10] == request then
        found[#found + 1] = {queue, id, record}
      end
    end
  end
  table.sort(found, function(one, other)
    if one[3][4] ~= other[3][4] then
      return one[3][4] > other[3][4]
    end
    return one[3][3] < other[3][3]
  end)
  for _, one in ipairs(found) do
    report(one[1], one[2], one[3], call('HGET', key_of('m', one[1]), one[2]) or '')
  end
  return #found > 0
end

-- The next ready messages of one priority, oldest first: {seq, id, from_list}; and how many there
-- are.
local function candidates(queue, priority, room)
  local list, zset = key_of('l' .. priority, queue), key_of('r' .. priority, queue)
  local listed, returned = {}, {}
  local many_listed, many_returned = call('LLEN', list), call('ZCARD', zset)
  if many_listed > 0 then
    listed = call('LRANGE', list, 0, room - 1)
  end
  if many_returned > 0 then
    returned = call('ZRANGE', zset, 0, room - 1, 'WITHSCORES')
  end
  local merged, position = {}, 1
  for _, element in ipairs(listed) do
    local number, id = string.match(element, '^(%d+):(.*)$')
    number = tonumber(number)
    while returned[position] and tonumber(returned[position + 1]) < number do
      merged[#merged + 1] = {tonumber(returned[position + 1]), returned[position], false}
      position = position + 2
    end
    merged[#merged + 1] = {number, id, true}
  end
  while returned[position] do
    merged[#merged + 1] = {tonumber(returned[position + 1]), returned[position], false}
    position = position + 2
  end
  for index = #merged, room + 1, -1 do
    merged[index] = nil
  end
  return merged, many_listed + many_returned
end

local function column(rows, prefix)
  local values = {}
  for index, row in ipairs(rows) do
    values[index] = prefix .. row[2]
  end
  return values
end

-- Take from one priority. Returns how many were taken, how many are left, and whether a message that
-- must be alone ends the search.
local function take_from(queue, priority, room, first, found)
  local rows, count = candidates(queue, priority, room)
  if count == 0 then
    return 0, 0, false
  end
  local ids = column(rows, '')
  local contents = many_values('HMGET', key_of('m', queue), ids)
  local metas = found.meta and many_values('HMGET', key_of('a', queue), ids) or {}
  local expiries = {}
  if found.ttl then
    expiries = many_values('ZMSCORE', key_of('t', queue), column(rows, priority))
  end
  local taken, gone, from_list, over, stop = {}, {}, 0, {}, false
  for index, row in ipairs(rows) do
    local meta = metas[index] and cmsgpack.unpack(metas[index]) or PLAIN
    local expires = tonumber(expiries[index] or '0')
    if expires > 0 and expires <= now then
      over[#over + 1] = priority .. row[2]
    elseif meta[2] >= ALONE and not (first and #taken == 0) then
      stop = true
      break
    else
      if row[3] then
        from_list = from_list + 1
      else
        gone[#gone + 1] = row[2]
      end
      if contents[index] then
        local record = {life, fence, row[1], priority, meta[1] + 1, meta[2], meta[3], expires, '',
          request}
        taken[#taken + 1] = {row[2], record}
        report(queue, row[2], record, contents[index])
      end
      if meta[2] >= ALONE then
        stop = true
        break
      end
    end
  end
  if from_list > 0 then
    call('LTRIM', key_of('l' .. priority, queue), from_list, -1)
  end
  many('ZREM', key_of('r' .. priority, queue), gone)
  for _, mid in ipairs(over) do
    kill(queue, mid, 'expired')
  end
  if found.ttl and #taken > 0 then
    local mids = {}
    for index, one in ipairs(taken) do
      mids[index] = priority .. one[1]
    end
    many('ZREM', key_of('t', queue), mids)
  end
  if found.meta and #taken > 0 then
    local names = {}
    for index, one in ipairs(taken) do
      names[index] = one[1]
    end
    many('HDEL', key_of('a', queue), names)
  end
  open_claims(queue, life, taken)
  return #taken, count - from_list - #gone - #over, stop
end

-- Read what `take` is going to need of a queue, so that it cannot fail after something was written.
local function look(queue)
  local found = {}
  call('HLEN', key_of('m', queue))
  call('HLEN', key_of('c', queue))
  found.meta = call('HLEN', key_of('a', queue)) > 0
  found.ttl = call('ZCARD', key_of('t', queue)) > 0
  found.delayed = call('ZCARD', key_of('d', queue)) > 0
  found.bells = bells(queue)
  if found.delayed or found.ttl then
    touch(queue)
  end
  found.priorities = call('SMEMBERS', key_of('s', queue))
  if #tokens > 0 or #wants > 1 or #found.priorities > 1 then
    for _, priority in ipairs(found.priorities) do
      call('LLEN', key_of('l' .. priority, queue))
      call('ZCARD', key_of('r' .. priority, queue))
    end
  end
  return found
end

-- Take what there is room for; and leave a bell if, and only if, there is more.
local function take(queue, room, found)
  if found.ttl then
    sweep(queue)
  end
  local priorities, total = found.priorities, 0
  if found.delayed then
    promote(queue)
    priorities = call('SMEMBERS', key_of('s', queue))
  end
  table.sort(priorities)
  local stop = false
  while #priorities > 0 and total < room and not stop do
    local priority, share = tonumber(priorities[#priorities]), math.min(room - total, CHUNK)
    local taken, left
    taken, left, stop = take_from(queue, priority, share, total == 0, found)
    total = total + taken
    if left == 0 then
      call('SREM', key_of('s', queue), priority)
      table.remove(priorities)
    end
  end
  if #priorities == 0 then
    silence(queue)
  elseif bells(queue) == 0 then
    ring(queue, 1)
  end
end

local stale = {}
if not (plan[5] and take_again()) then
  local records = #tokens > 0 and find(tokens) or {}
  check_books(tokens, records, #tokens)
  local found = {}
  for index, want in ipairs(wants) do
    found[index] = look(want[1])
  end
  settle(tokens, records, #tokens)
  stale = stale_of(records, #tokens)
  for index, want in ipairs(wants) do
    take(want[1], want[2], found[index])
  end
end

local due_in = -1
for _, want in ipairs(#claims == 0 and wants or {}) do
  local next_due = call('ZRANGE', key_of('d', want[1]), 0, 0, 'WITHSCORES')[2]
  if next_due then
    local left = math.max(0, tonumber(next_due) - now)
    due_in = due_in < 0 and left or math.min(due_in, left)
  end
end
answer[1] = cmsgpack.pack({'ok', life, due_in, stale, claims})
return answer
