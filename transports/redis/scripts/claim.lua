-- Store.claim. Plan: {session, life, request, fence, repeat, wants, groups}; life is empty for the
-- first look and the session's after that; wants is a list of {queue, room}.
-- Answer as in `claims`, the head being {"lost"} | {"gone"} | {"ok", life, left, due_in, stale, runs,
-- broken}; left is 1 if there may be more ready messages, else 0, due_in is the time in microseconds
-- until something is due, -1 for never, and broken has {place from 0, what is wrong} for queues with a
-- key of a foreign type. From these nothing is taken; it is an error if there are no others.

local session, life, request, fence = plan[1], plan[2], plan[3], plan[4]
local wants, groups = plan[6], plan[7]
local ALONE = 2

local current = life_of(session)
if life ~= '' and current ~= life then
  return {cmsgpack.pack({'gone'})}
elseif not current then
  return {cmsgpack.pack({'lost'})}
end
life = current
local tag = life .. '.' .. fence
local fate, waiting = nil, {}  -- what is due, if anything is; queues with delayed messages

-- What an earlier call with this request took, as far as it is still held.
local function take_again()
  local found = {}
  for _, queue in ipairs(call('SMEMBERS', held_by(life))) do
    local claims = call('HGETALL', claims_of(life, queue))
    for position = 1, #claims, 2 do
      local seq, priority, attempts, _, _, _, _, asked, earlier = read_record(claims[position + 1])
      if asked == request then
        found[#found + 1] = {queue, claims[position], tonumber(seq), priority, attempts, earlier}
      end
    end
  end
  table.sort(found, function(one, other)
    if one[4] ~= other[4] then
      return one[4] > other[4]
    end
    return one[3] < other[3]
  end)
  for _, one in ipairs(found) do
    local content = call('HGET', key_of('m', one[1]), one[2]) or ''
    report(one[1], one[6], tonumber(one[4]), tonumber(one[5]), '', one[2], content)
  end
  return #found > 0
end

-- The next ready messages of one priority, oldest first: their places and their ids; `returned` has
-- the ids of those that do not come from the list. And how many there are, counted to one more than
-- there is room for.
local function candidates(queue, priority, room)
  local listed = call('LRANGE', key_of('l' .. priority, queue), 0, room)
  local others = call('ZRANGE', key_of('r' .. priority, queue), 0, room, 'WITHSCORES')
  local seqs, ids, count = {}, {}, #listed + #others / 2
  if #others == 0 then
    for index = 1, math.min(room, #listed) do
      seqs[index], ids[index] = read_place(listed[index])
    end
    return seqs, ids, {}, count
  end
  local returned, first, other = {}, 1, 1
  while #ids < room and (listed[first] or others[other]) do
    local place, id = math.huge, nil
    if listed[first] then
      place, id = read_place(listed[first])
      place = tonumber(place)
    end
    if others[other] and tonumber(others[other + 1]) < place then
      place, id = tonumber(others[other + 1]), others[other]
      returned[id] = true
      other = other + 2
    else
      first = first + 1
    end
    seqs[#seqs + 1], ids[#ids + 1] = string.format('%.0f', place), id
  end
  return seqs, ids, returned, count
end

local function with(prefix, ids)
  local values = {}
  for index, id in ipairs(ids) do
    values[index] = prefix .. id
  end
  return values
end

-- Take from one priority. Returns how many were taken, how many are left, and whether a message that
-- must be alone ends the search.
local function take_from(queue, priority, room, first, found)
  local seqs, ids, returned, count = candidates(queue, priority, room)
  if count == 0 then
    return 0, 0, false
  end
  local contents = many_values('HMGET', key_of('m', queue), ids)
  local metas = found.meta and many_values('HMGET', key_of('a', queue), ids) or {}
  local expiries = found.ttl
    and many_values('ZMSCORE', key_of('t', queue), with(priority, ids)) or {}
  local plain = ' ' .. priority .. ' 1 0 0 0 - ' .. request
  local records, taken, gone, over, from_list, stop = {}, {}, {}, {}, 0, false
  for index, id in ipairs(ids) do
    local attempts, crashes, most, rest = 1, 0, 0, plain
    local expires = tonumber(expiries[index] or '0')
    if metas[index] then
      attempts, crashes, most = read_meta(metas[index])
      attempts, crashes = attempts + 1, tonumber(crashes)
    end
    if expires > 0 and expires <= time() then
      over[#over + 1] = priority .. id
    elseif crashes >= ALONE and not (first and #taken == 0) then
      stop = true
      break
    else
      if returned[id] then
        gone[#gone + 1] = id
      else
        from_list = from_list + 1
      end
      if contents[index] then
        if metas[index] or expires > 0 then
          rest = ' ' .. priority .. ' ' .. attempts .. ' ' .. crashes .. ' ' .. most .. ' '
            .. string.format('%.0f', expires) .. ' - ' .. request
        end
        taken[#taken + 1] = id
        records[#records + 1] = id
        records[#records + 1] = tag .. ' ' .. seqs[index] .. rest
        report(queue, tag, priority, attempts, '', id, contents[index])
      end
      if crashes >= ALONE then
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
    fate.kill(queue, mid, 'expired')
  end
  if found.ttl then
    many('ZREM', key_of('t', queue), with(priority, taken))
  end
  if found.meta then
    many('HDEL', key_of('a', queue), taken)
  end
  open_claims(queue, life, records, found.is_first)
  found.is_first = found.is_first and #records == 0
  return #taken, count - from_list - #gone - #over, stop
end

-- Read what `take` is going to need of a queue, so that it cannot fail after something was written.
local function look(queue)
  local found = {}
  local metas, expiries, delayed = key_of('a', queue), key_of('t', queue), key_of('d', queue)
  if call('EXISTS', metas, expiries, delayed) > 0 then
    found.meta = call('HLEN', metas) > 0
    found.ttl = call('ZCARD', expiries) > 0
    found.over = found.ttl and call('ZCOUNT', expiries, '-inf', time()) > 0
    found.delayed = call('ZCARD', delayed) > 0
    found.due = found.delayed and call('ZCOUNT', delayed, '-inf', time()) > 0
  end
  bells(queue)
  if found.over or found.due then
    fate = fate or fates()
    fate.touch(queue)
  end
  found.priorities = call('SMEMBERS', key_of('s', queue))
  if found.due or #found.priorities > 0 then
    found.is_first = check_claims(queue, life)
  end
  if #groups > 0 or #wants > 1 or #found.priorities > 1 then  -- else `take_from` reads them first
    check('HLEN', key_of('m', queue))
    for _, priority in ipairs(found.priorities) do
      check('LLEN', key_of('l' .. priority, queue))
      check('ZCARD', key_of('r' .. priority, queue))
    end
  end
  if found.delayed then
    waiting[#waiting + 1] = queue
  end
  return found
end

-- Take what there is room for; and leave a bell if, and only if, there is more. Returns 1 then. If
-- the next thousand have all expired, that is enough for one step.
local function take(queue, room, found)
  if found.over then
    fate.sweep(queue)
  end
  local priorities, total, vain, stop = found.priorities, 0, 0, false
  if found.due then
    fate.promote(queue)
    priorities = call('SMEMBERS', key_of('s', queue))
  end
  table.sort(priorities)
  while #priorities > 0 and total < room and vain < CHUNK and not stop do
    local priority, share = tonumber(priorities[#priorities]), math.min(room - total, CHUNK)
    local taken, left
    taken, left, stop = take_from(queue, priority, share, total == 0, found)
    total, vain = total + taken, vain + share - taken
    if left == 0 then
      call('SREM', key_of('s', queue), priority)
      table.remove(priorities)
    end
  end
  if #priorities == 0 then
    silence(queue)
    return 0
  elseif bells(queue) == 0 then
    ring(queue, 1)
  end
  return 1
end

local stale, left, broken = {}, 0, {}
if not (plan[5] and take_again()) then
  find(groups)
  check_books(groups, #groups)
  local found, problem = {}, nil
  for index, want in ipairs(wants) do
    local whole, seen = sound(look, want[1])
    found[index] = whole and seen
    if not whole then
      broken[#broken + 1], problem = {index - 1, seen}, seen
    end
  end
  if problem and #broken == #wants then
    return redis.error_reply(problem)
  end
  settle(groups, #groups)
  stale = stale_of(groups, #groups)
  for index, want in ipairs(wants) do
    if found[index] then
      left = math.max(left, take(want[1], want[2], found[index]))
    end
  end
end

local due_in = -1
for _, queue in ipairs(waiting) do
  local next_due = call('ZRANGE', key_of('d', queue), 0, 0, 'WITHSCORES')[2]
  if next_due then
    local rest = math.max(0, tonumber(next_due) - time())
    due_in = due_in < 0 and rest or math.min(due_in, rest)
  end
end
answer[1] = cmsgpack.pack({'ok', life, left, due_in, stale, runs, broken})
return answer
