-- Store.put. Plan: {names, versions, groups, settled, queues}; the tokens of the first `settled`
-- groups are to be settled, the others are causes only. A queue is {name, limit, overflow, runs} with
-- limit -1 for none and overflow 1 for reject-publish; a run is a list of messages that have
-- everything in common but their ids: {priority, delay, ttl, max_deliveries, cause, first, ids} with
-- times in microseconds, ttl -1 for none, and cause the place of a token in all groups, or 0. The
-- content of the first message of a run is ARGV[first].
-- Answer: {"stale", indices} | {"full", names} | {"ok", already, stale tokens}; `already` are places
-- in ARGV.

local names, versions, groups, settled, queues = plan[1], plan[2], plan[3], plan[4], plan[5]

if #names > 0 then
  local stale = {}
  for index, version in ipairs(many_values('HMGET', P .. 'versions', names)) do
    if tonumber(version or '0') ~= versions[index] then
      stale[#stale + 1] = index - 1
    end
  end
  if #stale > 0 then
    return cmsgpack.pack({'stale', stale})
  end
end

find(groups)
check_books(groups, settled)
local records, leaving, leaving_count, fate = {}, {}, 0, nil
for index, group in ipairs(groups) do
  for place, record in ipairs(group[5]) do
    records[#records + 1] = record
    if record and index <= settled then
      leaving[#group[1] .. ':' .. group[1] .. group[3][place]] = true
      leaving_count = leaving_count + 1
    end
  end
end

-- Read: what is new, whether there is room, and the type of each key that will be written.

local already, full, growth = {}, {}, 0

-- Leave out of a run what is there already, and what others have dealt with; the rest gets the places
-- of its contents. `seen` has the ids of the runs of this queue before it.
local function choose(queue, run, seen)
  local ids, places = {}, {}
  if run[5] == 0 or records[run[5]] then
    local bodies = many_values('HMGET', key_of('m', queue), run[7])
    for position, id in ipairs(run[7]) do
      local place = run[6] + position - 1
      if seen[id] or bodies[position] and not leaving[#queue .. ':' .. queue .. id] then
        already[#already + 1] = place
      else
        seen[id] = true
        ids[#ids + 1] = id
        places[#places + 1] = place
      end
    end
  end
  run[7], run[8] = ids, places
  return #ids
end

-- Whether the messages of a run need more than the list of their priority.
local function is_unusual(run)
  return run[2] > 0 or run[3] >= 0 or run[4] > 0
end

for _, queue in ipairs(queues) do
  local name, limit, unusual, alive, seen, filled = queue[1], queue[2], {}, 0, {}, {}
  for _, run in ipairs(queue[4]) do
    local count = choose(name, run, seen)
    growth = growth + count
    if run[3] ~= 0 then
      alive = alive + count
    end
    if is_unusual(run) then
      unusual[#unusual + 1] = run[1]
    elseif filled[run[1]] == nil then
      filled[run[1]] = call('LLEN', key_of('l' .. run[1], name)) > 0
      if not filled[run[1]] then
        call('SCARD', key_of('s', name))
      end
    end
  end
  queue[5] = filled
  bells(name)
  if #unusual > 0 or limit >= 0 then
    fate = fate or fates()
    fate.touch(name, limit < 0 and unusual or nil)
    if limit >= 0 and queue[3] == 1 and alive > 0 and fate.unclaimed(name) + alive > limit then
      full[#full + 1] = name
    end
  end
end
if #full > 0 then
  return cmsgpack.pack({'full', full})
end

-- Write. What grows comes first, so that a full server refuses it before anything has happened;
-- but copies that replace what is settled must pass, or a full server could not be drained.

local seq = 0
if growth > leaving_count then
  seq = call('INCRBY', P .. 'seq', growth) - growth
  settle(groups, settled)
else
  call('GET', P .. 'seq')
  settle(groups, settled)
  if growth > 0 then
    seq = call('INCRBY', P .. 'seq', growth) - growth
  end
end

-- Bring a delayed or mortal message to its place; return whether it is ready.
local function bring(queue, id, place, run)
  local priority, delay, ttl = run[1], run[2], run[3]
  local mid = priority .. id
  if ttl == 0 then
    fate.condemn(queue, mid, id, place, 'expired')
    return false
  end
  if ttl > 0 then
    fate.note_expiry(queue, mid, time() + ttl)
  end
  if delay > 0 then
    fate.postpone(queue, mid, id, priority, place, delay)
    return false
  end
  call('ZADD', key_of('r' .. priority, queue), place, id)
  return true
end

-- Append the messages of all runs of a queue; return how many of them are ready.
local function append(queue, runs, filled)
  local contents, metas, lists, others, filling, ready = {}, {}, {}, {}, {}, 0
  for _, run in ipairs(runs) do
    local priority, most, places = run[1], run[4], run[8]
    local plain, list = run[2] <= 0 and run[3] < 0, lists[priority] or {}
    local meta = most > 0 and fate.meta_of(0, 0, most, '')
    lists[priority] = list
    for index, id in ipairs(run[7]) do
      seq = seq + 1
      contents[#contents + 1] = id
      contents[#contents + 1] = ARGV[places[index]]
      if meta then
        metas[#metas + 1] = id
        metas[#metas + 1] = meta
      end
      if plain then
        list[#list + 1] = string.format('%.0f:%s', seq, id)
      else
        others[#others + 1] = {id, seq, run}
      end
    end
  end
  many('HSET', key_of('m', queue), contents)
  many('HSET', key_of('a', queue), metas)
  for priority, list in pairs(lists) do
    many('RPUSH', key_of('l' .. priority, queue), list)
    ready = ready + #list
    filling[priority] = #list > 0
  end
  for _, other in ipairs(others) do
    if bring(queue, other[1], other[2], other[3]) then
      ready = ready + 1
      filling[other[3][1]] = true
    end
  end
  for priority, fresh in pairs(filling) do
    if fresh and not filled[priority] then
      fill(queue, priority)
    end
  end
  return ready
end

-- Let the oldest of the lowest priority die until there are no more than `limit`.
local function drop_surplus(queue, limit)
  local count, priority = fate.unclaimed(queue), 0
  while count > limit and priority <= 9 do
    local list = key_of('l' .. priority, queue)
    local head = call('LINDEX', list, 0)
    local first, mid = math.huge, nil
    if head then
      first = tonumber((read_place(head)))
    end
    for _, kind in ipairs({'r', 'p'}) do
      local other = call('ZRANGE', key_of(kind .. priority, queue), 0, 0, 'WITHSCORES')
      if other[1] and tonumber(other[2]) < first then
        first, mid = tonumber(other[2]), priority .. other[1]
      end
    end
    if mid then
      local expires = call('ZSCORE', key_of('t', queue), mid)
      if expires and tonumber(expires) <= time() then
        fate.kill(queue, mid, 'expired')
      else
        fate.kill(queue, mid, 'maxlen')
        count = count - 1
      end
    elseif head then
      local _, id = read_place(head)
      call('LPOP', list)
      fate.condemn(queue, priority .. id, id, first, 'maxlen')
      count = count - 1
    else
      priority = priority + 1
    end
  end
end

for _, queue in ipairs(queues) do
  local ready = append(queue[1], queue[4], queue[5])
  if queue[2] >= 0 and queue[3] == 0 then
    drop_surplus(queue[1], queue[2])
  end
  if ready > 0 then
    ring(queue[1], ready)
  end
end
return cmsgpack.pack({'ok', already, stale_of(groups, settled)})
